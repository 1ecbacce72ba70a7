"""A small classification, shared by the tests of `compress`."""

import numpy as np


def draw():
    """Returns a generator of random numbers, and what it has drawn."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(300, 12)).astype("float32")
    return rng, x, (x @ rng.normal(size=(12, 3))).argmax(1)


_, X, Y = draw()
TRAIN, VALIDATION = (X[:200], Y[:200]), (X[200:], Y[200:])
