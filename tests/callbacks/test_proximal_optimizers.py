"""The optimizers whose learning rate `ProximalStep` takes."""

import keras
import numpy as np
import pytest
from helpers import QUICK, not_jax, take_step, to_numpy, two_layers

import keras_sgl0 as ks


def test_each_kernel_takes_the_rate_of_its_own_optimizer(images):
    rates = {"first": 0.1, "second": 0.02}
    factor = 0.01
    first, second = (keras.optimizers.SGD(rate) for rate in rates.values())
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(first, {".*second/.*": second})
    )
    model = two_layers(ks.L1(factor), several)
    before = [to_numpy(layer.kernel) for layer in model.layers]
    # No gradient, so that only the penalty moves the kernels.
    model.compile(several, lambda y, logits: 0.0 * logits, **QUICK)
    model.fit(
        *images,
        batch_size=len(images[0]),
        verbose=0,
        callbacks=[ks.ProximalStep()],
    )
    for layer, old in zip(model.layers, before, strict=True):
        expected = np.maximum(abs(old) - rates[layer.name] * factor, 0)
        found = abs(to_numpy(layer.kernel))
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_accumulation_is_refused_behind_loss_scaling_too(images):
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    )
    model = two_layers(ks.L1(0.01), optimizer)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=4"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])


class OwnOptimizer(keras.Model):
    """A model whose train step has an optimizer of its own."""

    def __init__(self, own):
        super().__init__()
        self.dense = keras.layers.Dense(3, kernel_regularizer=ks.L1(0.1))
        self.own = own

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        loss = take_step(
            self.own,
            lambda: self.compute_loss(y=y, y_pred=self(x)),
            self.trainable_variables,
        )
        return {"loss": loss}


@not_jax
@pytest.mark.parametrize("compiled", ["sgd", None])
def test_a_train_step_with_an_optimizer_of_its_own(images, compiled):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def fitted(model, callback, optimizer):
        model(images[0])
        model.compile(optimizer, loss, **QUICK)
        model.layers[0].kernel.assign(np.full((12, 3), 0.02))
        model.fit(
            *images, epochs=3, verbose=0, shuffle=False, callbacks=[callback]
        )
        return to_numpy(model.layers[0].kernel)

    own = keras.optimizers.SGD(0.05)
    found = fitted(OwnOptimizer(own), ks.ProximalStep(own), compiled)
    plain = keras.Sequential(
        [keras.layers.Dense(3, kernel_regularizer=ks.L1(0.1))]
    )
    optimizer = keras.optimizers.SGD(0.05)
    expected = fitted(plain, ks.ProximalStep(), optimizer)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found == 0).any()


@not_jax
@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        ("sgd", r"rate of SGD, which took no step: .*Step\(optimizer=...\)`"),
        (None, r"compiled without an optimizer. .*Step\(optimizer=...\)`"),
    ],
)
def test_another_optimizer_than_that_of_the_model(images, compiled, message):
    model = OwnOptimizer(keras.optimizers.SGD(0.05))
    model(images[0])
    model.compile(compiled, "sparse_categorical_crossentropy", **QUICK)
    with pytest.raises(ValueError, match=message):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])


def test_an_optimizer_that_is_none():
    with pytest.raises(ValueError, match=r"`optimizer`. Expected a Keras opt"):
        ks.ProximalStep("sgd")
    assert ks.ProximalStep().model is None


@not_jax
def test_a_train_step_needs_no_losses(images):
    class Bare(OwnOptimizer):
        def compute_loss(self, y, y_pred):
            return keras.ops.mean(keras.ops.square(y_pred))

    model = Bare(keras.optimizers.SGD(0.05))
    model(images[0])
    model.compile("sgd", **QUICK)
    model.fit(*images, verbose=0, callbacks=[ks.ProximalStep(model.own)])


@pytest.mark.parametrize("alone", [True, False])
def test_a_joint_step_under_several_optimizers_is_refused(images, alone):
    first, second = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)
    # The first layer's kernel and bias are one structure.
    pattern = ".*second/.*" if alone else ".*bias"
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(first, {pattern: second})
    )
    model = two_layers(None, several)
    callbacks = [ks.CoupledGroups(ks.GroupLasso(0.1)), ks.ProximalStep()]
    if alone:
        model.fit(*images, verbose=0, callbacks=callbacks)
        return
    with pytest.raises(ValueError, match="cannot take the joint step"):
        model.fit(*images, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize(
    "penalty", [ks.MCP(0.01, gamma=0.5), ks.SCAD(0.01, a=2.5)]
)
def test_a_rate_that_rises_beyond_the_operator_is_refused(images, penalty):
    def rate(epoch, before):
        epochs.append(epoch)
        return [0.1, 0.2, 3.0][epoch]

    epochs = []
    model = two_layers(penalty, keras.optimizers.SGD(0.1))
    scheduler = keras.callbacks.LearningRateScheduler(rate)
    with pytest.raises(ValueError, match="needs `step` less than"):
        model.fit(
            *images,
            epochs=3,
            verbose=0,
            callbacks=[scheduler, ks.ProximalStep()],
        )
    assert epochs == [0, 1, 2]
