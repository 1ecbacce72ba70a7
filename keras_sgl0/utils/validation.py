"""Argument checks, worded the way Keras words them."""

import math
import numbers
from typing import Any

import keras


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


def require_built(model: object):
    """Raises unless a model is one of Keras's and has its weights.

    Args:
        model: What the caller passed.

    Raises:
        ValueError: If it is something else, or not built.
    """
    require(
        isinstance(model, keras.Model) and model.built,
        "model",
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


def integer(name: str, value: Any, *, at_least: int) -> int:
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
    require(valid, name, f"an integer of at least {at_least}", value)
    return int(value)


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
    valid = (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(n, int) and n >= 1 for n in value)
        and min(value[:2]) >= at_least
    )
    expected = f"(height, width, channels), both sides at least {at_least}"
    require(valid, "input_shape", expected, value)
    height, width, channels = value
    return height, width, channels


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Returns `value` after checking that it is one of the `known` names.

    Args:
        name: The argument's name.
        value: What the caller passed.
        known: The names there are.

    Raises:
        ValueError: If `value` is none of them; the message lists them.

    Example:
        >>> choice("refresh", "step", ("step", "batch"))
        'step'
    """
    names = ", ".join(repr(k) for k in known)
    require(
        isinstance(value, str) and value in known,
        name,
        f"one of {names}",
        value,
    )
    return value
