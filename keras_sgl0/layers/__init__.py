"""Layers that switch units off, and the penalty that makes them do so."""

from keras_sgl0.layers.gated import GatedWeights, gated_by
from keras_sgl0.layers.hard_concrete import ExpectedL0, HardConcrete

__all__ = ["ExpectedL0", "GatedWeights", "HardConcrete", "gated_by"]
