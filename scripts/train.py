"""Trains a recipe and reports the sparse network.

python scripts/train.py                                  # digits, a minute
python scripts/train.py --recipe=mnist_sgl0 --data_dir=~/tensorflow_datasets
"""

import os
import sys

from _extras import name_extra

with name_extra():
    import keras
    from absl import app, flags

    from keras_sgl0.experiments.devices import STRATEGIES
    from keras_sgl0.experiments.flags import (
        define_data_flags,
        define_recipe_flags,
        recipe_from_flags,
    )
    from keras_sgl0.experiments.run import run
    from keras_sgl0.experiments.run_folder import MODEL
    from keras_sgl0.network.sparsity import sparsity_report
    from keras_sgl0.utils.validation import InputError, RunError

flags.DEFINE_string(
    "workdir",
    None,
    "Folder for the files. Default: runs/RECIPE-SEED, followed by the other "
    "settings that are set, as in runs/digits-0-factor=0.1.",
)
define_data_flags()
flags.DEFINE_enum(
    "strategy",
    "none",
    STRATEGIES,
    "Devices that share each batch: one, all of this machine, or those of all "
    "workers in TF_CONFIG.",
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    values = flags.FLAGS
    data = {"data_dir": values.data_dir, "download": values.download}
    try:
        recipe, name = recipe_from_flags(values)
        workdir = values.workdir or os.path.join("runs", name)
        workdir = os.path.expanduser(workdir)
        result = run(recipe, workdir, **data, strategy=values.strategy)
    except (InputError, RunError) as problem:
        sys.exit(f"train.py: {problem}")
    if result is None:
        return  # the chief reports
    model = keras.saving.load_model(os.path.join(workdir, MODEL))
    print(sparsity_report(model, recipe.tolerance, recipe.axis))
    summary = result.summary().replace("\n", "\n ")
    print(f" {summary}; files in {workdir}")


if __name__ == "__main__":
    define_recipe_flags()
    app.run(main)
