"""Compresses a saved model on a data set, as files."""

import dataclasses
import json
import os

import keras
import numpy as np

from keras_sgl0.compression import compress
from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.choices import PIXELS
from keras_sgl0.experiments.run import percent_wrong
from keras_sgl0.experiments.versions import versions
from keras_sgl0.utils.validation import require

RESULT = "compress.json"


@dataclasses.dataclass(frozen=True)
class CompressResult:
    """What became of a model in a file.

    Attributes:
        report: What `compress` reports, as plain values.
        test_error: The test error of the original in percent.
        test_error_after: That of the smaller model.
        dataset: The data set.
        pixels: What the model takes, as for `Dataset.with_pixels`.
        validation: The share of the training images that was held out.
        augment: How training images were augmented.
        versions: The versions of what it was made with.
    """

    report: dict
    test_error: float
    test_error_after: float
    dataset: str
    pixels: str
    validation: float
    augment: str
    versions: dict

    def to_dict(self) -> dict:
        """Returns plain values, ready for JSON."""
        return dataclasses.asdict(self)


def compress_file(
    path: str,
    folder: str,
    dataset: str,
    *,
    data_dir: str | None = None,
    pixels: str = "unit",
    augment: str = "none",
    validation: float = 0.1,
    batch_size: int = 128,
    seed: int = 0,
    **options,
) -> str:
    """Compresses the classifier in a `.keras` file.

    Metrics, such as that of `max_drop`, are measured on training images that
    are held out; the original should have been trained without them, such as
    by `train.py --validation=.1`, which holds out the same ones. The test set
    is used once, at the end. The folder gets `compress.json`, and what
    `compress` writes to its `workdir`: `model.keras` and more, with `max_drop`
    in a folder for each size. The same call goes on where a killed one was.

    Args:
        path: The `.keras` file, with the compiled model.
        folder: Where the files go.
        dataset: The data set: a name, or a folder with one folder a class, as
            for `datasets.load`.
        data_dir: The folder of the data set, as for `datasets.load`.
        pixels: What the model takes, as for `Dataset.with_pixels`.
        augment: How to augment the training images, as in `train_batches`.
        validation: The share of the training images to hold out.
        batch_size: The number of images in a batch.
        seed: The seed of the order of the images.
        **options: The budget and other arguments of `compress`.

    Returns:
        The report as text.

    Raises:
        ValueError: If there is no such file or data set, if the model is no
            better than chance, so that it was trained on other pixels or
            another data set, and as in `compress`.

    Example:
        >>> text = compress_file(
        ...     "runs/digits-0/model.keras", "small", "digits", macs=0.5
        ... )
        >>> print(text)
    """
    path, folder = os.path.expanduser(path), os.path.expanduser(folder)
    require(
        path.endswith(".keras") and os.path.isfile(path),
        "model",
        "a .keras file that exists",
        path,
    )
    model = keras.saving.load_model(path)
    require(model.compiled, "model", "a file with a compiled model", path)
    # Keras knows of the accuracy that it should be high.
    model.compile(model.optimizer, model.loss, metrics=["accuracy"])
    data = datasets.load(dataset, data_dir).with_pixels(pixels)
    held_out = data.held_out(validation)
    _require_better_than_chance(model, held_out, pixels)
    small, report = compress(
        model,
        held_out.epoch_batches(batch_size, seed, augment),
        held_out.test_batches(),
        batch_size=batch_size,
        seed=seed,
        workdir=folder,
        **options,
    )
    test = data.test_batches()
    result = CompressResult(
        report=report.to_dict(),
        test_error=percent_wrong(model, test),
        test_error_after=percent_wrong(small, test),
        dataset=dataset,
        pixels=pixels,
        validation=validation,
        augment=augment,
        versions=versions(),
    )
    with open(os.path.join(folder, RESULT), "w") as out:
        json.dump(result.to_dict(), out, indent=2)
        out.write("\n")
    return (
        f"{report}\nTest error: {result.test_error:.2f} % before, "
        f"{result.test_error_after:.2f} % after. Files in {folder}."
    )


def _require_better_than_chance(model, data, pixels):
    """Raises where a model cannot have been trained on such data."""
    error = percent_wrong(model, data.test_batches())
    most_frequent = np.bincount(data.test[1]).max() / len(data.test[1])
    require(
        error < 100 * (1 - most_frequent),
        "pixels",
        f"one of {', '.join(PIXELS)} on which the model was trained. On held-"
        f"out images {error:.1f} % of its answers are wrong, which is no "
        "better than always the most frequent class",
        pixels,
    )
