"""What several test modules share."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0 import HardConcrete
from keras_sgl0.structures.selection import random_half

BACKEND = keras.backend.backend()
# XLA takes longer to compile the tests' models than to train them.
QUICK = {}
if BACKEND == "tensorflow":
    QUICK["jit_compile"] = False


def to_numpy(x):
    return ops.convert_to_numpy(x)


def gradient(function, x):
    """Returns the gradient of a scalar function at a NumPy array."""
    x = ops.convert_to_tensor(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return to_numpy(tape.gradient(y, x))
    if BACKEND == "jax":
        import jax

        return to_numpy(jax.grad(function)(x))
    x = x.clone().requires_grad_(True)
    function(x).backward()
    return to_numpy(x.grad)


def take_step(optimizer, loss, variables):
    """Trains variables as a `train_step` of one's own does; not on JAX."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value
    import torch

    value = loss()
    gradients = torch.autograd.grad(value, [v.value for v in variables])
    with torch.no_grad():
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return value.detach()


not_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="a train step of one's own is another one on JAX"
)


# A target that is met in several fits compiles many steps there.
slow_on_jax = pytest.mark.slow if BACKEND == "jax" else lambda test: test


def compile_quickly(model, optimizer, loss, **arguments):
    """Compiles a model for a `fit` that starts soon."""
    model.compile(optimizer, loss, **(QUICK | arguments))
    # If a step makes variables, TensorFlow traces it twice.
    if model.built:
        model.optimizer.build(model.trainable_variables)


def two_layers(penalty, optimizer="sgd", seed=0, **compile_arguments):
    """Returns a small compiled classifier, the same for the same seed."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(
                16, activation="relu", kernel_regularizer=penalty, name="first"
            ),
            keras.layers.Dense(3, kernel_regularizer=penalty, name="second"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, optimizer, loss, **compile_arguments)
    return model


def two_gated_layers(optimizer="adam", **compile_arguments):
    """Returns a compiled classifier whose dense layers have gated inputs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            HardConcrete(0.2, seed=1),
            layers.Dense(16, "relu", name="first"),
            HardConcrete(0.5, seed=2),
            layers.Dense(3, name="second"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, optimizer, loss, **compile_arguments)
    return model


def layers_of(model):
    """Yields the layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def scramble(model, dead=0.5, seed=0):
    """Gives a model random weights of which some neurons are dead.

    Kernels are normal, each output channel zero with probability `dead`;
    biases and the statistics of batch norm are random, a few scales zero.
    """
    rng = np.random.default_rng(seed)
    for layer in layers_of(model):
        for variable in layer.weights:
            shape, name = tuple(variable.shape), variable.name
            if name.endswith(("kernel", "embeddings")):
                variable.assign(_kernel(rng, layer, name, shape, dead))
            elif name in ("gamma", "moving_variance"):
                alive = (rng.random(shape) > 0.05) | (name != "gamma")
                variable.assign(rng.uniform(0.5, 1.5, shape) * alive)
            elif keras.backend.is_float_dtype(variable.dtype):
                variable.assign(0.3 * rng.normal(size=shape))
    return model


def scale_all(model):
    """Sets every scale of batch norm to 1, so that none makes a constant."""
    for layer in layers_of(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.ones(layer.gamma.shape))
    return model


def _kernel(rng, layer, name, shape, dead):
    wide = "Transpose" in type(layer).__name__
    wide |= "epthwise" in type(layer).__name__ + name
    axis = len(shape) - 1 - (wide and not name.startswith("pointwise"))
    w = rng.normal(size=shape)
    w *= (1.5 * shape[axis] / w.size) ** 0.5
    alive = rng.random(shape[axis]) >= dead
    return w * np.expand_dims(alive, [i for i in range(w.ndim) if i != axis])


def assert_same_outputs(model, small, tolerance=1e-5, inputs=None, seed=0):
    """Checks that two models agree, relative to the largest output."""
    if inputs is None:
        rng = np.random.default_rng(seed)
        inputs = [
            rng.normal(size=(2, *x.shape[1:])).astype(x.dtype)
            for x in model.inputs
        ]
        inputs = inputs if len(inputs) > 1 else inputs[0]
    for a, b in zip(
        keras.tree.flatten(model(inputs)),
        keras.tree.flatten(small(inputs)),
        strict=True,
    ):
        a, b = to_numpy(a), to_numpy(b)
        assert a.shape == b.shape
        assert abs(a - b).max() <= tolerance * abs(a).max()


def two_towers(penalty=None, gate=None, optimizer="sgd"):
    """Returns a compiled classifier of two models whose layers share a name.

    Keras gives both kernels the path `fc/kernel`.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    outputs = []
    for units, name in ((5, "left"), (7, "right")):
        x = keras.Input((12,))
        fc = layers.Dense(units, kernel_regularizer=penalty, name="fc")
        tower = keras.Model(x, fc(gate()(x) if gate else x), name=name)
        outputs.append(tower(inputs))
    last = layers.Dense(3, name="last")(layers.Concatenate()(outputs))
    model = keras.Model(inputs, last)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, optimizer, loss)
    return model


def cut_half(model, tolerance=1e-5, seed=0, inputs=None):
    """Returns a model without a random half of each family, and that half.

    The weights are random. The cut must be
    exact and cost what `structures` said.

    Args:
        model: The model.
        tolerance: For the outputs.
        seed: The seed.
        inputs: Some inputs, random ones if not given.

    Returns:
        The smaller model and flags, the structures that were set to zero.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            positive = variable.name.endswith(("variance", "stddev", "gamma"))
            low = 0.5 if positive else -1.0
            variable.assign(rng.uniform(low, 1, variable.shape))
    found = ks.structures(model)
    assert len(found) > 0
    assert found.cost().parameters == model.count_params()
    assert found.cost().macs == ks.count_macs(model).macs
    dead = random_half(found, rng)
    found.zero(dead)
    small, report = ks.shrink(model, 0, verify=False)
    assert not report.whole
    assert_same_outputs(model, small, tolerance, inputs, seed)
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters == report.parameters_after
    assert ks.count_macs(small).macs == cost.macs == report.macs_after
    return small, dead
