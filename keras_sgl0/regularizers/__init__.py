"""Penalties: Keras regularizers for kernels."""

from keras_sgl0.regularizers.elementwise import L0, L1, ElementwisePenalty
from keras_sgl0.regularizers.group import (
    SGL0,
    GroupLasso,
    SparseGroup,
    SparseGroupLasso,
)

__all__ = [
    "L0",
    "L1",
    "SGL0",
    "ElementwisePenalty",
    "GroupLasso",
    "SparseGroup",
    "SparseGroupLasso",
]
