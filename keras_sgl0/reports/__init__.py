"""What this package reports: plain values that print as tables."""

from keras_sgl0.reports.comparison import Change, Comparison, ExportReport
from keras_sgl0.reports.cost import CostReport, LayerCost
from keras_sgl0.reports.gates import GateReport, GatesOfLayer
from keras_sgl0.reports.regularization import LayerEntry, RegularizationReport
from keras_sgl0.reports.shrinking import KeptChannels, ShrinkReport, ShrunkLayer
from keras_sgl0.reports.sparsity import KernelSparsity, SparsityReport
from keras_sgl0.reports.sweep import SweepReport, SweepRow

__all__ = [
    "Change",
    "Comparison",
    "CostReport",
    "ExportReport",
    "GateReport",
    "GatesOfLayer",
    "KeptChannels",
    "KernelSparsity",
    "LayerCost",
    "LayerEntry",
    "RegularizationReport",
    "ShrinkReport",
    "ShrunkLayer",
    "SparsityReport",
    "SweepReport",
    "SweepRow",
]
