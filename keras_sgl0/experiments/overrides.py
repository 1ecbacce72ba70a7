"""The settings of a recipe as text, for command lines and folder names."""

import contextlib
import os
import typing
from collections.abc import Callable

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.groups import Axis
from keras_sgl0.utils.validation import choice

_TYPES = typing.get_type_hints(Recipe)
_CONVERT: dict[object, Callable[[str], object]] = {
    int: int,
    Axis: int,
    float: float,
    float | None: float,
    bool: {"true": True, "false": False}.__getitem__,
}


def with_settings(recipe: Recipe, settings: dict) -> Recipe:
    """Returns a recipe with some of its settings replaced.

    Other settings that the new recipe does not use get their defaults.

    Args:
        recipe: The recipe to start from.
        settings: The new values by name. A value may be given as text; the
            numbers of a list are then separated by commas or `+`.

    Raises:
        ValueError: If there is no such setting, or if its value is out of
            range or unused by the new recipe.

    Example:
        >>> with_settings(RECIPES["digits"], {"factor": ".1", "seed": 1})
    """
    for name in settings:
        choice("setting", name, tuple(_TYPES))
    values = {name: _value(_TYPES[name], v) for name, v in settings.items()}
    return adapt(recipe, **values)


def as_text(value: object) -> str:
    """Returns the value of a setting as text. Equal values give equal text.

    Args:
        value: The value, as the recipe has it.

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
    """Returns the name of a run's folder: recipe, seed and other settings.

    Of a data set that is a folder it has the last part of the path.

    Args:
        base: The name of the recipe that the run starts from.
        seed: The seed.
        settings: The other settings that are set, by name.

    Example:
        >>> run_name("digits", 0, {"factor": 0.1})
        'digits-0-factor=0.1'
    """
    texts = {name: as_text(value) for name, value in settings.items()}
    if "dataset" in texts:
        texts["dataset"] = os.path.basename(texts["dataset"])
    ends = (f"-{name}={text}" for name, text in texts.items())
    return f"{base}-{seed}{''.join(ends)}"


def _value(kind, given):
    """Returns the value converted from text, or unchanged if it is malformed.

    The recipe's own check then refuses it, with a better message.
    """
    if not isinstance(given, str):
        return given
    if kind == tuple[float, ...]:
        words = given.replace("+", ",").split(",") if given else []
        return tuple(_value(float, word) for word in words)
    with contextlib.suppress(ValueError, KeyError):
        return _CONVERT.get(kind, str)(given)
    return given
