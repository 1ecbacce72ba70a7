"""Callbacks that train penalties and watch sparsity."""

from keras_sgl0.callbacks.monitor import SparsityMonitor
from keras_sgl0.callbacks.proximal import ProximalStep
from keras_sgl0.callbacks.splitting import ADMM, VariableSplitting

__all__ = ["ADMM", "ProximalStep", "SparsityMonitor", "VariableSplitting"]
