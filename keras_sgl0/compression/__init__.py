"""From a trained network and a budget to a smaller network."""

from keras_sgl0.compression.compress import compress
from keras_sgl0.compression.path import Path, path
from keras_sgl0.compression.prune import prune
from keras_sgl0.compression.repair import reestimate_batch_norm
from keras_sgl0.compression.report import (
    CompressReport,
    PathReport,
    PruneReport,
)

__all__ = [
    "CompressReport",
    "Path",
    "PathReport",
    "PruneReport",
    "compress",
    "path",
    "prune",
    "reestimate_batch_norm",
]
