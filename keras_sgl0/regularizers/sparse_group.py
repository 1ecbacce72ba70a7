"""Sparse group penalties: one on groups plus one on single weights."""

import keras

from keras_sgl0.groups import Axis
from keras_sgl0.regularizers.base import Penalty
from keras_sgl0.regularizers.elementwise import L0, L1, ElementwisePenalty
from keras_sgl0.regularizers.group import GroupLasso, GroupPenalty
from keras_sgl0.regularizers.nonconvex import L1MinusL2, LHalf, TransformedL1
from keras_sgl0.utils.validation import InputError, finite_float, require


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroup(Penalty):
    """Any sparse group penalty, held as its two parts: `group + element`.

    `VariableSplitting` trains it whatever its parts (with `SCAD` and `MCP` if
    beta is large enough), `fit` alone by its subgradient unless `element` is
    `L0`, which has none, and `ProximalStep` where `prox` is known: for
    `GroupLasso` with `L1` (soft thresholding, then the groups) and with `L0`
    (each group keeps its `k` largest weights, the best `k` being found
    exactly).

    Args:
        group: The penalty on groups, e.g. `GroupLasso(factor)`.
        element: The penalty on single weights, e.g. `L0(factor)`.

    Raises:
        ValueError: If `group` is no group penalty or `element` no elementwise
            penalty of this package.

    Example:
        >>> penalty = SparseGroup(GroupLasso(1e-3), L0(1e-4))
        >>> layer = keras.layers.Dense(10, kernel_regularizer=penalty)

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 2 and 3.
    """

    ranks_by = "both"

    def __init__(self, group: GroupPenalty, element: ElementwisePenalty):
        require(
            isinstance(group, GroupPenalty),
            "group",
            "a group penalty such as `GroupLasso`",
            group,
        )
        require(
            isinstance(element, ElementwisePenalty),
            "element",
            "an elementwise penalty such as `L0` or `L1`",
            element,
        )
        self.group: GroupPenalty = group
        self.element: ElementwisePenalty = element

    @property
    def factor(self) -> float | None:
        """The coefficient of both parts, `None` where they have two."""
        same = self.group.factor == self.element.factor
        return self.group.factor if same else None

    @property
    def axis(self) -> Axis:
        """The group axis, that of the group part."""
        return self.group.axis

    @property
    def has_subgradient(self) -> bool:
        """Whether both parts have one."""
        return self.group.has_subgradient and self.element.has_subgradient

    @property
    def has_prox(self) -> bool:
        """Whether the operator of the sum is known for these two parts."""
        return self._joint_prox() is not None

    def _joint_prox(self):
        known = self.group.is_norm
        return self.element.joint_prox(self.group) if known else None

    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""
        return self.group(w) + self.element(w)

    def prox(self, w, step):
        """Returns `argmin_x step * r(x) + ||x - w||^2 / 2`.

        Args:
            w: Tensor or variable, a kernel.
            step: A number or scalar tensor greater than 0.

        Raises:
            ValueError: If it is not known for these two parts.
        """
        operator = self._joint_prox()
        if operator is not None:
            return operator(w, step)
        group, element = type(self.group).__name__, type(self.element).__name__
        raise InputError(
            f"The proximal operator of the sum of {group} and {element} is not "
            "known. It is for `GroupLasso` with `L1` or `L0`. Train this "
            "penalty with `VariableSplitting` instead."
        )

    def resized(self, before, after):
        """Returns the sum with the weight of groups that they had."""
        group = self.group.resized(before, after)
        element = self.element.resized(before, after)
        if group is self.group and element is self.element:
            return self
        return SparseGroup(group, element)

    def get_config(self):
        """Returns the two parts, serialized."""
        return {
            "group": keras.saving.serialize_keras_object(self.group),
            "element": keras.saving.serialize_keras_object(self.element),
        }

    @classmethod
    def from_config(cls, config):
        """Returns the penalty that `get_config` describes."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(part)
                for name, part in config.items()
            }
        )


class _OneFactor(SparseGroup):
    """Group lasso plus an elementwise penalty with the same factor.

    Args:
        factor: The coefficient of both parts.
        axis: The group axis.
        **shape: What else the elementwise penalty takes.
    """

    element_class: type[ElementwisePenalty]

    def __init__(self, factor: float, axis: Axis = -1, **shape: float):
        element = self.element_class(factor, **shape)
        super().__init__(GroupLasso(factor, axis), element)

    def get_config(self):
        """Returns the constructor's arguments."""
        return self.element.get_config() | {"axis": self.axis}

    @classmethod
    def from_config(cls, config):
        """Returns the penalty that `get_config` describes."""
        return cls(**config)


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroupLasso(_OneFactor):
    """Sparse group lasso: `factor * [sum_g sqrt(|g|) ||w_g||_2 + ||W||_1]`.

    It has a subgradient and may be trained without any callback.

    Args:
        factor: The coefficient of both parts. Greater than 0.
        axis: The group axis of the kernel, as in `GroupLasso`.

    Raises:
        ValueError: As in `GroupLasso`.

    Example:
        >>> keras.layers.Dense(10, kernel_regularizer=SparseGroupLasso(1e-4))

    Reference:
        Bui et al., arXiv 1912.07868, eq. 2.
    """

    element_class = L1

    def __init__(self, factor: float, axis: Axis = -1):
        super().__init__(factor, axis)


