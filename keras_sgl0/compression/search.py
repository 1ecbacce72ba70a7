"""Trains a model to find out what to cut: by a penalty, or by gates."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks import (
    CoupledGroups,
    L0Constraint,
    ProximalStep,
    TargetDensity,
)
from keras_sgl0.compression.budget import Budget
from keras_sgl0.gates.adding import add_gates
from keras_sgl0.gates.folding import fold_gates
from keras_sgl0.regularizers import SGL0, GroupLasso
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.members import Members

# What tells what goes, each with what its budgets can count.
METHODS: dict[str, tuple[str, ...]] = {
    "importance": ("macs", "parameters", "channels", "latency"),
    "group_lasso": ("macs", "parameters", "channels"),
    "sgl0": ("macs", "parameters", "channels"),
    "gates": ("macs", "parameters"),
}
_PENALTIES = {"group_lasso": GroupLasso, "sgl0": SGL0}
# The share of the search after which the target density is met at the latest.
_SETTLE = 0.8
# How far the penalty alone would bring the mean structure on its way to zero.
# With 1 what is kept shrinks as well, and the model is worse after the cut.
_PULL = 0.1
# The mean of a schedule that falls to zero along a cosine, over its peak.
_MEAN_RATE = 0.5
# Nearly all gates of a trained model are open at the start.
_DROPRATE = 0.1
# Adam moves `log_alpha` by its rate a step. An open gate has to go down by
# some 4 to be closed at test time, which takes a quarter of the search.
_WAY = 16.0
# The multiplier that a violation of 1 would leave at the end of the search.
_MULTIPLIER = 100.0


@dataclasses.dataclass
class Search:
    """A training that leaves zeros where a model is to be cut.

    Attributes:
        student: The model to train, with the weights of the one to cut.
        callbacks: What makes it sparse.
        gate_rate: The learning rate of its gates; `None` without gates.
    """

    student: keras.Model
    callbacks: list[keras.callbacks.Callback]
    gate_rate: float | None = None

    def optimizer(
        self, own: keras.optimizers.Optimizer
    ) -> keras.optimizers.Optimizer:
        """Returns what trains the student.

        Args:
            own: The optimizer of its weights.
        """
        if self.gate_rate is None:
            return own
        gates = keras.optimizers.Adam(self.gate_rate)
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(own, {".*/log_alpha": gates})
        )

    def result(self) -> keras.Model:
        """Returns the trained model, a plain one with exact zeros."""
        if self.gate_rate is None:
            return self.student
        return fold_gates(self.student)


def penalty_search(
    name: str,
    found: Structures,
    budget: Budget,
    learning_rate: float,
    steps: int,
) -> Search:
    """Returns a training with a penalty on structures, by proximal steps.

    Without a gradient, a tenth of the mean structure would be gone after it:
    its factor is a tenth of the mean of `||W_s|| / sqrt(|s|)` over the sum of
    the learning rates. `TargetDensity` makes it stronger or weaker.

    Args:
        name: A name in `METHODS`.
        found: The structures of the model to cut.
        budget: What it may cost.
        learning_rate: The peak of the learning rate.
        steps: How many steps it is trained.
    """
    members = Members(found)
    norms = ops.convert_to_numpy(members.norms())
    alive = norms > 0
    typical = np.mean(norms[alive] / np.sqrt(members.sizes()[alive]))
    factor = _PULL * typical / (_MEAN_RATE * learning_rate * steps)
    return Search(
        FlatCopy(found.discovery.graph, found.name).model,
        [
            CoupledGroups(_PENALTIES[name](float(factor))),
            ProximalStep(),
            TargetDensity(budget.share, budget.measure, _SETTLE),
        ],
    )


def gate_search(
    model: keras.Model, budget: Budget, steps: int, seed: int
) -> Search:
    """Returns a training of gates under a constraint on what they leave.

    Args:
        model: The model to cut.
        budget: What it may cost.
        steps: How many steps it is trained.
        seed: The seed of the gates.
    """
    of: Any = budget.measure
    rate = _MULTIPLIER / steps
    return Search(
        add_gates(model, _DROPRATE, seed=seed),
        [L0Constraint(budget.share, learning_rate=rate, of=of)],
        gate_rate=_WAY / steps,
    )
