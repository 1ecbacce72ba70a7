"""A data set of your own: a folder with one folder of images a class.

```
train/<class>/*    and    test/<class>/*
```

or `<class>/*` alone; then every fifth image of a class is a test image.
"""

import os

import keras
import numpy as np

from keras_sgl0.experiments.pipelines import untuned
from keras_sgl0.utils.validation import InputError, require

_SPLITS = ("train", "test")
_EVERY = 5
_Part = tuple[np.ndarray, np.ndarray]


def read(folder: str) -> tuple[_Part, _Part, int]:
    """Returns the training set, the test set and the number of classes.

    A set is images `(n, height, width, channels)` in uint8 and labels `(n,)`,
    the places of the classes in the order of their names. Images get the size
    of the first one. They have one channel if the first one has, or else three.

    Args:
        folder: The folder.

    Raises:
        ValueError: If it has no images or no test images, an image cannot be
            read, or the classes of `train` and `test` differ.

    Example:
        >>> train, test, num_classes = read("flowers")
    """
    parts = [os.path.join(folder, split) for split in _SPLITS]
    if not all(map(os.path.isdir, parts)):
        size, mode = _first(folder)
        (images, labels), classes = _read(folder, size, mode)
        places = np.concatenate(
            [np.arange((labels == i).sum()) for i in range(len(classes))]
        )
        test = places % _EVERY == _EVERY - 1
        require(
            test.any(),
            "dataset",
            f"a folder with {_EVERY} images of a class, or with `train` and "
            "`test`",
            folder,
        )
        train = images[~test], labels[~test]
        return train, (images[test], labels[test]), len(classes)
    size, mode = _first(parts[0])
    (train, classes), (test, others) = (_read(p, size, mode) for p in parts)
    if classes != others:
        raise InputError(
            f"The folders {_SPLITS} of {folder} have other classes: {classes} "
            f"and {others}."
        )
    return train, test, len(classes)


def _first(folder):
    """Returns the size of the first image, and whether it has colours."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            try:
                image = keras.utils.load_img(path, color_mode="grayscale")
                colours = keras.utils.load_img(path, color_mode="rgb")
            except OSError:
                continue  # no image; Keras too reads images alone
            grey = np.asarray(image)
            plain = (np.asarray(colours) == grey[..., None]).all()
            return grey.shape, "grayscale" if plain else "rgb"
    raise InputError(
        f"The folder {folder} has no images. Expected one folder a class, with "
        "its images."
    )


def _read(folder, size, mode) -> tuple[_Part, list[str]]:
    """Returns images and labels, in the order of the classes and names."""
    try:
        found = keras.utils.image_dataset_from_directory(
            folder,
            color_mode=mode,
            image_size=size,
            batch_size=None,
            shuffle=False,
            verbose=False,
        )
        pairs = list(untuned(found).as_numpy_iterator())
    except Exception as problem:  # TensorFlow and Keras raise many kinds
        raise InputError(
            f"The images of {folder} cannot be read: {problem}"
        ) from problem
    images = np.stack([image for image, _ in pairs])
    labels = np.array([label for _, label in pairs], "int64")
    images = np.clip(np.rint(images), 0, 255).astype("uint8")
    return (images, labels), list(found.class_names)
