"""Nonconvex penalties on single weights, between l0 and l1.

Each has its proximal operator beside it: `prox(w, step) = argmin_x step * r(x)
+ ||x - w||^2 / 2`, where `r` has its `factor` in it.
"""

import keras
from keras import ops

from keras_sgl0.groups import safe_norm, signed, upcast, wide_dtype
from keras_sgl0.regularizers.elementwise import ElementwisePenalty
from keras_sgl0.utils.validation import finite_float


@keras.saving.register_keras_serializable("keras_sgl0")
class TransformedL1(ElementwisePenalty):
    r"""Transformed l1: `r(W) = factor * sum_i (a + 1) |w_i| / (a + |w_i|)`.

    It lies between l0 (`a -> 0`) and l1 (`a -> inf`). The proximal operator
    is 0 up to its threshold and above it the largest root of a cubic: with
    `t = step * factor` and `q = 27 t a (a + 1) / (4 (a + |w|)^3)`,
    `|x| = |w| - 4/3 (a + |w|) sin^2(arcsin(sqrt(q)) / 3)`.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.
        a: The shape. Greater than 0.

    Raises:
        ValueError: If `factor` or `a` is not a finite number greater than 0.

    Example:
        >>> SparseGroup(GroupLasso(1e-5), TransformedL1(1e-5, a=1.0))

    Reference:
        Zhang, Xin: Minimization of transformed l1 penalty, Math. Program.
        169, 2018, theorem 3.1 (its cosine written without cancellation).
    """

    def __init__(self, factor: float, a: float = 1.0):
        super().__init__(factor)
        self.a = finite_float("a", a, above=0)

    def __call__(self, w):
        """Returns the penalty of `w`."""
        size = ops.abs(upcast(w))
        # Not (a + 1) |w| / (a + |w|): that overflows where |w| is huge.
        return self.factor * (self.a + 1) * ops.sum(size / (self.a + size))

    def threshold(self, step):
        """Returns the largest size that becomes 0: two cases of one jump."""
        t = self.factor * upcast(ops.convert_to_tensor(step))
        continuous = t * (self.a + 1) / self.a
        jumping = ops.sqrt(2 * t * (self.a + 1)) - self.a / 2
        small = t <= self.a**2 / (2 * (self.a + 1))
        return ops.where(small, continuous, jumping)

    def prox(self, w, step):
        """Returns the minimiser, 0 up to `threshold(step)`."""
        wide = upcast(w)
        size = ops.abs(wide)
        step = ops.convert_to_tensor(step, wide_dtype(w))
        t, shifted = self.factor * step, self.a + size
        q = 6.75 * t * self.a * (self.a + 1) / shifted**3
        q = ops.minimum(q, 1.0)  # it is less than 1 above the threshold
        sine = ops.sin(ops.arcsin(ops.sqrt(q)) / 3)
        kept = size - 4 / 3 * shifted * ops.square(sine)
        return signed(w, size <= self.threshold(step), kept)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "a": self.a}


@keras.saving.register_keras_serializable("keras_sgl0")
class LHalf(ElementwisePenalty):
    r"""The l1/2 penalty: `r(W) = factor * sum_i |w_i|^(1/2)`.

    The proximal operator is half thresholding: with `t = step * factor`, 0 up
    to `1.5 t^(2/3)`, above it
    `2/3 w (1 + cos(2/3 arccos(-(3^1.5 / 4) t |w|^-1.5)))`.
    The gradient is taken as 0 at 0, where the penalty has none.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.

    Raises:
        ValueError: If `factor` is not a finite number greater than 0.

    Example:
        >>> LHalf(1.0).prox(keras.ops.array([1.5, 3.0]), step=1.0)
        [0., 2.6954532]

    Reference:
        Xu, Chang, Xu, Zhang: L1/2 regularization, a thresholding
        representation theory, IEEE TNNLS 23, 2012.
    """

    def __call__(self, w):
        """Returns the penalty of `w`."""
        size = ops.abs(upcast(w))
        alive = size > 0
        root = ops.sqrt(ops.where(alive, size, ops.ones_like(size)))
        return self.factor * ops.sum(
            ops.where(alive, root, ops.zeros_like(size))
        )

    def threshold(self, step):
        """Returns `1.5 * (step * factor)^(2/3)`."""
        t = self.factor * upcast(ops.convert_to_tensor(step))
        return 1.5 * t ** (2 / 3)

    def prox(self, w, step):
        """Returns the minimiser, 0 up to `threshold(step)`."""
        wide = upcast(w)
        step = ops.convert_to_tensor(step, wide_dtype(w))
        size, threshold = ops.abs(wide), self.threshold(step)
        dead = size <= threshold
        safe = ops.where(dead, ops.ones_like(size) * threshold, size)
        angle = ops.arccos(-(3**1.5 / 4) * self.factor * step * safe**-1.5)
        kept = 2 / 3 * safe * (1 + ops.cos(2 / 3 * angle))
        return signed(w, dead, kept)


