"""Structured sparsity for Keras 3."""

from keras_sgl0 import (
    callbacks,
    gates,
    groups,
    layers,
    models,
    regularizers,
    sparsity,
)
from keras_sgl0.callbacks import (
    ADMM,
    L0Constraint,
    ProximalStep,
    SparsityMonitor,
    TargetDensity,
    VariableSplitting,
)
from keras_sgl0.cost import count_macs, macs_per_weight
from keras_sgl0.exporting import export
from keras_sgl0.factor import factor_max
from keras_sgl0.gates import fold_gates, gate_report
from keras_sgl0.layers import ExpectedL0, HardConcrete
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
from keras_sgl0.reports import (
    Comparison,
    CostReport,
    ExportReport,
    GateReport,
    RegularizationReport,
    ShrinkReport,
    SparsityReport,
)
from keras_sgl0.shrinking import shrink
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
    "Comparison",
    "CostReport",
    "ElementwisePenalty",
    "ExclusiveLasso",
    "ExpectedL0",
    "ExportReport",
    "GateReport",
    "GroupLasso",
    "GroupPenalty",
    "HardConcrete",
    "IntegratedTransformedL1",
    "L0Constraint",
    "L1MinusL2",
    "LHalf",
    "ProximalStep",
    "RegularizationReport",
    "ShrinkReport",
    "SparseGroup",
    "SparseGroupL1MinusL2",
    "SparseGroupLHalf",
    "SparseGroupLasso",
    "SparseGroupTransformedL1",
    "SparsityMonitor",
    "SparsityReport",
    "TargetDensity",
    "TransformedL1",
    "VariableSplitting",
    "apply_threshold",
    "callbacks",
    "count_macs",
    "export",
    "factor_max",
    "fold_gates",
    "gate_report",
    "gates",
    "groups",
    "layers",
    "macs_per_weight",
    "models",
    "neuron_sparsity",
    "regularize",
    "regularizers",
    "shrink",
    "sparsity",
    "sparsity_report",
    "weight_sparsity",
]