@keras.saving.register_keras_serializable("keras_sgl0")
class SGL0(_OneFactor):
    """Sparse group l0asso: `factor * [sum_g sqrt(|g|) ||w_g||_2 + ||W||_0]`.

    The l0 part has no gradient: give `VariableSplitting` to `fit`, which
    trains it by variable splitting. Without the callback the layer trains
    as under `GroupLasso`.

    Args:
        factor: The coefficient of both parts. Greater than 0. The paper uses
            `.1 / N` for `N` training images.
        axis: The group axis of the kernel, as in `GroupLasso`.

    Raises:
        ValueError: As in `GroupLasso`.

    Example:
        >>> penalty = SGL0(0.1 / 60000, axis="auto")
        >>> model = LeNet5Caffe((28, 28, 1), 10, kernel_regularizer=penalty)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss)
        >>> splitting = VariableSplitting(beta=25 * penalty.factor)
        >>> model.fit(images, labels, callbacks=[splitting])

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 3 and 4.
    """

    element_class = L0

    def __init__(self, factor: float, axis: Axis = -1):
        super().__init__(factor, axis)


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroupTransformedL1(_OneFactor):
    """Group lasso plus transformed l1, with one factor.

    `factor * [sum_g sqrt(|g|) ||w_g||_2 + sum_i (a + 1) |w_i| / (a + |w_i|)]`

    Args:
        factor: The coefficient of both parts. Greater than 0.
        axis: The group axis of the kernel, as in `GroupLasso`.
        a: The shape of `TransformedL1`. Greater than 0.

    Raises:
        ValueError: As in `GroupLasso` and `TransformedL1`.

    Example:
        >>> SparseGroupTransformedL1(1e-5, a=0.5)

    Reference:
        Named as future work in Bui et al., arXiv 1912.07868, section 6.
    """

    element_class = TransformedL1

    def __init__(self, factor: float, axis: Axis = -1, a: float = 1.0):
        super().__init__(factor, axis, a=a)


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroupLHalf(_OneFactor):
    """Group lasso plus the l1/2 penalty, with one factor.

    `factor * [sum_g sqrt(|g|) ||w_g||_2 + sum_i |w_i|^(1/2)]`

    Args:
        factor: The coefficient of both parts. Greater than 0.
        axis: The group axis of the kernel, as in `GroupLasso`.

    Raises:
        ValueError: As in `GroupLasso`.

    Example:
        >>> SparseGroupLHalf(1e-5)

    Reference:
        Named as future work in Bui et al., arXiv 1912.07868, section 6.
    """

    element_class = LHalf

    def __init__(self, factor: float, axis: Axis = -1):
        super().__init__(factor, axis)


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroupL1MinusL2(_OneFactor):
    """Group lasso plus l1-l2, with one factor.

    `factor * [sum_g sqrt(|g|) ||w_g||_2 + ||W||_1 - alpha ||W||_2]`

    Args:
        factor: The coefficient of both parts. Greater than 0.
        axis: The group axis of the kernel, as in `GroupLasso`.
        alpha: The share of the l2 norm in `L1MinusL2`, in (0, 1].

    Raises:
        ValueError: As in `GroupLasso` and `L1MinusL2`.

    Example:
        >>> SparseGroupL1MinusL2(1e-5)

    Reference:
        Named as future work in Bui et al., arXiv 1912.07868, section 6.
    """

    element_class = L1MinusL2

    def __init__(self, factor: float, axis: Axis = -1, alpha: float = 1.0):
        super().__init__(factor, axis, alpha=alpha)


@keras.saving.register_keras_serializable("keras_sgl0")
class IntegratedTransformedL1(SparseGroup):
    """Integrated transformed l1: transformed l1 and group lasso, weighed.

    `factor * [mu * sum_i (a + 1) |w_i| / (a + |w_i|) + (1 - mu) * sum_g
    sqrt(|g|) ||w_g||_2]`

    Args:
        factor: The coefficient of the whole. Greater than 0.
        mu: The share of transformed l1, between 0 and 1, both excluded.
        a: The shape of `TransformedL1`. Greater than 0.
        axis: The group axis of the kernel, as in `GroupLasso`.

    Raises:
        ValueError: As in `GroupLasso` and `TransformedL1`, or if `mu` is out
            of range.

    Example:
        >>> IntegratedTransformedL1(1e-5, mu=0.3)

    Reference:
        Ma, Miao, Niu, Zhang: Transformed l1 regularization for learning sparse
        deep neural networks, Neural Networks 119, 2019.
    """

    def __init__(
        self, factor: float, mu: float = 0.5, a: float = 1.0, axis: Axis = -1
    ):
        self._factor = finite_float("factor", factor, above=0)
        self.mu = finite_float("mu", mu, above=0, below=1)
        super().__init__(
            GroupLasso((1 - self.mu) * self.factor, axis),
            TransformedL1(self.mu * self.factor, a),
        )

    @property
    def factor(self) -> float:
        """The coefficient of the whole."""
        return self._factor

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "factor": self.factor,
            "mu": self.mu,
            "a": self.element.a,
            "axis": self.axis,
        }

    @classmethod
    def from_config(cls, config):
        """Returns the penalty that `get_config` describes."""
        return cls(**config)
