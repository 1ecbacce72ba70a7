"""Trains a recipe and reports the sparse network.

python scripts/train.py                                  # digits, a minute
python scripts/train.py --recipe=mnist_sgl0 --data_dir=~/tensorflow_datasets
"""

import contextlib
import dataclasses
import os
import sys
import typing

import keras
from absl import app, flags

from keras_sgl0.experiment import MODEL, run
from keras_sgl0.recipes import RECIPES, Recipe
from keras_sgl0.sparsity import sparsity_report
from keras_sgl0.validation import InputError

flags.DEFINE_string(
    "recipe",
    "digits",
    "The settings to begin with. Every flag that names a setting overrides it. "
    f"One of: {', '.join(RECIPES)}.",
)
flags.register_validator(
    "recipe", RECIPES.__contains__, f"expected one of: {', '.join(RECIPES)}"
)
flags.DEFINE_string(
    "workdir", None, "Where the files go. Default: runs/RECIPE-SEED."
)
flags.DEFINE_string(
    "data_dir", None, "The tensorflow-datasets folder. Default: its own."
)
flags.DEFINE_bool("download", False, "Fetch a data set that is not there.")

_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    tuple[float, ...]: flags.DEFINE_list,
}


def _define_recipe_flags():
    types = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        text = field.metadata["help"]
        if field.metadata["choices"]:
            choices = list(field.metadata["choices"])
            flags.DEFINE_enum(field.name, None, choices, text)
        else:
            define = _DEFINE.get(types[field.name], flags.DEFINE_string)
            define(field.name, None, text)


def _floats(words):
    return tuple(map(float, words))


def recipe_from_flags(values) -> Recipe:
    """Returns the recipe that the command line describes."""
    overrides = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Recipe)
        if values[field.name].value is not None
    }
    for name, convert in (("axis", int), ("milestones", _floats)):
        if name in overrides:
            with contextlib.suppress(ValueError):  # the recipe says it better
                overrides[name] = convert(overrides[name])
    return dataclasses.replace(RECIPES[values["recipe"].value], **overrides)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    values = flags.FLAGS
    try:
        recipe = recipe_from_flags(values)
        workdir = values.workdir or os.path.join(
            "runs", f"{values.recipe}-{recipe.seed}"
        )
        workdir = os.path.expanduser(workdir)
        result = run(recipe, workdir, values.data_dir, values.download)
    except InputError as problem:
        sys.exit(f"train.py: {problem}")
    model = keras.saving.load_model(os.path.join(workdir, MODEL))
    print(sparsity_report(model, recipe.tolerance, recipe.axis))
    print(
        f" test error {result['test_error']:.2f}% thresholded, "
        f"{result['test_error_unthresholded']:.2f}% not\n"
        f" {result['epochs']} epochs in {result['seconds']:.0f} s; "
        f"files in {workdir}"
    )


if __name__ == "__main__":
    _define_recipe_flags()
    app.run(main)
