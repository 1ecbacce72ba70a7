# Keras is imported where tests are collected: the process that shares them out
# needs none, and the others would wait for it.
import gc

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    from helpers import BACKEND

    skip = pytest.mark.skip(reason=f"not for the {BACKEND} backend")
    for item in items:
        marker = item.get_closest_marker("tensorflow")
        if marker and BACKEND != "tensorflow":
            item.add_marker(skip)


def pytest_collection_finish():
    # Let garbage collection skip what the imports made.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    import keras

    yield
    # To collect garbage after each test would take longer than the tests.
    keras.backend.clear_session(free_memory=False)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((64, 12), "float32"), rng.integers(0, 3, 64)
