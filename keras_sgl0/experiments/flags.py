"""Command-line flags of several scripts, and what all scripts do alike."""

import dataclasses
import pathlib
import sys
import typing
from collections.abc import Callable, Mapping

import rich

from keras_sgl0.experiments.overrides import run_name, with_settings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.tables import Report
from keras_sgl0.utils.validation import InputError, RunError

with name_extra():
    from absl import app, flags

# So the flags count as those of the script that calls a function of this
# module, and its --help lists them.
flags.disclaim_key_flags()

# In place of a recipe's name it asks for the table of `recipe_list`.
LIST = "list"
# The function for the type of a field; all other types are given as text.
_DEFINE: dict[object, Callable] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    float | None: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def start(main: Callable[[list[str]], None], takes_words: bool = True) -> None:
    """Runs a script. An error of the user ends it with one line.

    Args:
        main: Takes the words of the command line that are no flags.
        takes_words: Whether there may be any.

    Example:
        >>> if __name__ == "__main__":
        ...     start(main)
    """

    def run(argv):
        script, *words = argv
        if words and not takes_words:
            raise app.UsageError(f"Unexpected arguments: {words}")
        try:
            main(words)
        except (InputError, RunError) as problem:
            sys.exit(f"{pathlib.Path(script).name}: {problem}")

    app.run(run)


def show(report: Report) -> None:
    """Prints a report, with colours where the terminal has them.

    Args:
        report: What to print.
    """
    # Neither broken nor cut at 80 columns where there is no terminal.
    rich.get_console().print(report, soft_wrap=True)


def define_data_dir() -> None:
    """Defines `--data_dir`."""
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of tensorflow-datasets (default: its own default), or of Tiny "
        "ImageNet.",
    )


def define_data_flags() -> None:
    """Defines `--data_dir` and `--download`."""
    define_data_dir()
    flags.DEFINE_bool("download", False, "Download a missing data set.")


def define_callbacks() -> None:
    """Defines `--callbacks`."""
    flags.DEFINE_list(
        "callbacks",
        [],
        "Functions, as package.module:function, that take the recipe and the "
        "folder of a run and return a Keras callback, such as a tracker's.",
    )


def define_recipe_flags() -> None:
    """Defines `--recipe`, and a flag for each setting of a recipe.

    The flags of the settings have no default: without a flag, a setting keeps
    the value of the recipe.
    """
    flags.DEFINE_string(
        "recipe",
        "digits",
        "Recipe to start from; the flags of its settings override it. "
        f"--recipe={LIST} prints a table of all. One of: {', '.join(RECIPES)}.",
    )
    flags.register_validator(
        "recipe",
        [LIST, *RECIPES].__contains__,
        f"expected {LIST}, or one of: {', '.join(RECIPES)}",
    )
    types = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        text = field.metadata["help"]
        if field.metadata["choices"]:
            choices = list(field.metadata["choices"])
            flags.DEFINE_enum(field.name, None, choices, text)
        else:
            define = _DEFINE.get(types[field.name], flags.DEFINE_string)
            define(field.name, None, text)


def recipe_from_flags(values: Mapping[str, flags.Flag]) -> tuple[Recipe, str]:
    """Returns the recipe given on the command line, and the run's name.

    Args:
        values: The flags by name, `flags.FLAGS`.

    Raises:
        ValueError: If a setting is out of range or unused.
    """
    base = str(values["recipe"].value)
    overrides = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Recipe)
        if values[field.name].value is not None
    }
    recipe = with_settings(RECIPES[base], overrides)
    settings = {k: getattr(recipe, k) for k in overrides if k != "seed"}
    return recipe, run_name(base, recipe.seed, settings)
