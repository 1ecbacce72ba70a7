"""The versions that a result may depend on."""

import platform
import sys

import keras
import numpy as np

import keras_sgl0


def versions() -> dict[str, str]:
    """Returns the versions of all packages that results may depend on.

    TensorFlow's is among them only where it was imported.

    Example:
        >>> versions()["keras"]
        '3.15.1'
    """
    found = {
        "keras_sgl0": keras_sgl0.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        found["tensorflow"] = tensorflow.__version__
    return found
