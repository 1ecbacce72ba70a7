"""Trains any penalty to a target density."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks.density_measures import MEASURES
from keras_sgl0.callbacks.lending import (
    LendingCallback,
    Lent,
    LentPenalty,
    value_of,
)
from keras_sgl0.callbacks.proximal import ProximalConstraint
from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.compilation import compiled, retrace, scope_of
from keras_sgl0.network.layer_table import Layout, layouts_of
from keras_sgl0.network.sparsity import own_penalty
from keras_sgl0.regularizers import Penalty
from keras_sgl0.utils.validation import InputError, choice, finite_float

# log(strength) = _GAIN * log(density / path): with a density a tenth above the
# path, the strength is 1.6.
_GAIN = 5.0
_UPDATES_PER_EPOCH = 10
_STRONGEST = 100.0


class _Steered(LentPenalty):
    """A penalty times the current strength for its kernel."""

    def __init__(self, original, target, kernel):
        super().__init__(original)
        self.target = target
        self.kernel = kernel

    def value(self, w):
        if self.target.settled:
            return ops.zeros((), wide_dtype(self.kernel))
        strength = self.target.strength_for(self.kernel)
        return strength * value_of(self.original, w)


class _Supported(Lent):
    """A proximal step with the current strength; later a fixed support."""

    def __init__(self, original, target, kernel):
        super().__init__(original)
        self.target = target
        self.kernel = kernel
        self.support = None

    def __call__(self, w):
        if self.support is not None:
            return w * ops.cast(self.support, w.dtype)
        if self.original is not None:
            strength = self.target.strength_for(self.kernel)
            return self.original.scaled(strength)(w)
        return w


class TargetDensity(LendingCallback):
    r"""Controls the strength of any penalty to reach a target density.

    `density=0.1` gives a network with a tenth of its weights. It works for
    `GroupLasso`, `SparseGroupLasso`, `SGL0` and every other penalty, trained
    by its subgradient, by splitting or by its proximal operator. List it after
    `VariableSplitting` or `ProximalStep`. The strength multiplies the penalty,
    so the penalty's factor is the starting point.

    *First phase*, at most until `settle` of the run: the density should follow
    the path `target + (1 - target) * (1 - t)^3`, where `t` goes from 0 to 1.
    Ten times per epoch, the strength becomes

    `strength = (density / path)^5`, at most 100.

    It is updated only once per epoch on JAX, and if Keras does not know the
    number of steps. In this phase, weights below `.02 * sqrt(2 / fan_in)`
    count as dead, and so do neurons with only such weights. With `of="macs"`,
    the penalty of a kernel is also multiplied by the multiply-adds of one of
    its weights, relative to the mean over all weights.

    *Second phase*, once the target or `settle` is reached: the largest weights
    are kept, as many as the target allows. The others are set to zero and stay
    zero, and the penalty is removed. The rest of the run trains the remaining
    weights without shrinkage, so the second phase should begin before the last
    drop of the learning rate. If `fit` is stopped earlier, the weights are cut
    at its end.

    Weights are ranked by their size relative to the largest in their kernel.
    The size is `|w|` for penalties on single weights, the mean of `|w|` over
    the group for group penalties, and the geometric mean of both for their
    sums, so that weak groups are removed first. With `of="neurons"` it is
    always the mean over the group, and in the groups that are kept, weights
    that count as dead are removed.

    *This is a heuristic.* In `L0Constraint` the density has a gradient, and a
    Lagrange multiplier controls it. Here it has no gradient, dead weights
    hardly ever come back, and dual ascent overshoots. So the strength follows
    the error, as in a proportional controller, and the cut closes the
    remaining gap. The final density is never above the target. It is below
    the target only if the penalty removes more than needed between two
    updates, so a run on JAX should have many epochs.

    The callback has no state between epochs, so a resumed run continues like
    an uninterrupted one.

    List it after callbacks that restore weights at the end of `fit`, such as
    `EarlyStopping(restore_best_weights=True)`. It then cuts the restored
    weights; callbacks listed after it may bring back weights that were cut.

    The `logs` of each epoch get `density`, the share of non-zero units, and
    `strength`.

    Args:
        density: The target, in (0, 1].
        of: The unit of the density: `"weights"` of all trainable kernels and
            of other variables with a penalty; `"parameters"`, all trainable
            parameters, including biases; `"macs"`, the multiply-adds of the
            trainable kernels; or `"neurons"`, the groups of the trainable
            kernels, as `sparsity_report` counts them. Variables without a
            penalty count as completely alive.
        settle: The share of the run after which the second phase begins at the
            latest, in (0, 1).

    Attributes:
        strength: Scalar variable, `None` before `fit`; 0 in the second phase.
        settled: Whether the second phase has begun.

    Raises:
        ValueError: If an argument is out of range. When `fit` begins, if no
            trainable variable has a penalty of this package, if the target is
            not above the share of what has no penalty, if the multiply-adds or
            the neurons of a penalized variable are not known, or if it has a
            constraint other than a proximal step.

    Example:
        >>> splitting = VariableSplitting(beta=25 * factor)
        >>> target = TargetDensity(0.1)
        >>> model.fit(x, y, epochs=60, callbacks=[splitting, target])
    """

    def __init__(
        self, density: float, of: str = "weights", settle: float = 0.6
    ):
        super().__init__()
        self.density = finite_float("density", density, above=0, at_most=1)
        self.of = choice("of", of, tuple(MEASURES))
        self.settle = finite_float("settle", settle, above=0, below=1)
        # Created when `fit` begins.
        self.strength: Any = None
        self.settled = False
        # Not a method, since even an empty batch hook makes every step slower.
        if keras.backend.backend() != "jax":
            self.on_train_batch_end = self._between_batches

    def lend(self, variable, original):
        """Returns what replaces the penalty and constraint of a kernel."""
        if not isinstance(own_penalty(variable), Penalty):
            return {}
        if not isinstance(variable.constraint, ProximalConstraint | None):
            raise InputError(
                f"`TargetDensity` cannot train {variable.path}, which has a "
                f"constraint of its own. Received: {variable.constraint}"
            )
        return {
            "regularizer": _Steered(original, self, variable),
            "constraint": _Supported(variable.constraint, self, variable),
        }

    def prepare(self, variables):
        """Creates the strength and the prices of the kernels."""
        self.settled = self._has_begun = False
        self._kernels = variables
        known = layouts_of(self.model)
        self._fans_in = [_fan_in(k, known.get(id(k))) for k in variables]
        self._counted = MEASURES[self.of](self.density, self.model, variables)
        relative = self._counted.relative_prices()
        self._relative_prices = {
            id(kernel): float(price)
            for kernel, price in zip(variables, relative, strict=True)
        }
        with scope_of(self.model):
            self.strength = keras.Variable(
                1.0, trainable=False, dtype="float32", name="strength"
            )
        self._count_alive = compiled(self._alive)

    def strength_for(self, kernel):
        """Returns the current multiplier of the penalty of a kernel.

        Args:
            kernel: A kernel with a penalty.
        """
        strength = self.strength * self._relative_prices[id(kernel)]
        return ops.cast(strength, wide_dtype(kernel))

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the strength, or begins the second phase."""
        self._epoch, self._updates = epoch, 0
        if epoch and not self._has_begun:
            self._resume()
        self._has_begun = True
        self._steer(epoch / self.params["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        """Sets the strength again; adds density and strength to `logs`."""
        self._steer((epoch + 1) / self.params["epochs"])
        if logs is not None:
            logs["density"] = self._density()
            logs["strength"] = float(ops.convert_to_numpy(self.strength))

    def on_train_end(self, logs=None):
        """Cuts again: `fit` may stop early, or weights may be restored."""
        self._cut()
        super().on_train_end(logs)

    def _between_batches(self, batch, logs=None):
        steps = self.params["steps"]
        if not steps:
            return
        # With several steps per call, the last call may count too many.
        done = min(batch + 1, steps)
        if (due := _UPDATES_PER_EPOCH * done // steps) > self._updates:
            self._updates = due
            self._steer((self._epoch + done / steps) / self.params["epochs"])

    def _steer(self, done):
        """Sets the strength after the share `done` of the run."""
        if self.settled:
            return
        density, rest = self._density(), max(0.0, 1 - done / self.settle)
        if density <= self.density or not rest:
            self._cut()
            return
        path = self.density + (1 - self.density) * rest**3
        self.strength.assign(min((density / path) ** _GAIN, _STRONGEST))
        if keras.backend.backend() == "jax":
            retrace(self.model)  # on JAX it is a constant of the traced step

    def _resume(self):
        """Fixes the support if the resumed run was in its second phase."""
        alive = [int(self._counted.alive(k, 0.0)) for k in self._kernels]
        if self._counted.density(np.array(alive)) <= self.density < 1:
            self._fix_support(
                [ops.convert_to_numpy(kernel) != 0 for kernel in self._kernels]
            )

    def _cut(self):
        """Keeps the largest weights that the target allows, for good."""
        self._fix_support(self._counted.supports(self._least()))

    def _fix_support(self, supports):
        for (kernel, lent), support in zip(self._loans, supports, strict=True):
            kernel.assign(ops.convert_to_numpy(kernel) * support)
            lent["constraint"].support = support
        self.settled = True
        self.strength.assign(0.0)
        self._count_alive = compiled(self._alive)  # now counts exact zeros
        retrace(self.model)

    def _density(self):
        alive = ops.convert_to_numpy(self._count_alive()).astype("int64")
        return self._counted.density(alive)

    def _alive(self):
        """Returns the number of units alive in each kernel."""
        return ops.stack(
            list(map(self._counted.alive, self._kernels, self._least()))
        )

    def _least(self):
        """Returns for each kernel the size up to which weights are dead."""
        return [
            0.0 if self.settled else _negligible(fan_in)
            for fan_in in self._fans_in
        ]


def _fan_in(kernel: keras.Variable, layout: Layout | None) -> int:
    """Returns the number of inputs that an output of a kernel sums over.

    For a look-up, which has no sum, and for unknown layers it is the product
    of all axes but the last.
    """
    if layout is None or layout.applied == "lookup":
        return math.prod(kernel.shape[:-1])
    return layout.fan_in(kernel.shape)


def _negligible(fan_in: int) -> float:
    """Returns the size below which a weight of a kernel counts as dead.

    A subgradient does not set weights to exactly zero: they oscillate around
    it, with the learning rate as amplitude. So the limit is 2 % of the usual
    standard deviation of initial weights, `sqrt(2 / fan_in)`.
    """
    return 0.02 * (2 / fan_in) ** 0.5
