"""Penalties: Keras regularizers for kernels."""

from keras_sgl0.regularizers.base import Penalty, trainings
from keras_sgl0.regularizers.elementwise import L0, L1, ElementwisePenalty
from keras_sgl0.regularizers.group import (
    CGES,
    ExclusiveLasso,
    GroupLasso,
    GroupPenalty,
)
from keras_sgl0.regularizers.nonconvex import (
    MCP,
    SCAD,
    L1MinusL2,
    LHalf,
    TransformedL1,
)
from keras_sgl0.regularizers.sparse_group import (
    SGL0,
    IntegratedTransformedL1,
    SparseGroup,
    SparseGroupL1MinusL2,
    SparseGroupLasso,
    SparseGroupLHalf,
    SparseGroupTransformedL1,
)

__all__ = [
    "CGES",
    "L0",
    "L1",
    "MCP",
    "SCAD",
    "SGL0",
    "ElementwisePenalty",
    "ExclusiveLasso",
    "GroupLasso",
    "GroupPenalty",
    "IntegratedTransformedL1",
    "L1MinusL2",
    "LHalf",
    "Penalty",
    "SparseGroup",
    "SparseGroupL1MinusL2",
    "SparseGroupLHalf",
    "SparseGroupLasso",
    "SparseGroupTransformedL1",
    "TransformedL1",
    "trainings",
]
