"""Penalties on single weights, each with its proximal operator beside it.

`prox(w, step) = argmin_x step * r(x) + ||x - w||^2 / 2`, where `r` has its
`factor` in it. All operators are computed in at least float32 and returned in
the dtype of `w`.
"""

import abc
import functools
from collections.abc import Callable

import keras
from keras import ops

from keras_sgl0.groups import (
    per_weight,
    signed,
    sorted_sizes,
    upcast,
    wide_dtype,
)
from keras_sgl0.regularizers.base import Penalty, keeps_methods
from keras_sgl0.regularizers.group import GroupLasso, shrink_groups
from keras_sgl0.utils.validation import finite_float


class ElementwisePenalty(Penalty):
    """Base class of `r(W) = factor * sum_i p(w_i)`, a sum over single weights.

    A subclass gives the value, the proximal operator and its threshold. What
    `VariableSplitting` can train is exactly what has these three.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.

    Raises:
        ValueError: If `factor` is not a finite number greater than 0.
    """

    precedes_groups: bool = False
    """Whether the operator of the sum with a norm of groups is that of this
    penalty, then that of the groups."""

    def __init__(self, factor: float):
        self.factor: float = finite_float("factor", factor, above=0)

    @property
    def element(self) -> "ElementwisePenalty":
        """The penalty itself: V carries all of it."""
        return self

    @abc.abstractmethod
    def prox(self, w, step):
        """Returns `argmin_x step * r(x) + ||x - w||^2 / 2` in the dtype of `w`.

        Args:
            w: Tensor or variable of any shape.
            step: A number or scalar tensor greater than 0. The penalty's own
                `factor` is part of `r` and must not be multiplied in again.
        """

    @abc.abstractmethod
    def threshold(self, step):
        """Returns the largest `|w|` that `prox(w, step)` sets to zero.

        Args:
            step: A number or scalar tensor greater than 0.
        """

    def envelope(self, w, step) -> tuple:
        """Returns `min_v r(v) + ||v - w||^2 / (2 * step)` and its gradient.

        It is the Moreau envelope. With `v = prox(w, step)` the gradient is
        `(w - v) / step`, given as a function of what to multiply it by.

        Args:
            w: Tensor in at least float32.
            step: A scalar tensor greater than 0.
        """
        v = self.prox(w, step)
        gap = w - v
        value = self(v) + 0.5 / step * ops.sum(ops.square(gap))
        return value, lambda upstream: (upstream / step) * gap

    def joint_prox(self, group: GroupLasso) -> Callable | None:
        """Returns the proximal operator of `group + self`, `None` if unknown.

        It is a function of `w` and `step`, as `prox` is.

        Args:
            group: A penalty that is a multiple of the groups' l2 norms.
        """
        return None

    ranks_with_groups: bool = False
    """Whether in a sum with a norm of groups each group keeps its largest
    weights, the number of which `smallest_kept` finds."""

    def smallest_kept(self, largest, rest, price, step):
        """Returns for each group the size of the smallest weight it keeps.

        Args:
            largest: The sizes of each group's weights, falling, of shape
                `(groups, weights)`.
            rest: The sum of squares of each group's members to which this
                penalty does not apply, of shape `(groups, 1)`, or a number.
            price: By how much a step shrinks the norm of a group; a number, or
                of shape `(groups, 1)`.
            step: A number or scalar tensor greater than 0.
        """
        raise NotImplementedError

    def validate_step(self, step):
        """Returns `step` if the proximal operator is defined there.

        Args:
            step: A number greater than 0, or a tensor, which cannot be checked.

        Raises:
            ValueError: If `step` is a number too large for this penalty.
        """
        return step

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor}


