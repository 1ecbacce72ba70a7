"""Callbacks that train penalties and watch sparsity."""

from keras_sgl0.callbacks.monitor import SparsityMonitor
from keras_sgl0.callbacks.splitting import VariableSplitting

__all__ = ["SparsityMonitor", "VariableSplitting"]
