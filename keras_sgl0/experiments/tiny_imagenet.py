"""Tiny ImageNet, from the folder its archive unpacks to.

```
wnids.txt                      the names of the classes, one a line
train/<class>/images/*.JPEG
val/images/*.JPEG
val/val_annotations.txt        image, class and box a line, tabs in between
```

The test images of the archive have no labels and are not read.
"""

import pathlib

import numpy as np

from keras_sgl0.experiments.pipelines import untuned
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import InputError, invalid, require

with name_extra():
    import tensorflow as tf

_CLASSES, _ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"
_SHOWN = 3
_Part = tuple[np.ndarray, np.ndarray]


def read(folder: str | None) -> tuple[_Part, _Part, int]:
    """Returns the training set, the validation set and the number of classes.

    A set is images `(n, height, width, 3)` in uint8 and labels `(n,)`, the
    places of their classes in `wnids.txt`, counted from 0. The training images
    are in the order of the classes, then of their names, the others in the
    order of `val_annotations.txt`.

    Args:
        folder: The folder, `tiny-imagenet-200` in the archive.

    Raises:
        ValueError: If there is no folder, if a part of the layout is missing
            in it, which the message names, or if an image cannot be decoded or
            is of another size than the first.

    Example:
        >>> train, test, num_classes = read("tiny-imagenet-200")
    """
    if folder is None:
        raise invalid("data_dir", "that of Tiny ImageNet", folder)
    root = pathlib.Path(folder)
    lines = {name: _lines(root / name) for name in (_CLASSES, _ANNOTATIONS)}
    _refuse(root, [name for name, found in lines.items() if not found])
    classes = lines[_CLASSES]
    patterns = [f"train/{name}/images/*.JPEG" for name in classes]
    found = [sorted(root.glob(pattern)) for pattern in patterns]
    pairs = zip(patterns, found, strict=True)
    _refuse(root, [pattern for pattern, files in pairs if not files])
    train = [(f, label) for label, files in enumerate(found) for f in files]

    labels = {name: label for label, name in enumerate(classes)}
    validation = []
    for number, line in enumerate(lines[_ANNOTATIONS], 1):
        name, _, rest = line.partition("\t")
        label = labels.get(rest.partition("\t")[0])
        if label is None:
            place = f"a class of {_CLASSES} in line {number} of {_ANNOTATIONS}"
            _refuse(root, [place])
        validation.append((root / "val" / "images" / name, label))
    files = [file for file, _ in validation if not file.is_file()]
    _refuse(root, [str(file.relative_to(root)) for file in files])
    return _part(root, train), _part(root, validation), len(classes)


def _lines(path):
    return path.read_text().splitlines() if path.is_file() else []


def _refuse(root, missing):
    """Raises if something is missing in the folder."""
    more = f" and {len(missing) - _SHOWN} more" * (len(missing) > _SHOWN)
    require(
        not missing,
        "data_dir",
        "the folder of Tiny ImageNet. Missing or empty in it: "
        f"{', '.join(missing[:_SHOWN])}{more}",
        str(root),
    )


def _part(root, pairs):
    """Returns images and labels of pairs of a file and a label."""
    files, labels = zip(*pairs, strict=True)
    return _images(root, files), np.array(labels, "int64")


def _images(root, paths):
    """Returns the images of files, all of one size."""
    decoded = untuned(
        tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
        .map(_decoded, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    ).as_numpy_iterator()
    try:
        first = next(decoded)
        images = np.empty((len(paths), *first.shape), "uint8")
        images[0] = first
        for place, image in enumerate(decoded, 1):
            if image.shape != first.shape:
                sizes = f"{image.shape}, the first one {first.shape}"
                raise ValueError(f"{paths[place]} is {sizes}")
            images[place] = image
    except (ValueError, tf.errors.OpError) as problem:
        raise InputError(
            f"The images in {root} cannot be read ({problem})."
        ) from problem
    return images


def _decoded(path):
    return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
