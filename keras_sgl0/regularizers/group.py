"""Penalties on groups of weights, each with its proximal operator beside it.

`prox(w, step) = argmin_x step * r(x) + ||x - w||^2 / 2`, where `r` has its
`factor` in it. All operators are computed in at least float32 and returned in
the dtype of `w`.
"""

import keras
from keras import ops

from keras_sgl0.groups import (
    Axis,
    by_group,
    group_norms,
    group_size,
    per_weight,
    signed,
    sorted_sizes,
    upcast,
    validate_axis,
)
from keras_sgl0.regularizers.base import Penalty, Ranking, keeps_methods
from keras_sgl0.utils.validation import finite_float


class GroupPenalty(Penalty):
    """Base class of penalties `r(W) = factor * sum_g p(w_g)` on groups.

    A subclass gives the value, and the proximal operator where it is known.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.
        axis: The axis of the kernel whose every index is one group: `-1` (the
            output axis, the default), any other integer, or `"auto"` for the
            neurons of Bui et al. (convolutions `(..., cin, cout)` by output
            channel, dense kernels `(in, out)` by input row).

    Raises:
        ValueError: If `factor` is not a finite number greater than 0, if
            `axis` is neither an integer nor `"auto"`, or, when called, if the
            kernel has no such axis.
    """

    ranks_by: Ranking = "group"

    def __init__(self, factor: float, axis: Axis = -1):
        self.factor: float = finite_float("factor", factor, above=0)
        self.axis: Axis = validate_axis(axis)

    @property
    def group(self) -> "GroupPenalty":
        """The penalty itself."""
        return self

    @property
    def is_norm(self) -> bool:
        """Whether it is `weight(shape) * sum_g ||w_g||_2`."""
        return False

    def weight(self, shape) -> float:
        """Returns what a group counts in a kernel, by the size of the group.

        The value is a multiple of it. Without an influence of the size it is
        the factor.

        Args:
            shape: The kernel's shape.
        """
        return self.factor

    def resized(self, before, after):
        """Returns the penalty with the weight of groups that they had."""
        weights = self.weight(before), self.weight(after)
        if weights[0] == weights[1]:
            return self
        factor = self.factor * weights[0] / weights[1]
        config = self.get_config() | {"factor": factor}
        return type(self).from_config(config)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "axis": self.axis}


@keras.saving.register_keras_serializable("keras_sgl0")
class GroupLasso(GroupPenalty):
    r"""Group lasso: `GL(W) = factor * sum_g sqrt(|g|) * ||w_g||_2`.

    It draws whole neurons to zero together. The gradient at a group of exact
    zeros is 0, not NaN, so a dead neuron stays dead.

    The proximal operator shrinks each group:
    `x_g = max(0, 1 - step * factor * sqrt(|g|) / ||w_g||) * w_g`.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.
        axis: The group axis of the kernel, as in `GroupPenalty`.

    Raises:
        ValueError: As in `GroupPenalty`.

    Example:
        >>> layer = keras.layers.Dense(10, kernel_regularizer=GroupLasso(1e-4))
        >>> GroupLasso(1.0)(keras.ops.array([[3.0, 0.0], [4.0, 0.0]]))
        7.0710678  # sqrt(2) * 5

    Reference:
        Bui et al., arXiv 1912.07868, eq. 1.
    """

    @property
    def is_norm(self) -> bool:
        """Whether it is `weight(shape) * sum_g ||w_g||_2`.

        A subclass with another weight overrides `weight` alone; one that
        overrides the value or the proximal operator is something else.
        """
        return keeps_methods(self, GroupLasso, "__call__", "prox")

    def weight(self, shape) -> float:
        """Returns `factor * sqrt(|g|)`, what a group's norm counts.

        Args:
            shape: The kernel's shape.
        """
        return self.factor * group_size(shape, self.axis) ** 0.5

    def __call__(self, w):
        """Returns the penalty of `w`."""
        return self.weight(w.shape) * ops.sum(group_norms(w, self.axis))

    def prox(self, w, step):
        """Returns `w` with every group shrunk, the small ones to zero."""
        return shrink_groups(w, self.axis, step * self.weight(w.shape))


