"""The networks of `zoo.py`: functions without arguments that build them."""

import importlib

from networks.common import NETWORKS

# In the order of the table.
_MODULES = (
    "applications transformers recurrent convolutional custom mtcnn_detector "
    "hub"
).split()
for _name in _MODULES:
    importlib.import_module(f"networks.{_name}")

# Those with weights that were trained.
TRAINED = tuple(name for name in NETWORKS if name.startswith("mtcnn_"))

__all__ = ["NETWORKS", "TRAINED"]
