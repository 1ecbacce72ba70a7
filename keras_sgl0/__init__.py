"""Structured sparsity for Keras 3."""

from keras_sgl0 import callbacks, groups, models, regularizers, sparsity
from keras_sgl0.callbacks import (
    ADMM,
    ProximalStep,
    SparsityMonitor,
    VariableSplitting,
)
from keras_sgl0.factor import factor_max
from keras_sgl0.regularization import regularize
from keras_sgl0.regularizers import (
    CGES,
    L0,
    L1,
    MCP,
    SCAD,
    SGL0,
    ElementwisePenalty,
    ExclusiveLasso,
    GroupLasso,
    GroupPenalty,
    IntegratedTransformedL1,
    L1MinusL2,
    LHalf,
    SparseGroup,
    SparseGroupL1MinusL2,
    SparseGroupLasso,
    SparseGroupLHalf,
    SparseGroupTransformedL1,
    TransformedL1,
)
from keras_sgl0.reports import RegularizationReport, SparsityReport
from keras_sgl0.sparsity import (
    apply_threshold,
    neuron_sparsity,
    sparsity_report,
    weight_sparsity,
)

__version__ = "0.1.0"

__all__ = [
    "ADMM",
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
    "ProximalStep",
    "RegularizationReport",
    "SparseGroup",
    "SparseGroupL1MinusL2",
    "SparseGroupLHalf",
    "SparseGroupLasso",
    "SparseGroupTransformedL1",
    "SparsityMonitor",
    "SparsityReport",
    "TransformedL1",
    "VariableSplitting",
    "apply_threshold",
    "callbacks",
    "factor_max",
    "groups",
    "models",
    "neuron_sparsity",
    "regularize",
    "regularizers",
    "sparsity",
    "sparsity_report",
    "weight_sparsity",
]
