"""Trains a recipe and reports the sparse network.

python scripts/train.py                                  # digits, a minute
python scripts/train.py --recipe=list                    # what there is
python scripts/train.py --recipe=mnist_sgl0 --data_dir=~/tensorflow_datasets
"""

import os

from _extras import name_extra

with name_extra():
    import keras
    from absl import flags

    from keras_sgl0.experiments.devices import STRATEGIES
    from keras_sgl0.experiments.flags import (
        announce,
        define_callbacks,
        define_data_flags,
        recipe_from_flags,
        show,
        start_recipe,
    )
    from keras_sgl0.experiments.run import run
    from keras_sgl0.experiments.run_folder import MODEL
    from keras_sgl0.experiments.trackers import callback_factories
    from keras_sgl0.network.sparsity import sparsity_report
    from keras_sgl0.utils.tables import counted

flags.DEFINE_string(
    "workdir",
    None,
    "Folder for the files. Default: runs/RECIPE-SEED, followed by the other "
    "settings that are set, as in runs/digits-0-factor=0.1.",
)
define_data_flags()
define_callbacks()
flags.DEFINE_enum(
    "strategy",
    "none",
    STRATEGIES,
    "Devices that share each batch: one, all of this machine, or those of all "
    "workers in TF_CONFIG.",
)


def main(_):
    values = flags.FLAGS
    data = {"data_dir": values.data_dir, "download": values.download}
    recipe, name = recipe_from_flags(values)
    workdir = os.path.expanduser(values.workdir or os.path.join("runs", name))
    epochs = counted(recipe.epochs, "epoch")
    announce(f"{epochs} of {recipe.dataset}; files in {workdir}")
    result = run(
        recipe,
        workdir,
        **data,
        strategy=values.strategy,
        callbacks=callback_factories(values.callbacks),
    )
    if result is None:
        return  # the chief reports
    model = keras.saving.load_model(os.path.join(workdir, MODEL))
    show(sparsity_report(model, recipe.tolerance, recipe.axis))
    summary = result.summary().replace("\n", "\n ")
    print(f" {summary}; files in {workdir}")


if __name__ == "__main__":
    start_recipe(main)
