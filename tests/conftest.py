import gc

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()


def pytest_collection_modifyitems(items):
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
    yield
    # To collect garbage after each test would take longer than the tests.
    keras.backend.clear_session(free_memory=False)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((64, 12), "float32"), rng.integers(0, 3, 64)
