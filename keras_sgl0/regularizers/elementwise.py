"""Penalties on single weights, each with its proximal operator beside it."""

import abc

import keras
from keras import ops

from keras_sgl0.groups import upcast
from keras_sgl0.validation import finite_float


class ElementwisePenalty(keras.regularizers.Regularizer, abc.ABC):
    """Base class of `r(W) = factor * sum_i p(w_i)`, a sum over single weights.

    A subclass gives the value, the proximal operator and its threshold. What
    `VariableSplitting` can train is exactly what has these three.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.

    Raises:
        ValueError: If `factor` is not a finite number greater than 0.
    """

    def __init__(self, factor: float):
        self.factor = finite_float("factor", factor, above=0)

    @abc.abstractmethod
    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""

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
        """Returns the largest `|w|` that `prox(w, step)` sets to zero."""

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

    def __call__(self, w):
        """Returns `factor` times the number of non-zero weights."""
        return self.factor * ops.sum(ops.cast(ops.not_equal(w, 0), "float32"))

    def threshold(self, step):
        """Returns `sqrt(2 * step * factor)`; weights of this size become 0."""
        return ops.sqrt(2.0 * self.factor * step)

    def prox(self, w, step):
        """Returns `w` with every `|w| <= threshold(step)` set to zero."""
        kept = ops.abs(upcast(w)) > self.threshold(step)
        return ops.where(kept, w, ops.zeros_like(w))


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
        wide = upcast(w)
        shrunk = ops.maximum(ops.abs(wide) - self.threshold(step), 0)
        dtype = keras.backend.standardize_dtype(w.dtype)
        return ops.cast(ops.sign(wide) * shrunk, dtype)