@keras.saving.register_keras_serializable("keras_sgl0")
class SCAD(ElementwisePenalty):
    r"""Smoothly clipped absolute deviation, at level `l = factor`.

    `r(W) = sum_i` of `l |w|` where `|w| <= l`,
    `(2 a l |w| - w^2 - l^2) / (2 (a - 1))` where `l < |w| <= a l`,
    `l^2 (a + 1) / 2` beyond: l1 for small weights, constant for large ones.

    `factor` is the level, not a multiplier of a fixed shape. The proximal
    operator is single-valued for `step < a - 1`: soft thresholding at
    `step * l` up to `(1 + step) l`, `((a - 1) w - sign(w) a step l) /
    (a - 1 - step)` up to `a l`, the identity beyond.

    Args:
        factor: The level lambda. Greater than 0.
        a: Where the penalty becomes constant, in levels. Greater than 2, and
            greater than `1 + step` for the proximal operator.

    Raises:
        ValueError: If an argument is out of range, or `step` in `prox`.

    Example:
        >>> SCAD(1.0).prox(keras.ops.array([0.5, 3.0, 5.0]), step=1.0)
        [0., 2.5882353, 5.]

    Reference:
        Fan, Li: Variable selection via nonconcave penalized likelihood, JASA
        96, 2001; a = 3.7 is theirs.
    """

    def __init__(self, factor: float, a: float = 3.7):
        super().__init__(factor)
        self.a = finite_float("a", a, above=2)

    def __call__(self, w):
        """Returns the penalty of `w`."""
        size, level, a = ops.abs(upcast(w)), self.factor, self.a
        # The middle piece's argument is clipped: no overflow beyond it.
        inner = ops.clip(size, level, a * level) - level
        quadratic = level * inner - ops.square(inner) / (2 * (a - 1))
        return ops.sum(level * ops.minimum(size, level) + quadratic)

    def validate_step(self, step):
        """Returns `step` if it is less than `a - 1`."""
        return _step_below(step, self.a - 1, "a - 1", self)

    def threshold(self, step):
        """Returns `step * factor`."""
        return self.factor * self.validate_step(step)

    def prox(self, w, step):
        """Returns the minimiser, 0 up to `threshold(step)`."""
        threshold = self.threshold(step)
        wide = upcast(w)
        size, level, a = ops.abs(wide), self.factor, self.a
        soft = size - threshold
        middle = ((a - 1) * size - a * threshold) / (a - 1 - step)
        kept = ops.where(size <= level + threshold, soft, middle)
        kept = ops.where(size <= a * level, kept, size)
        return signed(w, size <= threshold, kept)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "a": self.a}


