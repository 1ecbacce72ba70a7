"""Gates: layers that switch units off, and models with and without them."""

from keras_sgl0.gates.adding import add_gates
from keras_sgl0.gates.expected_cost import ExpectedCost
from keras_sgl0.gates.folding import fold_gates
from keras_sgl0.gates.hard_concrete import ExpectedL0, HardConcrete
from keras_sgl0.gates.lookup import (
    gate_group_size,
    gated_layer,
    gates,
    ruled_by,
)
from keras_sgl0.gates.report import GateReport, GatesOfLayer, gate_report
from keras_sgl0.gates.shared import AllOpen, GateChannels
from keras_sgl0.gates.wiring import GatedWeights, gated_by

__all__ = [
    "AllOpen",
    "ExpectedCost",
    "ExpectedL0",
    "GateChannels",
    "GateReport",
    "GatedWeights",
    "GatesOfLayer",
    "HardConcrete",
    "add_gates",
    "fold_gates",
    "gate_group_size",
    "gate_report",
    "gated_by",
    "gated_layer",
    "gates",
    "ruled_by",
]
