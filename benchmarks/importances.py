"""Compares what tells which channels go, on one network and one budget.

    python benchmarks/importances.py --model=runs/plain/model.keras
        --dataset=digits --validation=.2 --out=docs/results/importances/digits

A row is an importance of `ks.prune`, or a training of `ks.compress`. Its
columns are the test errors after the cut alone, with batch normalization
measured anew, with the layers behind the cut refit, after some epochs of
training, and after as many with distillation from the original. What importance
is relative to is chosen on the held-out images, which the model should have
been trained without. There is a file for each row and seed, and each error is
written down as it is known, so the same call goes on where a killed one was.
"""

import keras
from absl import flags

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.choices import AUGMENTATIONS
from keras_sgl0.experiments.flags import define_data_dir, define_pixels, start
from keras_sgl0.experiments.importance_rows import COLUMNS, ROWS
from keras_sgl0.experiments.importances import Comparison
from keras_sgl0.utils.validation import InputError, require

flags.DEFINE_string("model", None, "The .keras file.", required=True)
flags.DEFINE_string("dataset", None, "Data set.", required=True)
define_data_dir()
define_pixels()
flags.DEFINE_enum("augment", "none", AUGMENTATIONS, "How to augment it.")
flags.DEFINE_float("validation", 0.1, "Share of the images to hold out.")
flags.DEFINE_float("macs", 0.5, "Share of the multiply-adds to keep.")
flags.DEFINE_integer("epochs", 5, "Epochs of training.")
flags.DEFINE_integer("batch_size", 128, "Images in a batch.")
flags.DEFINE_list("rows", list(ROWS), "Rows.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
flags.DEFINE_string("out", None, "Folder for the rows.", required=True)
flags.DEFINE_string(
    "workdir", "runs/importances", "Folder for the state of trainings."
)


def main(_):
    values = flags.FLAGS
    model = keras.saving.load_model(values.model)
    require(model.compiled, "model", "a compiled model", values.model)
    data = datasets.load(values.dataset, values.data_dir)
    comparison = Comparison(
        model,
        data.with_pixels(values.pixels),
        values.macs,
        values.epochs,
        values.validation,
        values.augment,
        values.batch_size,
        values.out,
        values.workdir,
    )
    for seed in map(int, values.seeds):
        for name in values.rows:
            try:
                row = comparison.run(name, seed)
            except InputError as problem:  # such as bn_scale without gammas
                print(f"{name} {seed} left out: {problem}", flush=True)
                continue
            errors = [row.errors[column] for column in COLUMNS]
            texts = ["-" if e is None else f"{e:.2f}" for e in errors]
            print(name, seed, row.scope, *texts, flush=True)


if __name__ == "__main__":
    start(main, takes_words=False)
