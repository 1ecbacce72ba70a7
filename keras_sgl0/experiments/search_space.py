"""The space of a search: which settings vary, and between which values."""

import dataclasses
import re
from typing import Any

from keras_sgl0.experiments.overrides import with_settings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.utils.validation import InputError, invalid, require

_DIMENSION = re.compile(r"\s*(\w+)\s*=\s*(\w+)\(([^()]*)\)\s*(?:,|$)")
_FORM = (
    "NAME=KIND(...) for each setting, separated by commas. KIND is uniform, "
    "loguniform, integer or loginteger with (LOW,HIGH), or choice(A,B,...)"
)
_RANGES = ("uniform", "loguniform", "integer", "loginteger")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """The values of a setting.

    Attributes:
        kind: "uniform", "loguniform", "integer", "loginteger" or "choice".
        values: The lowest and the highest value, or the choices as text.
    """

    kind: str
    values: tuple

    def distribution(self) -> Any:
        """Returns it as Optuna has it."""
        from optuna import distributions

        if self.kind == "choice":
            return distributions.CategoricalDistribution(self.values)
        low, high = self.values
        log = self.kind.startswith("log")
        if self.kind.endswith("integer"):
            return distributions.IntDistribution(low, high, log)
        return distributions.FloatDistribution(low, high, log)

    def __str__(self) -> str:
        return f"{self.kind}({','.join(f'{v}' for v in self.values)})"


def space_from_text(text: str) -> dict[str, Dimension]:
    """Returns the space given on a command line.

    Args:
        text: Such as `factor=loguniform(.01,10),augment=choice(none,crop)`. A
            choice may be a list, its numbers separated by `+`.

    Raises:
        ValueError: If the text has another form, a name comes twice, or a
            range is not one.

    Example:
        >>> space_from_text("dropout=uniform(0,.5)")
        {'dropout': Dimension(kind='uniform', values=(0.0, 0.5))}
    """
    space: dict[str, Dimension] = {}
    end = 0
    while end < len(text):
        match = _DIMENSION.match(text, end)
        if match is None or match[1] in space:
            raise invalid("space", _FORM, text[end:])
        space[match[1]] = _dimension(match[2], match[3].split(","), match[0])
        end = match.end()
    require(space, "space", _FORM, text)
    return space


def _dimension(kind, words, text):
    words = tuple(word.strip() for word in words)
    if kind == "choice":
        require(all(words), "space", _FORM, text)
        return Dimension(kind, words)
    require(kind in _RANGES and len(words) == 2, "space", _FORM, text)
    try:
        number = int if kind.endswith("integer") else float
        low, high = map(number, words)
    except ValueError as problem:
        raise invalid("space", f"{_FORM} ({problem})", text) from problem
    rises = low < high and (low > 0 or not kind.startswith("log"))
    expected = "LOW below HIGH, and above 0 for a logarithm"
    require(rises, "space", expected, text)
    return Dimension(kind, (low, high))


def with_values(recipe: Recipe, values: dict) -> Recipe:
    """Returns a recipe with some settings replaced by values of a space.

    Args:
        recipe: The recipe.
        values: Numbers and texts by the names of settings.

    Raises:
        ValueError: If a setting does not exist, or its value is out of range
            or unused by the new recipe.
    """
    # As text, from which a setting that is a list of one number is read too.
    return with_settings(recipe, {n: str(v) for n, v in values.items()})


def require_space(recipe: Recipe, space: dict[str, Dimension]) -> None:
    """Raises if a value at the edge of the space is none of the setting's.

    Args:
        recipe: The recipe whose settings vary.
        space: The space.

    Raises:
        ValueError: If a setting does not exist or a value is out of range.
    """
    middle = {name: own.values[0] for name, own in space.items()}
    for name, own in space.items():
        for value in own.values:
            try:
                with_values(recipe, middle | {name: value})
            except InputError as problem:
                raise InputError(
                    f"{problem} (in the space, {name}={own})"
                ) from problem
