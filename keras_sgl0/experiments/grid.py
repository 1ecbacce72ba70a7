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
        base: The name of the recipe that the run starts from.
        settings: The settings that are set besides the seed, by name.
        recipe: The recipe to train.
    """

    base: str
    settings: dict
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its folder: recipe, seed and other settings."""
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
        grid: The values of each other setting that varies, by name. Values
            and seeds may be given as text.

    Raises:
        ValueError: If a recipe or setting does not exist, if a value is out
            of range, if there are no recipes, no seeds, or no values of a
            setting, or if two data sets are folders of the same name.

    Example:
        >>> plan(["digits"], [0, 1], {"factor": [0.1, 0.2]})
    """
    recipes, seeds, grid = list(recipes), list(seeds), grid or {}
    grid = {name: list(grid[name]) for name in sorted(grid)}
    for name, values in {"recipes": recipes, "seeds": seeds, **grid}.items():
        require(values, name, "at least one value", values)
    for base in recipes:
        choice("recipes", base, tuple(RECIPES))
    require("seed" not in grid, "set", "any setting except seed", "seed")
    runs: dict[str, Run] = {}
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
        require(
            runs.get(run.name, run) == run,
            "set",
            "folders of images with different names, as the folder of a run "
            "has only the name",
            recipe.dataset,
        )
        runs[run.name] = run
    return list(runs.values())


def grid_from_text(texts: Iterable[str]) -> dict[str, list[str]]:
    """Returns the grid given on a command line.

    Args:
        texts: `NAME=VALUE,VALUE,...` for each setting.

    Raises:
        ValueError: If a text has another form or a name comes twice.

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