@keras.saving.register_keras_serializable("keras_sgl0")
class MCP(ElementwisePenalty):
    r"""Minimax concave penalty, at level `l = factor`.

    `r(W) = sum_i` of `l |w| - w^2 / (2 gamma)` where `|w| <= gamma l`,
    `gamma l^2 / 2` beyond.

    `factor` is the level, not a multiplier of a fixed shape. The proximal
    operator is single-valued for `step < gamma` ("firm thresholding"): 0 up to
    `step * l`, `sign(w) (|w| - step l) / (1 - step / gamma)` up to `gamma l`,
    the identity beyond.

    Args:
        factor: The level lambda. Greater than 0.
        gamma: Where the penalty becomes constant, in levels. Greater than 0,
            and greater than `step` for the proximal operator.

    Raises:
        ValueError: If an argument is out of range, or `step` in `prox`.

    Example:
        >>> MCP(1.0).prox(keras.ops.array([0.5, 2.0, 5.0]), step=1.0)
        [0., 1.5, 5.]

    Reference:
        Zhang: Nearly unbiased variable selection under minimax concave
        penalty, Ann. Statist. 38, 2010.
    """

    def __init__(self, factor: float, gamma: float = 3.0):
        super().__init__(factor)
        self.gamma = finite_float("gamma", gamma, above=0)

    def __call__(self, w):
        """Returns the penalty of `w`."""
        size = ops.minimum(ops.abs(upcast(w)), self.gamma * self.factor)
        return ops.sum(self.factor * size - ops.square(size) / (2 * self.gamma))

    def validate_step(self, step):
        """Returns `step` if it is less than `gamma`."""
        return _step_below(step, self.gamma, "gamma", self)

    def threshold(self, step):
        """Returns `step * factor`."""
        return self.factor * self.validate_step(step)

    def prox(self, w, step):
        """Returns the minimiser, 0 up to `threshold(step)`."""
        threshold = self.threshold(step)
        size = ops.abs(upcast(w))
        firm = (size - threshold) / (1 - step / self.gamma)
        kept = ops.where(size <= self.gamma * self.factor, firm, size)
        return signed(w, size <= threshold, kept)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "gamma": self.gamma}


@keras.saving.register_keras_serializable("keras_sgl0")
class L1MinusL2(ElementwisePenalty):
    r"""The l1-l2 penalty: `r(W) = factor * (||W||_1 - alpha * ||W||_2)`.

    The norms are those of the whole kernel, so this is no sum over weights,
    but it is used like one. With `t = step * factor`, `m = max |w|` and
    `z = soft(w, t)`, the proximal operator is `z (||z|| + alpha t) / ||z||` if
    `m > t`; if `(1 - alpha) t < m <= t`, the largest weight alone, with size
    `m + (alpha - 1) t`; else 0.

    Args:
        factor: The coefficient, lambda in the papers. Greater than 0.
        alpha: The share of the l2 norm, greater than 0 and at most 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> L1MinusL2(1.0).prox(keras.ops.array([0.5, 3.0]), step=1.0)
        [0., 3.]

    Reference:
        Lou, Yan: Fast L1-L2 minimization via a proximal operator, J. Sci.
        Comput. 74, 2018, lemma 1.
    """

    def __init__(self, factor: float, alpha: float = 1.0):
        super().__init__(factor)
        self.alpha = finite_float("alpha", alpha, above=0, at_most=1)

    def __call__(self, w):
        """Returns the penalty of `w`."""
        wide = upcast(w)
        l1 = ops.sum(ops.abs(wide))
        return self.factor * (l1 - self.alpha * safe_norm(wide))

    def threshold(self, step):
        """Returns `step * factor`; if no weight exceeds it, one may stay."""
        return self.factor * step

    def prox(self, w, step):
        """Returns the minimiser; of equally large weights the first is kept."""
        wide = upcast(w)
        size, t = ops.abs(wide), self.threshold(step)
        soft = ops.where(size <= t, ops.zeros_like(size), size - t)
        norm = safe_norm(soft)
        alone = norm <= 0  # at most the largest weight is left
        scale = self.alpha * t / ops.where(alone, ops.ones_like(norm), norm)
        flat = ops.reshape(size, (-1,))
        first = ops.one_hot(ops.argmax(flat), flat.shape[0], dtype=flat.dtype)
        largest = ops.maximum(ops.max(flat) + (self.alpha - 1) * t, 0)
        one = largest * ops.reshape(first, size.shape)
        kept = ops.where(alone, one, soft * (1 + scale))
        return signed(w, kept <= 0, kept)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "alpha": self.alpha}


def _step_below(step, bound, name, penalty):
    """Checks the domain of a proximal operator where `step` is a number."""
    if isinstance(step, int | float) and step >= bound:
        raise ValueError(
            f"The proximal operator of {type(penalty).__name__} needs `step` "
            f"less than `{name}`, here {bound:g}; with `VariableSplitting`, "
            f"`beta` greater than {1 / bound:g}. Received: step={step!r}"
        )
    return step
