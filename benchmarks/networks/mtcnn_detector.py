"""The face detector of the package mtcnn, with its own weights.

It needs that package, joblib and lz4.
"""

import functools
import importlib

import keras

from networks.common import NETWORKS


def _mtcnn(name, shape):
    stage = importlib.import_module(f"mtcnn.network.{name.lower()}")
    tools = importlib.import_module("mtcnn.utils.tensorflow")
    inner = getattr(stage, name)()
    inner.build((None, *shape))
    inner.set_weights(tools.load_weights(f"{name.lower()}.lz4"))
    inputs = keras.Input(shape)
    return keras.Model(inputs, inner(inputs))


for _name, _size in (("PNet", 12), ("RNet", 24), ("ONet", 48)):
    NETWORKS[f"mtcnn_{_name}"] = functools.partial(
        _mtcnn, _name, (_size, _size, 3)
    )
