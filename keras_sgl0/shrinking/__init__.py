"""Making a model physically smaller: liveness, then a new model."""

from keras_sgl0.shrinking.shrink import shrink

__all__ = ["shrink"]
