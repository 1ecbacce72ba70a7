"""Structured sparsity for Keras 3."""

import importlib

from keras_sgl0 import (
    callbacks,
    compression,
    deployment,
    gates,
    groups,
    models,
    regularizers,
)
from keras_sgl0.callbacks import (
    ADMM,
    CoupledGroups,
    FactorScheduler,
    KeepZeros,
    L0Constraint,
    OnceMet,
    ProximalStep,
    SparsityMonitor,
    TargetDensity,
    VariableSplitting,
)
from keras_sgl0.compression import (
    CompressReport,
    Path,
    PathReport,
    PruneReport,
    compress,
    path,
    prune,
    reestimate_batch_norm,
)
from keras_sgl0.deployment.comparison import compare
from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.report import Comparison, ExportReport
from keras_sgl0.factor_max import factor_max
from keras_sgl0.gates.adding import add_gates
from keras_sgl0.gates.folding import fold_gates
from keras_sgl0.gates.hard_concrete import ExpectedL0, HardConcrete
from keras_sgl0.gates.report import GateReport, gate_report
from keras_sgl0.network.cost import count_macs, macs_per_weight
from keras_sgl0.network.cost_report import CostReport
from keras_sgl0.network.loans import release
from keras_sgl0.network.penalty_report import RegularizationReport
from keras_sgl0.network.sparsity import (
    apply_threshold,
    neuron_sparsity,
    sparsity_report,
    weight_sparsity,
)
from keras_sgl0.network.sparsity_report import SparsityReport
from keras_sgl0.regularize import regularize
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
    Penalty,
    SparseGroup,
    SparseGroupL1MinusL2,
    SparseGroupLasso,
    SparseGroupLHalf,
    SparseGroupTransformedL1,
    TransformedL1,
)
from keras_sgl0.shrinking import (
    delete_channels,
    fit_shrinking,
    shrink,
    to_rms_normalization,
)
from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.shrinking.rule_check import RuleCheck, check_rule
from keras_sgl0.structures import rules
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.report import StructureReport

__version__ = "0.1.0"

# The laboratory needs TensorFlow or matplotlib, so it is imported when it is
# asked for. `layers` and `sparsity` are names of version 0.1.
_LAZY = {
    "datasets": "keras_sgl0.experiments.datasets",
    "experiments": "keras_sgl0.experiments",
    "layers": "keras_sgl0.gates",
    "plots": "keras_sgl0.experiments.plots",
    "sparsity": "keras_sgl0.network.sparsity",
}

__all__ = [
    "ADMM",
    "CGES",
    "L0",
    "L1",
    "MCP",
    "SCAD",
    "SGL0",
    "Comparison",
    "CompressReport",
    "CostReport",
    "CoupledGroups",
    "ElementwisePenalty",
    "ExclusiveLasso",
    "ExpectedL0",
    "ExportReport",
    "FactorScheduler",
    "GateReport",
    "GroupLasso",
    "GroupPenalty",
    "HardConcrete",
    "IntegratedTransformedL1",
    "KeepZeros",
    "L0Constraint",
    "L1MinusL2",
    "LHalf",
    "OnceMet",
    "Path",
    "PathReport",
    "Penalty",
    "ProximalStep",
    "PruneReport",
    "RegularizationReport",
    "RuleCheck",
    "ShrinkReport",
    "SparseGroup",
    "SparseGroupL1MinusL2",
    "SparseGroupLHalf",
    "SparseGroupLasso",
    "SparseGroupTransformedL1",
    "SparsityMonitor",
    "SparsityReport",
    "StructureReport",
    "Structures",
    "TargetDensity",
    "TransformedL1",
    "VariableSplitting",
    "add_gates",
    "apply_threshold",
    "callbacks",
    "check_rule",
    "compare",
    "compress",
    "compression",
    "count_macs",
    "delete_channels",
    "deployment",
    "export",
    "factor_max",
    "fit_shrinking",
    "fold_gates",
    "gate_report",
    "gates",
    "groups",
    "layers",
    "macs_per_weight",
    "models",
    "neuron_sparsity",
    "path",
    "prune",
    "reestimate_batch_norm",
    "regularize",
    "regularizers",
    "release",
    "rule",
    "rules",
    "shrink",
    "sparsity",
    "sparsity_report",
    "structures",
    "to_rms_normalization",
    "weight_sparsity",
]


def __getattr__(name: str):
    """Imports what is not imported with the package itself."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(_LAZY[name])


def __dir__() -> list[str]:
    """Returns all names, those not imported yet too."""
    return sorted({*globals(), *_LAZY})
