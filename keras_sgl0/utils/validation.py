"""Argument checks, worded the way Keras words them."""

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

# Of more names than this, a message gives the closest instead of all.
_MANY = 12


class InputError(ValueError):
    """What the caller passed cannot be used; the message says what could.

    Scripts show its message alone; any other error keeps its traceback.
    """


class RunError(RuntimeError):
    """A run had to end early; the message says what is kept and what helps.

    Scripts show its message alone.
    """


def invalid(name: str, expected: str, received: object) -> InputError:
    """Returns the error, to be raised, that names an argument.

    Args:
        name: The argument's name.
        expected: What the argument may be, in words.
        received: What the caller passed.

    Example:
        >>> raise invalid("layers", "a name", 3) from problem
    """
    return InputError(
        f"Invalid value for argument `{name}`. Expected {expected}. "
        f"Received: {name}={received!r}"
    )


def require(condition: object, name: str, expected: str, received: object):
    """Raises an `InputError` naming the argument unless `condition` holds.

    Args:
        condition: What must be true.
        name: The argument's name.
        expected: What the argument may be, in words.
        received: What the caller passed.

    Raises:
        InputError: A `ValueError`, if `condition` is false.
    """
    if not condition:
        raise invalid(name, expected, received)


def require_built(model: object, name: str = "model"):
    """Raises unless a model is one of Keras's and has its weights.

    Args:
        model: What the caller passed.
        name: The argument's name.

    Raises:
        ValueError: If it is something else, or not built.
    """
    require(
        isinstance(model, keras.Model) and model.built,
        name,
        "a built model, which begins with a `keras.Input` or was called once",
        model,
    )


def finite_float(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> float:
    """Returns `value` as a Python float after checking its range.

    Args:
        name: The argument's name.
        value: What the caller passed: a real number, not a bool.
        above: The value must be greater than this.
        at_least: The value must not be less than this.
        below: The value must be less than this.
        at_most: The value must not be greater than this.

    Raises:
        ValueError: If `value` is no finite real number or out of range.

    Example:
        >>> finite_float("beta", 2, above=0)
        2.0
    """
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (
            ("greater than", above),
            ("at least", at_least),
            ("less than", below),
            ("at most", at_most),
        )
        if math.isfinite(bound)
    ]
    valid = (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and above < float(value) < below
        and at_least <= float(value) <= at_most
    )
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()
    require(valid, name, expected, value)
    return float(value)


def integer(name: str, value: Any, *, at_least: float = -math.inf) -> int:
    """Returns `value` as a Python int after checking its range.

    Args:
        name: The argument's name.
        value: What the caller passed: an integer, not a bool.
        at_least: The value must not be less than this.

    Raises:
        ValueError: If `value` is no integer or less than `at_least`.

    Example:
        >>> integer("every", 40, at_least=1)
        40
    """
    valid = (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and int(value) >= at_least
    )
    bound = f" of at least {at_least}" if math.isfinite(at_least) else ""
    require(valid, name, f"an integer{bound}", value)
    return int(value)


def boolean(name: str, value: Any) -> bool:
    """Returns `value` as a Python bool after checking that it is one.

    Args:
        name: The argument's name.
        value: What the caller passed.

    Raises:
        ValueError: If `value` is no bool.

    Example:
        >>> boolean("verify", True)
        True
    """
    require(isinstance(value, bool | np.bool_), name, "True or False", value)
    return bool(value)


def sizes(name: str, value: Any, *, at_least: int) -> tuple[int, ...]:
    """Returns `value` as a tuple after checking that it holds sizes.

    Args:
        name: The argument's name.
        value: What the caller passed: an iterable of integers of at least 1.
        at_least: It must not have fewer of them.

    Raises:
        ValueError: If `value` is no such iterable.

    Example:
        >>> sizes("widths", [300, 100], at_least=0)
        (300, 100)
    """
    others = str | bytes | Mapping  # they are iterables, too
    several = isinstance(value, Iterable) and not isinstance(value, others)
    if several and getattr(value, "ndim", 1) == 1:
        found = tuple(value)
        if len(found) >= at_least and all(map(_is_size, found)):
            return found
    raise invalid(name, "a tuple of integers of at least 1", value)


def _is_size(value) -> bool:
    is_integer = isinstance(value, numbers.Integral)
    return is_integer and not isinstance(value, bool) and int(value) >= 1


def file_path(name: str, value: Any) -> str:
    """Returns `value` as a string after checking that it is a path.

    Args:
        name: The argument's name.
        value: What the caller passed: a string or a path.

    Raises:
        ValueError: If `value` is neither.

    Example:
        >>> file_path("folder", pathlib.Path("files"))
        'files'
    """
    require(isinstance(value, str | os.PathLike), name, "a path", value)
    return os.path.expanduser(os.fspath(value))


def get_regularizer(
    name: str, value: Any
) -> keras.regularizers.Regularizer | None:
    """Returns a regularizer from what Keras has for one.

    Args:
        name: The argument's name.
        value: What the caller passed: a regularizer, its config, the name of
            one of Keras's, or `None`.

    Raises:
        ValueError: If `value` is none of them.

    Example:
        >>> get_regularizer("kernel_regularizer", "l2")
    """
    expected = "a Keras regularizer or None"
    try:
        found = keras.regularizers.get(value)
    except (TypeError, ValueError) as error:
        raise invalid(name, expected, value) from error
    # Keras takes any function of a variable; a layer is not meant as one.
    is_function = callable(found) and not isinstance(found, keras.layers.Layer)
    require(found is None or is_function, name, expected, value)
    return found


def image_shape(value: Any, *, at_least: int) -> tuple[int, int, int]:
    """Returns the argument `input_shape` as a tuple after checking it.

    Args:
        value: What the caller passed: height, width and channels.
        at_least: Height and width must not be less than this.

    Raises:
        ValueError: If `value` is no such shape.

    Example:
        >>> image_shape([28, 28, 1], at_least=16)
        (28, 28, 1)
    """
    shape = sizes("input_shape", value, at_least=1)
    valid = len(shape) == 3 and min(shape[:2]) >= at_least
    expected = f"(height, width, channels), both sides at least {at_least}"
    require(valid, "input_shape", expected, value)
    height, width, channels = shape
    return height, width, channels


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Returns `value` after checking that it is one of the `known` names.

    Args:
        name: The argument's name.
        value: What the caller passed.
        known: The names there are.

    Raises:
        ValueError: If `value` is none of them; the message lists them, or of
            many names the one that is meant.

    Example:
        >>> choice("refresh", "step", ("step", "batch"))
        'step'
    """
    is_known = isinstance(value, str) and value in known
    expected = f"one of {', '.join(repr(k) for k in known)}"
    if isinstance(value, str) and len(known) > _MANY:
        close = difflib.get_close_matches(value, known, 1)
        expected = f"{close[0]!r} or another" if close else expected
    require(is_known, name, expected, value)
    return value
