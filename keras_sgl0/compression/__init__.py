"""From a trained network and a budget to a smaller network."""

from keras_sgl0.compression.prune import prune
from keras_sgl0.compression.report import PruneReport

__all__ = ["PruneReport", "prune"]