@keras.saving.register_keras_serializable("keras_sgl0")
class ExclusiveLasso(GroupPenalty):
    """Exclusive lasso: `factor / 2 * sum_g ||w_g||_1^2`.

    Weights of a group compete, so that groups come to use different inputs.
    It kills weights, not groups.

    With `t = step * factor`, the proximal operator is soft thresholding of
    each group at `max_k t c_k / (1 + t k)`, where `c_k` is the sum of the
    group's `k` largest sizes.

    Args:
        factor: The coefficient. Greater than 0.
        axis: The group axis of the kernel, as in `GroupPenalty`.

    Raises:
        ValueError: As in `GroupPenalty`.

    Example:
        >>> ExclusiveLasso(1.0)(keras.ops.array([[3.0, 0.0], [-4.0, 1.0]]))
        25.0  # (7^2 + 1^2) / 2

    Reference:
        Yoon, Hwang: Combined group and exclusive sparsity for deep neural
        networks, ICML 2017, eq. 3.
    """

    ranks_by = "weight"

    def __call__(self, w):
        """Returns the penalty of `w`."""
        sums = ops.sum(ops.abs(by_group(w, self.axis)), axis=1)
        return 0.5 * self.factor * ops.sum(ops.square(sums))

    def prox(self, w, step):
        """Returns `w` with each group soft thresholded at its own level."""
        t = step * self.factor
        largest, count = sorted_sizes(w, self.axis)
        levels = t * ops.cumsum(largest, axis=1) / (1 + t * count)
        level = per_weight(ops.max(levels, axis=1), w.shape, self.axis)
        size = ops.abs(upcast(w))
        return signed(w, size <= level, size - level)


@keras.saving.register_keras_serializable("keras_sgl0")
class CGES(GroupPenalty):
    r"""Combined group and exclusive sparsity, as Bui et al. compare with it.

    `factor * sum_g [(1 - mu) ||w_g||_2 + mu / 2 ||w_g||_1^2]`, without the
    `sqrt(|g|)` of the group lasso. The papers give layer `k` of `L` (counted
    from 0) `mu = k / L`: features are shared at the bottom and compete at the
    top.

    The proximal operator is its authors': that of the group part, then that of
    the exclusive part (exact, where theirs is approximate). The two in turn
    are not the minimiser of the sum.

    Args:
        factor: The coefficient. Greater than 0.
        mu: The share of the exclusive part, in [0, 1].
        axis: The group axis of the kernel, as in `GroupPenalty`.

    Raises:
        ValueError: As in `GroupPenalty`, or if `mu` is not in [0, 1].

    Example:
        >>> model = keras.applications.MobileNetV2(weights=None)
        >>> regularize(model, lambda depth: CGES(1e-5, mu=depth))

    Reference:
        Yoon, Hwang, ICML 2017, eq. 5; Bui et al., arXiv 1912.07868, section 5.
    """

    depth_argument = "mu"
    ranks_by = "weight"

    def __init__(self, factor: float, mu: float = 0.5, axis: Axis = -1):
        super().__init__(factor, axis)
        self.mu = finite_float("mu", mu, at_least=0, at_most=1)

    def __call__(self, w):
        """Returns the penalty of `w`."""
        norms = ops.sum(group_norms(w, self.axis))
        penalty = self.factor * (1 - self.mu) * norms
        if self.mu:
            penalty += self._exclusive()(w)
        return penalty

    def prox(self, w, step):
        """Returns the group step, then the exclusive step."""
        amount = step * self.factor * (1 - self.mu)
        x = shrink_groups(w, self.axis, amount)
        return self._exclusive().prox(x, step) if self.mu else x

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "mu": self.mu, "axis": self.axis}

    def _exclusive(self):
        return ExclusiveLasso(self.factor * self.mu, self.axis)


def shrinkage(norms, amount):
    """Returns `(1 - amount / norm)_+`, by what a step multiplies each group.

    Args:
        norms: The norm of each group.
        amount: By how much each norm shrinks, a number or tensor.
    """
    dead = norms <= amount
    safe = ops.where(dead, ops.ones_like(norms), norms)
    return ops.where(dead, ops.zeros_like(norms), 1 - amount / safe)


def shrink_groups(w, axis: Axis, amount):
    """Returns the proximal operator of `amount * sum_g ||w_g||_2` at `w`.

    Args:
        w: Tensor or variable, a kernel.
        axis: The group axis.
        amount: A number or scalar tensor: by how much each norm shrinks.
    """
    scale = shrinkage(group_norms(w, axis), amount)
    x = upcast(w) * per_weight(scale, w.shape, axis)
    return ops.cast(x, keras.backend.standardize_dtype(w.dtype))
