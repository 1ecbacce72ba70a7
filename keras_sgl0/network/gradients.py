"""Gradients of a model's loss, on every backend."""

import contextlib
import inspect
from collections.abc import Callable, Iterator

import keras
from keras import ops

from keras_sgl0.utils.validation import InputError


@contextlib.contextmanager
def without_penalties(model: keras.Model) -> Iterator[None]:
    """Takes the penalties out of the model's loss, and puts them back.

    Args:
        model: A built model.
    """
    penalties = [(v, v.regularizer) for v in model.variables]
    try:
        for variable, _ in penalties:
            variable.regularizer = None
        yield
    finally:
        for variable, penalty in penalties:
            variable.regularizer = penalty


def copy(variable):
    """Returns the value of a variable, in memory of its own.

    Args:
        variable: A variable.
    """
    return ops.copy(ops.convert_to_tensor(variable))


def loss_gradients(model: keras.Model, variables: list) -> Callable:
    """Returns `gradients(values, batch)`: of the mean loss, at given values.

    The model is in inference mode, and its variables are not assigned. This
    is the one place where the backends differ.

    Args:
        model: A built and compiled model.
        variables: What to differentiate by.

    Raises:
        ValueError: When called, if the model or its loss cannot take a batch.
    """
    inside = {id(v) for v in variables}
    others = [v for v in model.variables if id(v) not in inside]
    fixed = [copy(v) for v in others]
    takes_training = "training" in inspect.signature(model.call).parameters
    inference = {"training": False} if takes_training else {}

    def loss(values, fixed, batch):
        x, y, weight = batch
        state = zip([*variables, *others], [*values, *fixed], strict=True)
        with keras.StatelessScope(state, collect_losses=True):
            y_pred = model(x, **inference)
            return model.compute_loss(x, y, y_pred, sample_weight=weight)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients(values, fixed, batch):
            with tf.GradientTape() as tape:
                tape.watch(values)
                value = loss(values, fixed, batch)
            found = tape.gradient(
                value,
                values,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return [tf.convert_to_tensor(g) for g in found]

        if not model.run_eagerly:
            gradients = tf.function(gradients, autograph=False)
    elif backend == "jax":
        import jax

        gradients = jax.grad(loss)
        if not model.run_eagerly:
            gradients = jax.jit(gradients)
    else:
        import torch

        def gradients(values, fixed, batch):
            values = [v.detach().requires_grad_() for v in values]
            found = torch.autograd.grad(
                loss(values, fixed, batch), values, allow_unused=True
            )
            return [
                torch.zeros_like(v) if g is None else g
                for v, g in zip(values, found, strict=True)
            ]

    def checked(values, batch):
        try:
            return gradients(values, fixed, batch)
        except Exception as error:
            raise InputError(
                "Invalid value for argument `data`. Expected what the model "
                f"and its loss can take: {error}"
            ) from error

    return checked
