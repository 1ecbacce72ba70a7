"""The units of a target density: weights, parameters, MACs or neurons."""

import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import (
    group_means,
    num_groups,
    other_axes,
    per_weight,
    upcast,
)
from keras_sgl0.network.layer_table import Layout
from keras_sgl0.network.sparsity import kernels, neuron_axes, own_penalty
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.utils.validation import InputError, require


class Weights:
    """Counts the weights of trainable kernels and of penalized variables.

    A variable is counted in units (here its weights). Each unit has a price:
    here 1, in the subclass for MACs the multiply-adds of a weight. The density
    is the price of the units that are alive over that of all units. Prices are
    integers, so sums of them are exact.

    Args:
        target: The target density, in (0, 1].
        model: A built model.
        penalised: Its variables with a penalty of this package.

    Raises:
        ValueError: If a penalized variable is not counted, or if the target is
            not above the share of what has no penalty.
    """

    name = "weights"

    def __init__(self, target: float, model, penalised: list):
        self.target = target
        self._penalised = penalised
        counted = {id(v): (v, price) for v, price in self._priced(model)}
        for variable in penalised:
            if id(variable) not in counted:
                raise InputError(
                    f"`TargetDensity` cannot count the {self.name} of "
                    f'{variable.path}. Received: of="{self.name}"'
                )
        self._prices = np.array([counted[id(v)][1] for v in penalised])
        self._total = sum(self.size(v) * p for v, p in counted.values())
        removable = self._prices @ [self.size(v) for v in penalised]
        self._fixed = self._total - int(removable)
        require(
            target * self._total > self._fixed,
            "density",
            f"more than {self._fixed / max(self._total, 1):.4f}, the share of "
            f"the {self.name} without a penalty",
            target,
        )

    def follow(self, transfer: Transfer):
        """Counts on in a smaller model.

        What was cut counts as dead, and without a penalty as alive.

        Args:
            transfer: From the model to the smaller one.
        """
        self._penalised = [transfer.of(v) for v in self._penalised]

    def _priced(self, model):
        """Returns the counted variables, each with the price of a unit."""
        return [(v, 1) for v in (*kernels(model), *self._penalised)]

    def size(self, variable) -> int:
        """Returns the number of units of a variable.

        Args:
            variable: A variable.
        """
        return math.prod(variable.shape)

    def alive(self, variable, least: float):
        """Returns the number of units that are alive, as a tensor.

        Args:
            variable: A penalized variable.
            least: Weights up to this size are dead.
        """
        return ops.sum(ops.cast(_is_alive(variable, least), "int32"))

    def density(self, alive: np.ndarray) -> float:
        """Returns the density.

        Args:
            alive: The number of units alive in each penalized variable.
        """
        return float((self._fixed + alive @ self._prices) / self._total)

    def supports(self, least: list[float]) -> list[np.ndarray]:
        """Returns masks of the weights to keep, so that the target is met.

        The units with the highest scores are kept.

        Args:
            least: For each penalized variable, the size up to which its
                weights are dead.
        """
        scores = [self._scores(variable) for variable in self._penalised]
        flat = np.concatenate([s.ravel() for s in scores])
        order = np.argsort(-flat, kind="stable")
        prices = np.repeat(self._prices, [s.size for s in scores])
        densities = (self._fixed + np.cumsum(prices[order])) / self._total
        paid = np.searchsorted(densities, self.target, side="right")
        limit, last = -1.0, 0
        if paid < len(flat):
            limit = flat[order[paid]]
            ends = np.cumsum([s.size for s in scores])
            last = np.searchsorted(ends, order[paid], side="right")
        # Of units with the same score as the first one that does not fit, none
        # are kept in its own variable, so that no group is kept in part. In
        # variables before it they are kept: these come first in the order.
        kept = [
            score >= limit if i < last else score > limit
            for i, score in enumerate(scores)
        ]
        return list(map(self._of_weights, self._penalised, kept, least))

    def _scores(self, variable):
        """Returns the score of each unit: its size over the largest one.

        Relative sizes keep kernels with small weights from being emptied
        first.
        """
        size = ops.convert_to_numpy(self._size_of_units(variable))
        return size / max(size.max(), np.finfo(size.dtype).tiny)

    def _size_of_units(self, variable):
        """Returns the size of each weight for ranking.

        This is `|w|`, the mean of `|w|` over the group, or the geometric mean
        of both, according to `ranks_by` of the penalty.
        """
        penalty, size = own_penalty(variable), ops.abs(upcast(variable))
        if penalty.ranks_by == "weight":
            return size
        means = group_means(variable, penalty.axis)
        means = per_weight(means, variable.shape, penalty.axis)
        means = ops.broadcast_to(means, variable.shape)
        both = penalty.ranks_by == "both"
        return ops.sqrt(size * means) if both else means

    def _of_weights(self, variable, kept, least):
        """Returns the mask of the weights, given that of the units."""
        return kept


