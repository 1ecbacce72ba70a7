"""Structured sparsity for Keras 3."""

from keras_sgl0 import callbacks, groups, models, regularizers, sparsity
from keras_sgl0.callbacks import SparsityMonitor, VariableSplitting
from keras_sgl0.regularizers import (
    L0,
    L1,
    SGL0,
    ElementwisePenalty,
    GroupLasso,
    SparseGroup,
    SparseGroupLasso,
)
from keras_sgl0.sparsity import (
    SparsityReport,
    apply_threshold,
    neuron_sparsity,
    sparsity_report,
    weight_sparsity,
)

__version__ = "0.1.0"

__all__ = [
    "L0",
    "L1",
    "SGL0",
    "ElementwisePenalty",
    "GroupLasso",
    "SparseGroup",
    "SparseGroupLasso",
    "SparsityMonitor",
    "SparsityReport",
    "VariableSplitting",
    "apply_threshold",
    "callbacks",
    "groups",
    "models",
    "neuron_sparsity",
    "regularizers",
    "sparsity",
    "sparsity_report",
    "weight_sparsity",
]
