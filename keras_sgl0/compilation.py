"""Compiling what runs between training steps, on every backend."""

from collections.abc import Callable

import keras


def compiled(function: Callable) -> Callable:
    """Returns `function`, run as one compiled call where that is possible.

    The function may read and assign Keras variables. On TensorFlow it becomes
    a `tf.function`. On JAX, where a compiled call would freeze the variables
    it reads, and on PyTorch it runs as it is.

    Args:
        function: Takes and returns nothing but tensors.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def retrace(model: keras.Model):
    """Makes Keras trace its steps anew, with the regularizers of now.

    Keras traces a step once and keeps it, with what it read then.

    Args:
        model: A compiled model.
    """
    model.make_train_function(force=True)
    model.make_test_function(force=True)
