"""Compresses a trained classifier to a budget.

python scripts/compress.py --model=runs/digits-0/model.keras --dataset=digits
    --macs=.5
"""

import sys

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.experiments.choices import AUGMENTATIONS
    from keras_sgl0.experiments.compress_file import compress_file
    from keras_sgl0.experiments.flags import (
        announce,
        define_data_dir,
        define_pixels,
        start,
    )

flags.DEFINE_string("model", None, "The .keras file.", required=True)
flags.DEFINE_string("output", "compressed", "Folder for all files.")
flags.DEFINE_string(
    "dataset",
    None,
    "Data set: a name, or a folder with one folder a class.",
    required=True,
)
define_data_dir()
define_pixels()
flags.DEFINE_enum("augment", "none", AUGMENTATIONS, "How to augment it.")
flags.DEFINE_float("validation", 0.1, "Share of the images to hold out.")
BUDGETS = {
    "macs": "Share of the multiply-adds to keep.",
    "parameters": "Share of the parameters to keep.",
    "channels": "Share of the channels to keep.",
    "latency": "Share of the latency to keep.",
    "max_drop": "Largest drop of the accuracy on the held-out images.",
}
OPTIONS = {
    "distill": "What the original shows: outputs or features.",
    "runtime": "Where to measure latency: keras, litert or onnx.",
    "method": "How to find what goes: importance, or by training with "
    "group_lasso, sgl0 or gates.",
    "importance": "What tells which channels go, see `ks.prune`.",
    "scope": "What importance is relative to: family or global.",
}
NUMBERS = {
    "learning_rate": "Peak of the learning rate.",
    "distillation": "Share of the distillation in the loss.",
}
COUNTS = {
    "epochs": "Epochs to train after the cut.",
    "batch_size": "Images in a batch.",
    "round_to": "Keep a multiple of this many channels.",
    "seed": "Seed of the order of the images.",
}
for define, texts in (
    (flags.DEFINE_float, BUDGETS | NUMBERS),
    (flags.DEFINE_string, OPTIONS),
    (flags.DEFINE_integer, COUNTS),
):
    for name, text in texts.items():
        define(name, None, text)


def main(_):
    values = flags.FLAGS
    names = [*BUDGETS, *OPTIONS, *NUMBERS, *COUNTS]
    given = {name: values[name].value for name in names}
    announce(f"cutting, then training what is left; files in {values.output}")
    text = compress_file(
        values.model,
        values.output,
        values.dataset,
        data_dir=values.data_dir,
        pixels=values.pixels,
        augment=values.augment,
        validation=values.validation,
        verbose=1 if sys.stdout.isatty() else 2,
        **{name: value for name, value in given.items() if value is not None},
    )
    print(text)


if __name__ == "__main__":
    start(main, takes_words=False)
