"""Penalties on groups of weights: group lasso and the sparse group family."""

import keras
from keras import ops

from keras_sgl0.groups import Axis, group_norms, group_size, validate_axis
from keras_sgl0.regularizers.elementwise import L0, L1, ElementwisePenalty
from keras_sgl0.validation import finite_float, require


@keras.saving.register_keras_serializable("keras_sgl0")
class GroupLasso(keras.regularizers.Regularizer):
    r"""Group lasso: `GL(W) = factor * sum_g sqrt(|g|) * ||w_g||_2`.

    It draws whole neurons to zero together. The gradient at a group of exact
    zeros is 0, not NaN, so a dead neuron stays dead.

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

    Example:
        >>> layer = keras.layers.Dense(10, kernel_regularizer=GroupLasso(1e-4))
        >>> GroupLasso(1.0)(keras.ops.array([[3.0, 0.0], [4.0, 0.0]]))
        7.0710678  # sqrt(2) * 5

    Reference:
        Bui et al., arXiv 1912.07868, eq. 1.
    """

    def __init__(self, factor: float, axis: Axis = -1):
        self.factor = finite_float("factor", factor, above=0)
        self.axis = validate_axis(axis)

    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""
        weight = self.factor * group_size(w.shape, self.axis) ** 0.5
        return weight * ops.sum(group_norms(w, self.axis))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {"factor": self.factor, "axis": self.axis}


@keras.saving.register_keras_serializable("keras_sgl0")
class SparseGroup(keras.regularizers.Regularizer):
    """Any sparse group penalty, held as its two parts: `group + element`.

    Args:
        group: The penalty on groups, e.g. `GroupLasso(factor)`.
        element: The penalty on single weights, e.g. `L0(factor)`. It needs a
            proximal operator, so that `VariableSplitting` can train it.

    Raises:
        ValueError: If `group` has no group axis or `element` is no
            elementwise penalty of this package.

    Example:
        >>> penalty = SparseGroup(GroupLasso(1e-3), L0(1e-4))
        >>> layer = keras.layers.Dense(10, kernel_regularizer=penalty)

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 2 and 3.
    """

    def __init__(self, group: GroupLasso, element: ElementwisePenalty):
        require(
            callable(group) and hasattr(group, "axis"),
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
        self.group = group
        self.element = element

    @property
    def axis(self) -> Axis:
        """The group axis, that of the group part."""
        return self.group.axis

    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""
        return self.group(w) + self.element(w)

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
    """A sparse group penalty whose two parts share factor and axis."""

    element_class: type[ElementwisePenalty]

    def __init__(self, factor: float, axis: Axis = -1):
        super().__init__(GroupLasso(factor, axis), self.element_class(factor))

    @property
    def factor(self) -> float:
        """The coefficient of both parts."""
        return self.group.factor

    def get_config(self):
        """Returns the constructor's arguments."""
        return self.group.get_config()

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
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> splitting = VariableSplitting(beta=25 * penalty.factor)
        >>> model.fit(images, labels, callbacks=[splitting])

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 3 and 4.
    """

    element_class = L0
