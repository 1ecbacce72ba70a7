"""Calls models on random inputs and compares their outputs."""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.running import run
from keras_sgl0.network.unfolding import functional
from keras_sgl0.utils.validation import InputError

_UNKNOWN_SIZE = 96
# A relative difference that rounding does not make.
_LARGE = 1e-2


def batch_size_of(model: keras.Model) -> int | None:
    """Returns the batch size that a model must have, `None` for any.

    Args:
        model: A built model.
    """
    return tree.flatten(functional(model).input)[0].shape[0]


def random_inputs(
    structure: object,
    examples: int = 2,
    seed: int = 0,
    unknown: int = _UNKNOWN_SIZE,
) -> object:
    """Returns random inputs of the shapes and dtypes a model wants.

    They are the same at every call with one seed.

    Args:
        structure: A model's inputs: Keras tensors, structured as it wants them.
        examples: The batch size, where the model leaves it open.
        seed: The seed of the random numbers.
        unknown: What sizes become that are not known.
    """

    def random(x):
        batch, *shape = x.shape
        shape = [unknown if n is None else n for n in shape]
        shape = [batch or examples, *shape]
        rng = np.random.default_rng(seed)
        if keras.backend.is_float_dtype(x.dtype):
            return ops.convert_to_tensor(rng.normal(size=shape), dtype=x.dtype)
        if x.dtype == "string":
            return ops.convert_to_tensor(np.full(shape, "a"))
        return ops.convert_to_tensor(rng.integers(0, 2, shape), dtype=x.dtype)

    return tree.map_structure(random, structure)


class Difference(NamedTuple):
    """How far the outputs of two models are apart.

    Args:
        absolute: The largest absolute difference, `None` if not known.
        relative: The same, as a share of the largest absolute output.
        remark: What to know about it, empty for nothing.
    """

    absolute: float | None
    relative: float | None
    remark: str = ""


def compare(
    model: keras.Model, other: keras.Model, inputs: object = None
) -> Difference:
    """Returns how far the outputs of two models are apart.

    Args:
        model: A built model.
        other: A model with the same inputs and outputs.
        inputs: What to call them on, structured as they want them; `None` for
            random inputs, twice if the difference is large.

    Raises:
        ValueError: If the model cannot be called on random inputs.
    """
    given, expected = probe(model, inputs)

    def again():
        more = given
        if inputs is None:
            own = functional(model).input
            more = random_inputs(own, examples=3, seed=1)
        return tuple(outputs(m, more, compile=True) for m in (model, other))

    return checked_difference(expected, outputs(other, given), again)


def checked_difference(
    expected: list[np.ndarray],
    received: list[np.ndarray],
    again: Callable[[], tuple[list[np.ndarray], list[np.ndarray]]],
) -> Difference:
    """Returns a difference, looked at a second time if it is large.

    Called eagerly on TensorFlow with channels first, Keras adds a bias along
    the wrong axis if there are as many channels as entries of the last axis.
    Compiled calls are right.

    Args:
        expected: The outputs of one model.
        received: The outputs of the other model, of the same shapes.
        again: Returns both from compiled calls.
    """
    first, first_relative = largest_difference(expected, received)
    if first_relative <= _LARGE:
        return Difference(first, first_relative)
    second, second_relative = largest_difference(*again())
    if second_relative <= _LARGE:
        remark = (
            "That is of compiled calls, such as by `predict`. Called eagerly, "
            f"Keras itself gives outputs that differ by {first:.2g}, relative "
            f"{first_relative:.2g}."
        )
        return Difference(second, second_relative, remark)
    if second_relative > first_relative:
        return Difference(second, second_relative)
    return Difference(first, first_relative)


def probe(
    model: keras.Model, inputs: object = None
) -> tuple[object, list[np.ndarray]]:
    """Returns inputs and the outputs of a model on them.

    Args:
        model: A built model.
        inputs: Its inputs, structured as it wants them; `None` for random ones.

    Raises:
        ValueError: If the model cannot be called on them.
    """
    expected = "inputs to compare on, as the model wants them"
    given = inputs
    if inputs is None:
        expected = (
            "inputs to compare on, as the model cannot be called on random ones"
        )
        given = random_inputs(functional(model).input)
    try:
        return given, outputs(model, given)
    except Exception as error:
        raise InputError(
            f"Invalid value for argument `inputs`. Expected {expected}: "
            f"{error}. Received: inputs={inputs!r}"
        ) from error


def outputs(
    model: keras.Model, inputs: object, compile: bool = False
) -> list[np.ndarray]:
    """Returns the outputs of a model at test time, as a flat list.

    Stateful layers start from zero states. Their own are restored afterwards.

    Args:
        model: A built model.
        inputs: What to call it on, structured as it wants them.
        compile: Whether to compile the call where possible, as `predict` does.
    """
    with fresh_states(model):
        if compile:
            call = compiled(functools.partial(model, training=False))
            flat = tree.flatten(call(inputs))
        else:
            flat = run(model, inputs)
    return [ops.convert_to_numpy(y) for y in flat]


@contextlib.contextmanager
def fresh_states(model: keras.Model):
    """Sets the states of stateful layers to zero, and restores them after.

    Args:
        model: A built model.
    """
    states = tree.flatten(
        [getattr(p, "states", None) for p in all_layers(model)]
    )
    states = [v for v in states if isinstance(v, keras.Variable)]
    before = [ops.convert_to_numpy(v) for v in states]
    try:
        for variable in states:
            variable.assign(ops.zeros_like(variable))
        yield
    finally:
        for variable, value in zip(states, before, strict=True):
            variable.assign(value)


def largest_difference(
    expected: Iterable[np.ndarray], received: Iterable[np.ndarray]
) -> tuple[float, float]:
    """Returns the largest difference between the outputs of two models.

    Args:
        expected: The outputs of one model.
        received: The outputs of the other model, of the same shapes.

    Returns:
        The absolute difference, and the same as a share of the largest
        absolute expected output.
    """
    pairs = [
        (np.asarray(a).astype("float64"), np.asarray(b).astype("float64"))
        for a, b in zip(expected, received, strict=True)
    ]
    # NumPy's maximum returns NaN if there is one, Python's may not.
    largest = np.max([np.max(np.abs(a - b), initial=0) for a, b in pairs])
    scale = np.max([np.max(np.abs(a), initial=0) for a, _ in pairs])
    return float(largest), float(largest / (scale or 1.0))
