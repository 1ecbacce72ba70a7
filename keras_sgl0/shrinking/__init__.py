"""A smaller model: without what is zero, or without channels that are named."""

from keras_sgl0.shrinking.deletion import delete_channels
from keras_sgl0.shrinking.fit_shrinking import fit_shrinking
from keras_sgl0.shrinking.rms_normalization import to_rms_normalization
from keras_sgl0.shrinking.shrink import shrink

__all__ = ["delete_channels", "fit_shrinking", "shrink", "to_rms_normalization"]