@keras.saving.register_keras_serializable("keras_sgl0")
class L0(ElementwisePenalty):
    r"""The l0 "norm": `r(W) = factor * #{i : w_i != 0}`.

    Its gradient is zero almost everywhere, so as a plain Keras regularizer it
    shows in the loss and changes nothing. Train it with `VariableSplitting`.

    The proximal operator is hard thresholding (Bui et al., eq. 10):
    `prox(w, step) = w if |w| > sqrt(2 * step * factor) else 0`.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.

    Raises:
        ValueError: If `factor` is not a finite number greater than 0.

    Example:
        >>> L0(0.5).prox(keras.ops.array([0.9, -1.1]), step=1.0)
        [0., -1.1]

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 3 and 10.
    """

    has_subgradient = False

    def __call__(self, w):
        """Returns `factor` times the number of non-zero weights."""
        alive = ops.cast(ops.not_equal(w, 0), wide_dtype(w))
        return self.factor * ops.sum(alive)

    def threshold(self, step):
        """Returns `sqrt(2 * step * factor)`; weights of this size become 0."""
        return ops.sqrt(2.0 * self.factor * step)

    def prox(self, w, step):
        """Returns `w` with every `|w| <= threshold(step)` set to zero."""
        w = ops.convert_to_tensor(w)
        step = ops.convert_to_tensor(step, wide_dtype(w))
        dead = ops.abs(upcast(w)) <= self.threshold(step)
        return ops.where(dead, ops.zeros_like(w), w)

    def envelope(self, w, step):
        """Returns `sum_i min(factor, w_i^2 / (2 * step))` and its gradient."""
        if not keeps_methods(self, L0, "__call__", "prox", "threshold"):
            return super().envelope(w, step)
        most = 2.0 * self.factor * step
        squares = ops.square(w)
        value = ops.sum(ops.minimum(squares, most)) * (0.5 / step)

        def gradient(upstream):
            # Each line is a pass over the weights; the squares are there.
            dead = ops.cast(squares <= most, w.dtype)
            return (w * dead) * (upstream / step)

        return value, gradient

    @property
    def ranks_with_groups(self) -> bool:
        """Whether `smallest_kept` holds; a subclass may have another value."""
        return keeps_methods(self, L0, "__call__", "prox")

    def joint_prox(self, group):
        known = self.ranks_with_groups
        return functools.partial(self._best_of_groups, group) if known else None

    def _best_of_groups(self, group, w, step):
        """Returns the best `k` weights of each group, shrunk with it."""
        w = ops.convert_to_tensor(w)
        price = step * group.weight(w.shape)
        largest, _ = sorted_sizes(w, group.axis)
        smallest = self.smallest_kept(largest, 0.0, price, step)
        dead = ops.abs(upcast(w)) < per_weight(smallest, w.shape, group.axis)
        x = ops.where(dead, ops.zeros_like(w), w)
        return shrink_groups(x, group.axis, price)

    def smallest_kept(self, largest, rest, price, step):
        """Returns the smallest size that each group keeps, infinity for none.

        With its `k` largest weights a group of norm `n_k` gains
        `max(0, n_k - price)^2 / 2 - step * factor * k`. The best `k` is found
        exactly.
        """
        cost = step * self.factor

        def gains(squares, count):
            beyond = ops.maximum(ops.sqrt(squares) - price, 0)
            return 0.5 * ops.square(beyond) - cost * count

        rest = ops.zeros_like(largest[:, :1]) + rest
        count = ops.arange(1, largest.shape[1] + 1, dtype=largest.dtype)
        gained = gains(rest + ops.cumsum(ops.square(largest), axis=1), count)
        best = ops.argmax(gained, axis=1)
        smallest = ops.take_along_axis(largest, best[:, None], axis=1)[:, 0]
        some = ops.max(gained, axis=1) > gains(rest, 0)[:, 0]
        return ops.where(some, smallest, float("inf"))


@keras.saving.register_keras_serializable("keras_sgl0")
class L1(ElementwisePenalty):
    """The l1 norm: `r(W) = factor * sum_i |w_i|`.

    The proximal operator is soft thresholding:
    `prox(w, step) = sign(w) * max(|w| - step * factor, 0)`.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.

    Raises:
        ValueError: If `factor` is not a finite number greater than 0.

    Example:
        >>> L1(0.5).prox(keras.ops.array([0.25, -1.5]), step=1.0)
        [0., -1.]

    Reference:
        Bui et al., arXiv 1912.07868, eq. 2.
    """

    def __call__(self, w):
        """Returns `factor` times the sum of absolute values."""
        return self.factor * ops.sum(ops.abs(upcast(w)))

    def threshold(self, step):
        """Returns `step * factor`; weights of this size become 0."""
        return self.factor * step

    def prox(self, w, step):
        """Returns `w` drawn towards zero by `threshold(step)`."""
        size = ops.abs(upcast(w))
        threshold = self.threshold(step)
        return signed(w, size <= threshold, size - threshold)

    @property
    def precedes_groups(self) -> bool:
        """Whether soft thresholding comes first: not in every subclass."""
        return keeps_methods(self, L1, "__call__", "prox")

    def joint_prox(self, group):
        if not self.precedes_groups:
            return None
        return lambda w, step: group.prox(self.prox(w, step), step)
