"""The names of data sets, augmentations and ranges of pixels.

They are not in `datasets`, which needs TensorFlow; recipes do not.
"""

import os

from keras_sgl0.utils.validation import require

DATASETS = (
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "tiny_imagenet",
)
AUGMENTATIONS = ("none", "crop", "crop_flip")
# What a model takes for a pixel, see `Dataset.with_pixels`.
PIXELS = ("unit", "symmetric", "bytes", "normalized")


def data_set(name: str, value: object) -> str:
    """Returns the name of a data set, or the absolute path of a folder.

    Args:
        name: The argument's name.
        value: One of `DATASETS`, or a folder of images, see `datasets.load`.

    Raises:
        ValueError: If it is neither a name nor a folder that exists.
    """
    if isinstance(value, str) and value in DATASETS:
        return value
    folder = ""
    if isinstance(value, str) and value:
        folder = os.path.abspath(os.path.expanduser(value))
    names = ", ".join(map(repr, DATASETS))
    expected = f"one of {names}, or a folder of images that exists"
    require(os.path.isdir(folder), name, expected, value)
    return folder
