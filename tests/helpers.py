"""What several test modules share."""

import keras
from keras import ops


def to_numpy(x):
    return ops.convert_to_numpy(x)


def gradient(function, x):
    """Returns the gradient of a scalar function at a NumPy array."""
    x = ops.convert_to_tensor(x)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return to_numpy(tape.gradient(y, x))
    if backend == "jax":
        import jax

        return to_numpy(jax.grad(function)(x))
    x = x.clone().requires_grad_(True)
    function(x).backward()
    return to_numpy(x.grad)


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
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_arguments,
    )
    return model
