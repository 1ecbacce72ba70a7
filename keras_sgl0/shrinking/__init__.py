"""A smaller model with the same outputs, and the report on it."""

from keras_sgl0.shrinking.shrink import shrink

__all__ = ["shrink"]
