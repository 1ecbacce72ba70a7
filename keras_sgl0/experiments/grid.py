"""The runs of a sweep: a grid of recipes, settings and seeds."""

import dataclasses
import itertools
from collections.abc import Iterable

from keras_sgl0.experiments.overrides import run_name, with_settings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.utils.validation import InputError, choice, require


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        base: The name of the recipe that it begins with.
        settings: What it sets beside the seed, by name.
        recipe: The recipe it trains.
    """

    base: str
    settings: dict
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its folder: the recipe, the seed and what else is set."""
        return run_name(self.base, self.recipe.seed, self.settings)


def plan(
    recipes: Iterable[str],
    seeds: Iterable[int] = (0,),
    grid: dict[str, list] | None = None,
) -> list[Run]:
    """Returns the runs of a grid: recipes x settings x seeds.

    Args:
        recipes: Names in `RECIPES`.
        seeds: The seeds of every recipe.
        grid: Other settings that vary, and the values of each. Values and
            seeds may be text.

    Raises:
        ValueError: If a recipe, a setting or a value is none, or if there are
            no recipes, no seeds or no values of a setting.

    Example:
        >>> plan(["digits"], [0, 1], {"factor": [0.1, 0.2]})
    """
    recipes, seeds, grid = list(recipes), list(seeds), grid or {}
    grid = {name: list(grid[name]) for name in sorted(grid)}
    for name, values in {"recipes": recipes, "seeds": seeds, **grid}.items():
        require(values, name, "at least one value", values)
    for base in recipes:
        choice("recipes", base, tuple(RECIPES))
    require("seed" not in grid, "set", "a setting but seed", "seed")
    runs = {}
    for base, *values, seed in itertools.product(
        recipes, *grid.values(), seeds
    ):
        given = dict(zip(grid, values, strict=True))
        try:
            recipe = with_settings(RECIPES[base], given | {"seed": seed})
        except InputError as problem:
            raise InputError(f"{problem} (recipe {base!r})") from problem
        chosen = {name: getattr(recipe, name) for name in given}
        run = Run(base=base, settings=chosen, recipe=recipe)
        runs[run.name] = run
    return list(runs.values())


def grid_from_text(texts: Iterable[str]) -> dict[str, list[str]]:
    """Returns the grid that a command line describes.

    Args:
        texts: `NAME=VALUE,VALUE,...`, one text a setting.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> grid_from_text(["factor=.1,.2", "axis=auto"])
        {'factor': ['.1', '.2'], 'axis': ['auto']}
    """
    grid = {}
    for text in texts:
        name, mark, values = text.partition("=")
        valid = mark and name not in grid
        require(valid, "set", "NAME=VALUE,VALUE,... once for each name", text)
        grid[name] = values.split(",")
    return grid
