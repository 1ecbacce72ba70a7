"""The handwritten digits of scikit-learn, which need no download."""

import numpy as np

from keras_sgl0.utils.extras import name_extra

with name_extra():
    import tensorflow as tf

_EVERY = 5
_Part = tuple[np.ndarray, np.ndarray]


def read() -> tuple[_Part, _Part, int]:
    """Returns the training set, the test set and the number of classes.

    The 1,797 images of 8x8 are enlarged to `(n, 28, 28, 1)` in uint8. Every
    fifth one is a test image.

    Example:
        >>> train, test, num_classes = read()
    """
    with name_extra():
        from sklearn.datasets import load_digits

    digits = load_digits()
    images = tf.image.resize(
        digits.images[..., None] * (255 / 16), (28, 28), method="bicubic"
    )
    images = np.clip(np.rint(images), 0, 255).astype("uint8")
    labels = digits.target.astype("int64")
    test = np.arange(len(labels)) % _EVERY == _EVERY - 1
    return (images[~test], labels[~test]), (images[test], labels[test]), 10
