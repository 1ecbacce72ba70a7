"""Writing models for inference elsewhere, and measuring what that brings."""

from keras_sgl0.deployment.comparison import compare
from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.latency import compare_latency, take_turns
from keras_sgl0.deployment.report import Change, Comparison, ExportReport

__all__ = [
    "Change",
    "Comparison",
    "ExportReport",
    "compare",
    "compare_latency",
    "export",
    "take_turns",
]
