"""Shrinks a trained model, exports it, and measures what that brought.

python scripts/shrink.py --model=runs/digits-0/model.keras --dataset=digits
"""

import functools
import json
import os
import sys

from _extras import name_extra

with name_extra():
    import keras
    from absl import app, flags

    from keras_sgl0 import apply_threshold, shrink
    from keras_sgl0.deployment.comparison import compare
    from keras_sgl0.deployment.runtimes import SUFFIXES
    from keras_sgl0.experiments import datasets
    from keras_sgl0.experiments.flags import define_data_dir
    from keras_sgl0.experiments.run import percent_wrong, versions
    from keras_sgl0.network.sparsity import TOLERANCE
    from keras_sgl0.utils.validation import InputError, require

flags.DEFINE_string("model", None, "The .keras file to shrink.", required=True)
flags.DEFINE_string(
    "output",
    None,
    "Where shrunk.keras, the other formats and shrink.json go. Default: the "
    "folder of the model.",
)
flags.DEFINE_float("tolerance", TOLERANCE, "Below it a weight counts as zero.")
flags.DEFINE_integer("round_to", None, "Keep a multiple of so many channels.")
flags.DEFINE_enum(
    "on_constant",
    "keep",
    ["keep", "fold", "drop"],
    "What to do with constants that meet 'same' padding.",
)
flags.DEFINE_multi_enum(
    "format", ["keras", "litert"], list(SUFFIXES), "What to export to."
)
flags.DEFINE_enum(
    "dataset", None, datasets.DATASETS, "What to find the test error on."
)
flags.DEFINE_bool("normalize", False, "Normalize it, as the training did.")
define_data_dir()
flags.DEFINE_multi_integer(
    "batch_size", [1, 128], "What to time at.", lower_bound=1
)
flags.DEFINE_integer(
    "rounds", 500, "Rounds; each times both models.", lower_bound=1
)


def shrunk(values):
    """Returns the comparison and all else that goes into shrink.json."""
    path = os.path.expanduser(values.model)
    require(
        path.endswith(".keras") and os.path.isfile(path),
        "model",
        "a .keras file that exists",
        path,
    )
    error = None
    if values.dataset:
        dataset = datasets.load(values.dataset, values.data_dir)
        dataset = dataset.normalized() if values.normalize else dataset
        error = functools.partial(percent_wrong, batches=dataset.test_batches())
    model = keras.saving.load_model(path, compile=False)
    apply_threshold(model, values.tolerance)
    small, report = shrink(
        model,
        tolerance=0,
        round_to=values.round_to,
        on_constant=values.on_constant,
    )
    output = os.path.expanduser(values.output or os.path.dirname(path))
    comparison, files = compare(
        model,
        small,
        output,
        formats=values.format,
        error=error,
        batch_sizes=values.batch_size,
        rounds=values.rounds,
    )
    conditions = {
        "rounds": values.rounds,
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    print(comparison, *files, sep="\n ")
    print(
        " {rounds} rounds, {cores} cores, Keras {versions[keras]}, TensorFlow "
        "{versions[tensorflow]}".format(**conditions)
    )
    content = {
        **comparison.to_dict(),
        "files": [
            file.to_dict() | {"path": os.path.basename(file.path)}
            for file in files
        ],
        "shrink": report.to_dict(),
        **conditions,
    }
    with open(os.path.join(output, "shrink.json"), "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        shrunk(flags.FLAGS)
    except InputError as problem:
        sys.exit(f"shrink.py: {problem}")


if __name__ == "__main__":
    app.run(main)
