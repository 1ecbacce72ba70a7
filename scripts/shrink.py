"""Shrinks a trained model, exports it, and measures what that brought.

python scripts/shrink.py --model=runs/digits-0/model.keras --dataset=digits
"""

import sys

from _extras import name_extra

with name_extra():
    from absl import app, flags

    from keras_sgl0.deployment.runtimes import SUFFIXES
    from keras_sgl0.experiments.choices import DATASETS
    from keras_sgl0.experiments.flags import define_data_dir
    from keras_sgl0.experiments.shrink_file import shrink_file
    from keras_sgl0.network.sparsity import TOLERANCE
    from keras_sgl0.utils.validation import InputError

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
flags.DEFINE_enum("dataset", None, DATASETS, "What to find the test error on.")
flags.DEFINE_bool("normalize", False, "Normalize it, as the training did.")
define_data_dir()
flags.DEFINE_multi_integer(
    "batch_size", [1, 128], "What to time at.", lower_bound=1
)
flags.DEFINE_integer(
    "rounds", 500, "Rounds; each times both models.", lower_bound=1
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    values = flags.FLAGS
    try:
        text = shrink_file(
            values.model,
            values.output,
            tolerance=values.tolerance,
            round_to=values.round_to,
            on_constant=values.on_constant,
            formats=values.format,
            dataset=values.dataset,
            data_dir=values.data_dir,
            normalize=values.normalize,
            batch_sizes=values.batch_size,
            rounds=values.rounds,
        )
    except InputError as problem:
        sys.exit(f"shrink.py: {problem}")
    print(text)


if __name__ == "__main__":
    app.run(main)
