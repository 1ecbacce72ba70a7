"""Shrinks a trained model, exports it, and compares it with the original.

python scripts/shrink.py --model=runs/digits-0/model.keras --dataset=digits
"""

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.deployment.runtimes import SUFFIXES
    from keras_sgl0.experiments.flags import (
        announce,
        define_data_dir,
        define_pixels,
        start,
    )
    from keras_sgl0.experiments.shrink_file import shrink_file
    from keras_sgl0.network.sparsity import TOLERANCE

flags.DEFINE_string("model", None, "The .keras file to shrink.", required=True)
flags.DEFINE_string(
    "output",
    None,
    "Folder for shrunk.keras, the other formats and shrink.json. Default: the "
    "folder of the model.",
)
flags.DEFINE_float("tolerance", TOLERANCE, "Smaller weights count as zero.")
flags.DEFINE_integer("round_to", None, "Keep a multiple of this many channels.")
flags.DEFINE_enum(
    "on_constant",
    "keep",
    ["keep", "fold", "drop"],
    "What to do with a constant channel before 'same' padding.",
)
flags.DEFINE_multi_enum(
    "format", ["keras", "litert"], list(SUFFIXES), "Formats to export."
)
flags.DEFINE_string(
    "dataset",
    None,
    "Data set of the test error: a name, or a folder with one folder a class.",
)
define_pixels()
define_data_dir()
flags.DEFINE_multi_integer(
    "batch_size", [1, 128], "Batch sizes to time.", lower_bound=1
)
flags.DEFINE_integer(
    "rounds", 500, "Number of times each model is timed.", lower_bound=1
)


def main(_):
    values = flags.FLAGS
    announce(f"shrinking, exporting to {', '.join(values.format)}, and timing")
    text = shrink_file(
        values.model,
        values.output,
        tolerance=values.tolerance,
        round_to=values.round_to,
        on_constant=values.on_constant,
        formats=values.format,
        dataset=values.dataset,
        data_dir=values.data_dir,
        pixels=values.pixels,
        batch_sizes=values.batch_size,
        rounds=values.rounds,
    )
    print(text)


if __name__ == "__main__":
    start(main, takes_words=False)
