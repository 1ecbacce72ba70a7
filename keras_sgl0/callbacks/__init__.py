"""Callbacks that train penalties and watch sparsity."""

from keras_sgl0.callbacks.admm import ADMM
from keras_sgl0.callbacks.coupling import CoupledGroups
from keras_sgl0.callbacks.factor_scheduler import FactorScheduler
from keras_sgl0.callbacks.keep_zeros import KeepZeros
from keras_sgl0.callbacks.l0_constraint import L0Constraint
from keras_sgl0.callbacks.once_met import OnceMet
from keras_sgl0.callbacks.proximal import ProximalStep
from keras_sgl0.callbacks.sparsity_monitor import SparsityMonitor
from keras_sgl0.callbacks.splitting import VariableSplitting
from keras_sgl0.callbacks.target_density import TargetDensity

__all__ = [
    "ADMM",
    "CoupledGroups",
    "FactorScheduler",
    "KeepZeros",
    "L0Constraint",
    "OnceMet",
    "ProximalStep",
    "SparsityMonitor",
    "TargetDensity",
    "VariableSplitting",
]
