"""A target density for penalties without gates."""

import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks.lending import LendingCallback, Lent
from keras_sgl0.compilation import compiled, retrace, scope_of
from keras_sgl0.cost import macs_per_weight
from keras_sgl0.groups import (
    group_means,
    num_groups,
    other_axes,
    per_weight,
    upcast,
)
from keras_sgl0.regularizers import (
    ElementwisePenalty,
    GroupLasso,
    GroupPenalty,
    SparseGroup,
)
from keras_sgl0.sparsity import kernels, neuron_axis, own_penalty
from keras_sgl0.validation import InputError, choice, finite_float, require

# Steered by the natural exponent of `_GAIN` times the error of log density:
# a density a tenth above the path more than doubles the penalty.
_GAIN = 5.0
_UPDATES_PER_EPOCH = 10
_STRONGEST = 100.0
_COUNTED = ("weights", "parameters", "macs", "neurons")


class _Steered(Lent, keras.regularizers.Regularizer):
    """A penalty times the strength of the moment for its kernel."""

    def __init__(self, original, target, kernel):
        super().__init__(original)
        self.target = target
        self.kernel = kernel

    def __call__(self, w):
        if self.target.settled:
            return ops.zeros((), "float32")
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
            return self.original(w, self.target.strength_for(self.kernel))
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
    for `GroupLasso`; and the geometric mean of these two for the sums of a
    group and an elementwise penalty, so that weak groups go first. With
    `of="neurons"` the strongest groups of any penalty are kept, and their
    weights that count as dead stay at zero too. The
    rest of the run trains what is left, without any shrinkage, so it should
    not begin after the learning rate has fallen for good. A run that ends
    before, stopped early, is cut as it ends.

    *This is a heuristic.* In `L0Constraint` density has a gradient and the
    multiplier is that of a Lagrangian. Here it has none, a dead weight hardly
    comes back, and dual ascent overshoots; so the multiplier is set by the
    error itself, as a proportional controller sets it, and the cut closes what
    gap is left. What it guarantees is that the density is not above the target
    in the end; it is below it only if the penalty had killed more than that
    between two updates, so on JAX a run should have epochs enough.

    Nothing is remembered from epoch to epoch: a resumed run goes on as the
    uninterrupted one.

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
        self.of = choice("of", of, _COUNTED)
        self.settle = finite_float("settle", settle, above=0, below=1)
        self.strength = None
        self.settled = False
        # Not a method: a batch hook, even an empty one, costs every step.
        if keras.backend.backend() != "jax":
            self.on_train_batch_end = self._between_batches

    def lend(self, variable, original):
        """Returns penalty and constraint for a kernel with a penalty."""
        if not isinstance(
            own_penalty(variable),
            GroupPenalty | ElementwisePenalty | SparseGroup,
        ):
            return {}
        if not isinstance(variable.constraint, Lent | None):
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
        self.settled = False
        self._kernels = variables
        self._prices, self._fixed, self._total = self._price()
        sizes = [self._units(kernel) for kernel in variables]
        mean = (self._prices @ sizes) / sum(sizes)
        self._relative_prices = {
            id(kernel): float(price / mean)
            for kernel, price in zip(variables, self._prices, strict=True)
        }
        with scope_of(self.model):
            self.strength = keras.Variable(
                1.0, trainable=False, dtype="float32", name="strength"
            )
        self._count = compiled(self._counts)

    def strength_for(self, kernel):
        """Returns by what the penalty of a kernel is multiplied now.

        Args:
            kernel: A kernel with a penalty.
        """
        return self.strength * self._relative_prices[id(kernel)]

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the strength, or begins the second phase."""
        self._epoch, self._updates = epoch, 0
        self._steer(epoch / self.params["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        """Does so again; puts density and strength into `logs`."""
        self._steer((epoch + 1) / self.params["epochs"])
        if logs is not None:
            logs["density"] = self._density()
            logs["strength"] = float(ops.convert_to_numpy(self.strength))

    def on_train_end(self, logs=None):
        """Cuts a run stopped early, or weights restored or averaged."""
        self._fix_support()
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
            self._fix_support()
            return
        path = self.density + (1 - self.density) * rest**3
        self.strength.assign(min((density / path) ** _GAIN, _STRONGEST))
        if keras.backend.backend() == "jax":
            retrace(self.model)  # it is a constant of the step there

    def _fix_support(self):
        """Keeps the largest weights that the target pays for, for good."""
        scores = [self._scores(kernel) for kernel in self._kernels]
        flat = np.concatenate([s.ravel() for s in scores])
        order = np.argsort(-flat, kind="stable")
        prices = np.repeat(self._prices, [s.size for s in scores])
        densities = (self._fixed + np.cumsum(prices[order])) / self._total
        paid = np.searchsorted(densities, self.density, side="right")
        least, last = -1.0, 0
        if paid < len(flat):
            least = flat[order[paid]]
            ends = np.cumsum([s.size for s in scores])
            last = np.searchsorted(ends, order[paid], side="right")
        for i, (kernel, lent) in enumerate(self._loans):
            # Equals of the first that is too much go too, no half groups; but
            # the kernels before its own come first.
            score = scores[i]
            support = score >= least if i < last else score > least
            if self.of == "neurons":
                support = self._alive_of(kernel, support)
            kernel.assign(ops.convert_to_numpy(kernel) * support)
            lent["constraint"].support = support
        self.settled = True
        self.strength.assign(0.0)
        self._count = compiled(self._counts)  # exact zeros from now on
        retrace(self.model)

    def _price(self):
        """Returns what a unit of each kernel costs, what is fixed, and all.

        All are whole numbers, so that a share of them has no rounding.
        """
        price = {id(kernel): 1 for kernel in self._kernels}
        if self.of == "parameters":
            counted = self.model.trainable_variables
        else:
            counted = kernels(self.model)
        if self.of == "macs":
            price = {id(k): n for k, n in macs_per_weight(self.model)}
            counted = [kernel for kernel in counted if id(kernel) in price]
        if self.of == "neurons":
            price = {id(kernel): 1 for kernel in counted}
        for kernel in self._kernels:
            if id(kernel) not in price:
                raise InputError(
                    f"`TargetDensity` cannot count the {self.of} of "
                    f'{kernel.path}. Received: of="{self.of}"'
                )
        counted = {id(v): v for v in (*counted, *self._kernels)}
        cost = {
            key: self._units(v) * price.get(key, 1)
            for key, v in counted.items()
        }
        total = sum(cost.values())
        fixed = total - sum(cost[id(kernel)] for kernel in self._kernels)
        require(
            self.density * total > fixed,
            "density",
            f"more than {fixed / max(total, 1):.4f}, the share of the "
            f"{self.of} without a penalty",
            self.density,
        )
        return np.array([price[id(k)] for k in self._kernels]), fixed, total

    def _density(self):
        alive = ops.convert_to_numpy(self._count()).astype("int64")
        return float((self._fixed + alive @ self._prices) / self._total)

    def _counts(self):
        counts = []
        for kernel in self._kernels:
            alive = self._alive(kernel)
            if self.of == "neurons":
                axis = neuron_axis(kernel)
                alive = ops.any(alive, axis=other_axes(kernel.shape, axis))
            counts.append(ops.sum(ops.cast(alive, "int32")))
        return ops.stack(counts)

    def _alive(self, kernel):
        """Returns which weights of a kernel do not count as dead."""
        least = 0.0 if self.settled else _negligible(kernel.shape)
        return ops.abs(upcast(kernel)) > least

    def _alive_of(self, kernel, neurons):
        """Returns which weights of some neurons do not count as dead."""
        chosen = per_weight(neurons, kernel.shape, neuron_axis(kernel))
        return ops.convert_to_numpy(self._alive(kernel) & chosen)

    def _scores(self, kernel) -> np.ndarray:
        """Returns by what the weights, or the neurons, are ranked.

        All as a share of the largest of the kernel: so no kernel goes empty
        while another has something small to give.
        """
        penalty, size = own_penalty(kernel), ops.abs(upcast(kernel))
        if self.of == "neurons":
            size = group_means(kernel, neuron_axis(kernel))
        elif isinstance(penalty, GroupLasso | SparseGroup):
            axis = neuron_axis(kernel)
            means = per_weight(group_means(kernel, axis), kernel.shape, axis)
            if isinstance(penalty, SparseGroup):
                size = ops.sqrt(size * means)
            else:
                size = ops.broadcast_to(means, kernel.shape)
        size = ops.convert_to_numpy(size)
        return size / max(size.max(), np.finfo(size.dtype).tiny)

    def _units(self, variable):
        """Returns how many weights or neurons a variable has."""
        if self.of == "neurons":
            return num_groups(variable.shape, neuron_axis(variable))
        return math.prod(variable.shape)


def _negligible(shape) -> float:
    """Returns the size below which a weight of a kernel counts as dead.

    Weights that are drawn to zero by their gradient jitter around it with the
    learning rate, so it is 2 % of the size weights of such a kernel usually
    start with, `sqrt(2 / fan_in)`.
    """
    return 0.02 * (2 / math.prod(shape[:-1])) ** 0.5
