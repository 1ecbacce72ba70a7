"""Searches the settings of a recipe for the best trade-offs.

python scripts/search.py --recipe=digits --epochs=20 \
    --space="factor=loguniform(.01,10),learning_rate=loguniform(1e-4,1e-2)" \
    --objectives=validation_error,macs --trials=30

The same command on several machines that share the folder shares the trials.
"""

import logging
import os

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.experiments import plots
    from keras_sgl0.experiments.flags import (
        announce,
        define_callbacks,
        define_data_flags,
        recipe_from_flags,
        show,
        start_recipe,
    )
    from keras_sgl0.experiments.objectives import OBJECTIVES
    from keras_sgl0.experiments.recipe_changes import adapt
    from keras_sgl0.experiments.search import MARKDOWN, search
    from keras_sgl0.experiments.search_space import space_from_text
    from keras_sgl0.experiments.trackers import callback_factories
    from keras_sgl0.utils.extras import MissingPackageError

flags.DEFINE_string(
    "space",
    None,
    "The settings that vary, such as factor=loguniform(.01,10),"
    "dropout=uniform(0,.5),depth=integer(10,28),augment=choice(none,crop).",
)
flags.DEFINE_list(
    "objectives",
    ["validation_error", "macs"],
    f"What to search for, any of: {', '.join(OBJECTIVES)}.",
)
flags.DEFINE_integer(
    "trials", 50, "Number of trials of all processes.", lower_bound=1
)
flags.DEFINE_bool("prune", True, "Stop hopeless trials.")
flags.DEFINE_string(
    "workdir", None, "Folder of the search. Default: runs/search-RECIPE."
)
define_data_flags()
define_callbacks()


def main(_):
    values = flags.FLAGS
    recipe, name = recipe_from_flags(values)
    # It warns that functions are traced again: each trial has a new model.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if not recipe.validation:
        recipe = adapt(recipe, validation=0.2)
    workdir = values.workdir or os.path.join("runs", f"search-{name}")
    space = space_from_text(values.space or "")
    announce(
        f"{values.trials} trials of up to {recipe.epochs} epochs; files in "
        f"{workdir}"
    )
    report = search(
        recipe,
        space,
        values.objectives,
        workdir,
        values.trials,
        values.data_dir,
        values.download,
        prune=values.prune,
        callbacks=callback_factories(values.callbacks),
    )
    show(report)
    print(f" files in {workdir}, the front in {MARKDOWN}")
    try:
        if report.front:
            plots.save(plots.front(report), os.path.join(workdir, "front"))
    except MissingPackageError as problem:
        print(f" no picture: {problem}")


if __name__ == "__main__":
    start_recipe(main)
