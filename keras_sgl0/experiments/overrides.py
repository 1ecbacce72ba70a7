"""Settings of a recipe as text, the way a command line has them."""

import contextlib
import typing

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.groups import Axis
from keras_sgl0.utils.validation import choice

_TYPES = typing.get_type_hints(Recipe)
_CONVERT = {
    int: int,
    Axis: int,
    float: float,
    float | None: float,
    bool: {"true": True, "false": False}.__getitem__,
}


def with_settings(recipe: Recipe, settings: dict) -> Recipe:
    """Returns a recipe with some of its settings replaced.

    Settings of the first recipe that the new one does not look at fall back to
    their defaults.

    Args:
        recipe: The settings to begin with.
        settings: Values by name, which may be text. In that of a list, commas
            or `+` stand between the numbers.

    Raises:
        ValueError: If there is no such setting, its value is out of range, or
            the recipe would not look at it.

    Example:
        >>> with_settings(RECIPES["digits"], {"factor": ".1", "seed": 1})
    """
    for name in settings:
        choice("setting", name, tuple(_TYPES))
    values = {name: _value(_TYPES[name], v) for name, v in settings.items()}
    return adapt(recipe, **values)


def as_text(value: object) -> str:
    """Returns the text of a setting's value, the same for the same value.

    Args:
        value: What the recipe has.

    Example:
        >>> as_text((0.2, 0.4))
        '0.2+0.4'
    """
    if isinstance(value, list | tuple):
        return "+".join(map(as_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0")


def run_name(base: str, seed: int, settings: dict) -> str:
    """Returns the name of a run's folder: recipe, seed and what else is set.

    Args:
        base: The name of the recipe that the run begins with.
        seed: The seed.
        settings: What is set beside it, by name.

    Example:
        >>> run_name("digits", 0, {"factor": 0.1})
        'digits-0-factor=0.1'
    """
    ends = (f"-{name}={as_text(value)}" for name, value in settings.items())
    return f"{base}-{seed}{''.join(ends)}"


def _value(kind, given):
    """Returns a value of that kind, or what was given.

    What is wrong with it, the recipe says better.
    """
    if not isinstance(given, str):
        return given
    if kind == tuple[float, ...]:
        words = given.replace("+", ",").split(",") if given else []
        return tuple(_value(float, word) for word in words)
    with contextlib.suppress(ValueError, KeyError):
        return _CONVERT.get(kind, str)(given)
    return given
