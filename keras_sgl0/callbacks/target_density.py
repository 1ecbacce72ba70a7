"""A target density for penalties without gates."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks.density_measures import MEASURES
from keras_sgl0.callbacks.lending import LendingCallback, Lent
from keras_sgl0.callbacks.proximal import ProximalConstraint
from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.compilation import compiled, retrace, scope_of
from keras_sgl0.network.layer_table import Layout, layouts_of
from keras_sgl0.network.sparsity import own_penalty
from keras_sgl0.regularizers import Penalty
from keras_sgl0.utils.validation import InputError, choice, finite_float

# Steered by the natural exponent of `_GAIN` times the error of log density:
# a density a tenth above the path more than doubles the penalty.
_GAIN = 5.0
_UPDATES_PER_EPOCH = 10
_STRONGEST = 100.0


class _Steered(Lent, keras.regularizers.Regularizer):
    """A penalty times the strength of the moment for its kernel."""

    def __init__(self, original, target, kernel):
        super().__init__(original)
        self.target = target
        self.kernel = kernel

    def __call__(self, w):
        if self.target.settled:
            return ops.zeros((), wide_dtype(self.kernel))
        return self.target.strength_for(self.kernel) * self.original(w)


class _Supported(Lent):
    """A proximal step of the strength of the moment, then a fixed support."""

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
    r"""Steers the strength of any penalty until a target density is met.

    `density=0.1` gives a network with a tenth of its weights, for `GroupLasso`,
    `SparseGroupLasso`, `SGL0` and every other penalty, trained by its
    subgradient, by splitting or by its proximal operator. Put it after
    `VariableSplitting` or `ProximalStep`. The penalty's own factor says where
    the search begins.

    *First phase*, up to `settle` of the run: the density is to follow the path
    `target + (1 - target) * (1 - t)^3`, `t` from 0 to 1. Ten times an epoch
    (once on JAX, and where Keras does not know the steps of an epoch) the
    strength, by which the whole penalty is multiplied, becomes

    `strength = (density / path)^5`, at most 100.

    A weight counts as dead here below `.02 * sqrt(2 / fan_in)`, a neuron if all
    its weights do. With `of="macs"` each kernel's penalty is also multiplied by
    the multiply-adds a weight of it takes part in, over their mean.

    *Second phase*, as soon as the density is the target or `settle` is over:
    the largest weights are kept, as many as the target allows, the others are
    set to zero and stay there, and the penalty is taken off. Large is, as a
    share of the largest of the kernel, `|w|`; the mean of `|w|` over its group
    for `GroupLasso`; and for sums of a group and an elementwise penalty the
    geometric mean of the two, so that weak groups go first. With `of="neurons"`
    groups are kept for their mean whatever the penalty, and of these the
    weights that do not count as dead. The rest of the run trains what is left,
    without any shrinkage, so it should not begin after the learning rate has
    fallen for good. A run that ends before, stopped early, is cut as it ends.

    *This is a heuristic.* In `L0Constraint` density has a gradient and the
    multiplier is that of a Lagrangian. Here it has none, a dead weight hardly
    comes back, and dual ascent overshoots; so the multiplier is set by the
    error itself, as a proportional controller sets it, and the cut closes what
    gap is left. What it guarantees is that the density is not above the target
    in the end; it is below it only if the penalty had killed more than that
    between two updates, so on JAX a run should have epochs enough.

    Nothing is remembered from epoch to epoch: a resumed run goes on as the
    uninterrupted one.

    List it after callbacks that restore weights as `fit` ends, such as
    `EarlyStopping(restore_best_weights=True)`: of those before it, it cuts the
    weights they restored; those after it bring back weights it had cut.

    Each epoch's `logs` get `density`, what counts in `of` and is not zero, and
    `strength`.

    Args:
        density: The target in (0, 1].
        of: What is counted: `"weights"`, those of all trainable kernels and of
            whatever else has a penalty; `"parameters"`, all trainable
            parameters, biases included; `"macs"`, the multiply-adds of the
            trainable kernels; or `"neurons"`, their groups, as
            `sparsity_report` counts them. What has no penalty counts as a
            whole.
        settle: The share of the run after which the second phase begins at the
            latest, in (0, 1).

    Attributes:
        strength: Scalar variable, `None` before `fit`; 0 in the second phase.
        settled: Whether the second phase has begun.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty of this package, if the target is
            not more than the share without a penalty, if the multiply-adds or
            the neurons of what has one are not known, or if that has a
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
        # Made when `fit` begins.
        self.strength: Any = None
        self.settled = False
        # Not a method: a batch hook, even an empty one, costs every step.
        if keras.backend.backend() != "jax":
            self.on_train_batch_end = self._between_batches

    def lend(self, variable, original):
        """Returns penalty and constraint for a kernel with a penalty."""
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
        """Makes the strength, and finds out what a weight of each costs."""
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
        """Returns by what the penalty of a kernel is multiplied now.

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
        """Does so again; puts density and strength into `logs`."""
        self._steer((epoch + 1) / self.params["epochs"])
        if logs is not None:
            logs["density"] = self._density()
            logs["strength"] = float(ops.convert_to_numpy(self.strength))

    def on_train_end(self, logs=None):
        """Cuts a run stopped early, or weights restored or averaged."""
        self._cut()
        super().on_train_end(logs)

    def _between_batches(self, batch, logs=None):
        steps = self.params["steps"]
        if not steps:
            return
        # The last call of several steps may count more than there are.
        done = min(batch + 1, steps)
        if (due := _UPDATES_PER_EPOCH * done // steps) > self._updates:
            self._updates = due
            self._steer((self._epoch + done / steps) / self.params["epochs"])

    def _steer(self, done):
        """Sets the strength after that share of the run."""
        if self.settled:
            return
        density, rest = self._density(), max(0.0, 1 - done / self.settle)
        if density <= self.density or not rest:
            self._cut()
            return
        path = self.density + (1 - self.density) * rest**3
        self.strength.assign(min((density / path) ** _GAIN, _STRONGEST))
        if keras.backend.backend() == "jax":
            retrace(self.model)  # it is a constant of the step there

    def _resume(self):
        """Fixes the support of a run that was in its second phase."""
        alive = [int(self._counted.alive(k, 0.0)) for k in self._kernels]
        if self._counted.density(np.array(alive)) <= self.density < 1:
            self._fix_support(
                [ops.convert_to_numpy(kernel) != 0 for kernel in self._kernels]
            )

    def _cut(self):
        """Keeps the largest that the target pays for, for good."""
        self._fix_support(self._counted.supports(self._least()))

    def _fix_support(self, supports):
        for (kernel, lent), support in zip(self._loans, supports, strict=True):
            kernel.assign(ops.convert_to_numpy(kernel) * support)
            lent["constraint"].support = support
        self.settled = True
        self.strength.assign(0.0)
        self._count_alive = compiled(self._alive)  # exact zeros from now on
        retrace(self.model)

    def _density(self):
        alive = ops.convert_to_numpy(self._count_alive()).astype("int64")
        return self._counted.density(alive)

    def _alive(self):
        """Returns how much of each kernel is alive."""
        return ops.stack(
            list(map(self._counted.alive, self._kernels, self._least()))
        )

    def _least(self):
        """Returns the size up to which the weights of each kernel are dead."""
        return [
            0.0 if self.settled else _negligible(fan_in)
            for fan_in in self._fans_in
        ]


def _fan_in(kernel: keras.Variable, layout: Layout | None) -> int:
    """Returns over how many inputs an output unit of a kernel sums.

    A look-up sums over none, and a kernel that is not in the table of layers
    may be of any kind. Of these it is all axes but the last.
    """
    if layout is None or layout.applied == "lookup":
        return math.prod(kernel.shape[:-1])
    return layout.fan_in(kernel.shape)


def _negligible(fan_in: int) -> float:
    """Returns the size below which a weight of a kernel counts as dead.

    Weights that are drawn to zero by their gradient jitter around it with the
    learning rate, so it is 2 % of the size weights of such a kernel usually
    start with, `sqrt(2 / fan_in)`.
    """
    return 0.02 * (2 / fan_in) ** 0.5
