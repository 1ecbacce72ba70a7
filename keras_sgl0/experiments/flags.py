"""Command-line flags of several scripts, and what all scripts do alike."""

import dataclasses
import pathlib
import re
import sys
import typing
from collections.abc import Callable, Mapping

import rich

from keras_sgl0.experiments.choices import PIXELS
from keras_sgl0.experiments.overrides import run_name, with_settings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_list import recipe_list
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.tables import Report
from keras_sgl0.utils.validation import InputError, RunError, choice

with name_extra():
    from absl import app, flags, logging

# So the flags count as those of the script that calls a function of this
# module, and its --help lists them.
flags.disclaim_key_flags()

# In place of a recipe's name it asks for the table of `recipe_list`.
_LIST = "list"
# What absl says of a flag that has to be given.
_MISSING = re.compile(
    r"flag --(\w+)=None: Flag --\w+ must have a value other than None\."
)
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
    script = pathlib.Path(sys.argv[0]).name
    # Of each export TensorFlow says much that is not for users.
    logging.set_verbosity(logging.WARNING)

    def parse(argv):
        try:
            return flags.FLAGS(argv)
        except flags.Error as problem:
            text = _MISSING.sub(r"--\1 is missing", str(problem).strip())
            text = text.replace("\n", ", ")
            sys.exit(f"{script}: {text}\nRun {script} --help for all flags.")

    def run(argv):
        words = argv[1:]
        if words and not takes_words:
            sys.exit(
                f"{script}: Unexpected arguments: {words}. Give flags, as in "
                "--name=value."
            )
        try:
            main(words)
        except (InputError, RunError) as problem:
            sys.exit(f"{script}: {problem}")

    app.run(run, flags_parser=parse)


def start_recipe(main: Callable[[list[str]], None]) -> None:
    """Runs a script on a recipe, or prints the list of recipes.

    Args:
        main: As for `start`. It may use `recipe_from_flags`.

    Example:
        >>> if __name__ == "__main__":
        ...     start_recipe(main)
    """
    define_recipe_flags()

    def list_or_run(words):
        if flags.FLAGS.recipe == _LIST:
            show(recipe_list())
        else:
            main(words)

    start(list_or_run, takes_words=False)


def show(report: Report | str) -> None:
    """Prints a report, with colours where the terminal has them.

    Args:
        report: What to print.
    """
    # Neither broken nor cut at 80 columns where there is no terminal.
    rich.get_console().print(report, soft_wrap=True)


def announce(text: str) -> None:
    """Prints what is about to happen, beside the results.

    Args:
        text: A line.
    """
    sys.stderr.write(f" {text}\n")


def define_data_dir() -> None:
    """Defines `--data_dir`."""
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of tensorflow-datasets (default: its own default), or of Tiny "
        "ImageNet.",
    )


def define_pixels() -> None:
    """Defines `--pixels`."""
    flags.DEFINE_enum(
        "pixels",
        PIXELS[0],
        PIXELS,
        "What the model takes for a pixel: a value from 0 to 1 (unit), -1 to 1 "
        "(symmetric) or 0 to 255 (bytes), or normalized as by train.py "
        "--normalize.",
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
        f"--recipe={_LIST} prints a table. One of: {', '.join(RECIPES)}.",
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
        ValueError: If there is no such recipe, or if a setting is out of range
            or unused.
    """
    base = choice("recipe", values["recipe"].value, tuple(RECIPES))
    overrides = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Recipe)
        if values[field.name].value is not None
    }
    recipe = with_settings(RECIPES[base], overrides)
    settings = {k: getattr(recipe, k) for k in overrides if k != "seed"}
    return recipe, run_name(base, recipe.seed, settings)