class _Parameters(Weights):
    """Counts all trainable parameters of a model, including biases."""

    name = "parameters"

    def _priced(self, model):
        return [(variable, 1) for variable in model.trainable_variables]


class _Neurons(Weights):
    """Counts the groups of trainable kernels, as `sparsity_report` does."""

    name = "neurons"

    def __init__(self, target: float, model, penalised: list):
        self._axes = neuron_axes(model)
        super().__init__(target, model, penalised)

    def follow(self, transfer):
        """Counts on in a smaller model."""
        self._axes = {
            id(transfer.of(v)): self._axes[id(v)] for v in self._penalised
        }
        super().follow(transfer)

    def _priced(self, model):
        return [(kernel, 1) for kernel in kernels(model)]

    def size(self, variable) -> int:
        """Returns the number of groups of a kernel.

        Args:
            variable: A kernel.
        """
        return num_groups(variable.shape, self._axes[id(variable)])

    def alive(self, variable, least: float):
        """Returns the number of groups with a weight alive, as a tensor.

        Args:
            variable: A penalized kernel.
            least: Weights up to this size are dead.
        """
        others = other_axes(variable.shape, self._axes[id(variable)])
        alive = ops.any(_is_alive(variable, least), axis=others)
        return ops.sum(ops.cast(alive, "int32"))

    def _size_of_units(self, variable):
        return group_means(variable, self._axes[id(variable)])

    def _of_weights(self, variable, kept, least):
        kept = per_weight(kept, variable.shape, self._axes[id(variable)])
        alive = ops.logical_and(kept, _is_alive(variable, least))
        return ops.convert_to_numpy(alive)


def _is_alive(variable, least):
    # So that NaN, which no comparison is true of, is not dead.
    return ops.logical_not(ops.abs(upcast(variable)) <= least)


def fan_in(kernel: keras.Variable, layout: Layout | None) -> int:
    """Returns the number of inputs that an output of a kernel sums over.

    For a look-up, which has no sum, and for unknown layers it is the product
    of all axes but the last.

    Args:
        kernel: The kernel.
        layout: What its axes are, `None` where that is not known.
    """
    if layout is None or layout.applied == "lookup":
        return math.prod(kernel.shape[:-1])
    return layout.fan_in(kernel.shape)


def negligible(fan_in: int) -> float:
    """Returns the size below which a weight of a kernel counts as dead.

    A subgradient does not set weights to exactly zero: they oscillate around
    it, with the learning rate as amplitude. So the limit is 2 % of the usual
    standard deviation of initial weights, `sqrt(2 / fan_in)`.

    Args:
        fan_in: The number of inputs that an output of the kernel sums over.
    """
    return 0.02 * (2 / fan_in) ** 0.5


MEASURES = {kind.name: kind for kind in (Weights, _Parameters, _Neurons)}
# All that a target may count: structures too, see `structure_cut`.
COUNTED = ("weights", "parameters", "macs", "channels", "neurons")
