"""Counts what is zero, and sets what is nearly zero to zero.

The definitions are those of Bui et al. (arXiv 1912.07868):

* a **weight** is zero where `|w| < tolerance`; *weight sparsity* is their share
  among all trainable parameters, biases included (431,080 for LeNet-5-Caffe).
  The figure over kernels alone is given beside it.
* a **neuron** (a group of a kernel) is dead where the mean of `|w|` over it is
  below `tolerance`; *neuron sparsity* is their share among all groups.

The group axis of a kernel is that of its penalty; a kernel without one is
grouped by `"auto"`, the paper's neurons, as its layer needs it. `tolerance=0`
counts exact zeros. Frozen layers are left out, as Keras leaves them out of
`trainable_variables`.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import (
    Axis,
    group_means,
    num_groups,
    per_weight,
    resolve_axis,
    upcast,
    validate_axis,
)
from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.layer_table import WEIGHTS, layouts_of
from keras_sgl0.network.sparsity_report import KernelSparsity, SparsityReport
from keras_sgl0.utils.validation import finite_float, require, require_built

TOLERANCE = 1e-5
_KERNEL_NAMES = ("kernel", "embeddings")


def kernels(model: keras.Model) -> list:
    """Returns the trainable variables of a model that have groups.

    These are the kernels and embeddings of its layers, those of nested models
    too, and any other variable with a group penalty.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model is not built or has no trainable kernel.
    """
    require_built(model)
    found = _kernels(model)
    require(found, "model", "a model with a trainable kernel", model)
    return found


def penalty_axis(variable) -> Axis | None:
    """Returns the group axis of a variable's penalty, `None` without groups.

    Args:
        variable: A variable.
    """
    # Regularizers of Keras itself have no groups and no such attribute.
    return getattr(own_penalty(variable), "axis", None)


def own_penalty(variable):
    """Returns the regularizer of a variable, `None` without one.

    Args:
        variable: A variable. Where callbacks lend it a regularizer during
            `fit`, the original one counts.
    """
    regularizer = variable.regularizer
    while hasattr(regularizer, "original"):
        regularizer = regularizer.original
    return regularizer


def neuron_axes(model: keras.Model, axis: Axis | None = None) -> dict[int, int]:
    """Returns the axis by which a kernel's neurons are counted, by its `id`.

    Args:
        model: A built model; it may be without kernel.
        axis: The group axis, or `None` for that of each kernel's penalty and,
            where it has none, `"auto"`. What `-1` and `"auto"` stand for
            depends on the layer, see `network.layer_table`.

    Raises:
        ValueError: If `axis` is unknown or out of range for a kernel.
    """
    known, axes = layouts_of(model, WEIGHTS), {}
    for kernel in _kernels(model):
        own = penalty_axis(kernel) if axis is None else None
        if own is None:
            own = validate_axis("auto" if axis is None else axis)
            if id(kernel) in known:
                own = known[id(kernel)].meant(own)
        axes[id(kernel)] = resolve_axis(kernel.shape, own)
    return axes


def is_zero(w, tolerance: float = TOLERANCE):
    """Returns where `|w| < tolerance`, or `w == 0` if `tolerance` is 0.

    Args:
        w: Tensor or variable.
        tolerance: At least 0.
    """
    # `|w| < 0` is never true. The smallest normal float32 stands in for a
    # tolerance of 0: no float32 but 0 and subnormal numbers is below it.
    limit = max(tolerance, float(np.finfo("float32").tiny))
    w = upcast(w)
    # Not by `abs`, which takes the memory of a large kernel once more.
    return ops.logical_and(w < limit, w > -limit)


def dead_groups(kernel, axis: Axis, tolerance: float = TOLERANCE):
    """Returns which groups have a mean of `|w|` below `tolerance`.

    Args:
        kernel: Tensor or variable.
        axis: The group axis.
        tolerance: At least 0.

    Returns:
        A boolean vector with one entry a group.
    """
    return is_zero(group_means(kernel, axis), tolerance)


class SparsityCounter:
    """Counts a model's zeros and dead groups, in one compiled call.

    Args:
        model: A built model.
        tolerance: Below this a weight counts as zero. At least 0.
        axis: The group axis, or `None` for that of each kernel's penalty.

    Raises:
        ValueError: If an argument is out of range or the model has no
            trainable kernel.
    """

    def __init__(
        self,
        model: keras.Model,
        tolerance: float = TOLERANCE,
        axis: Axis | None = None,
    ):
        self.tolerance = finite_float("tolerance", tolerance, at_least=0)
        self._kernels = kernels(model)
        self._axes = list(neuron_axes(model, axis).values())
        inside = {id(k) for k in self._kernels}
        self._others = [
            v for v in model.trainable_variables if id(v) not in inside
        ]
        self._count = compiled(self._counts)

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of parameters, and of groups."""
        pairs = zip(self._kernels, self._axes, strict=True)
        groups = sum(num_groups(kernel.shape, axis) for kernel, axis in pairs)
        return sum(map(_size, self._kernels + self._others)), groups

    def __call__(self) -> SparsityReport:
        """Returns the report on the model as it is now."""
        counts = ops.convert_to_numpy(self._count()).astype(int).tolist()
        number = len(self._kernels)
        dead, zero = counts[:number], counts[number : 2 * number]
        rows = tuple(
            KernelSparsity(
                name=kernel.path,
                shape=tuple(kernel.shape),
                axis=axis,
                groups=num_groups(kernel.shape, axis),
                groups_alive=num_groups(kernel.shape, axis) - dead_here,
                weights=_size(kernel),
                weights_alive=_size(kernel) - zero_here,
            )
            for kernel, axis, dead_here, zero_here in zip(
                self._kernels, self._axes, dead, zero, strict=True
            )
        )
        others = sum(map(_size, self._others))
        return SparsityReport(
            kernels=rows,
            other_parameters=others,
            other_parameters_alive=others - sum(counts[2 * number :]),
            tolerance=self.tolerance,
        )

    def _counts(self):
        dead = [
            dead_groups(k, axis, self.tolerance)
            for k, axis in zip(self._kernels, self._axes, strict=True)
        ]
        zero = [
            is_zero(v, self.tolerance) for v in self._kernels + self._others
        ]
        return ops.stack(
            [ops.sum(ops.cast(flags, "int32")) for flags in dead + zero]
        )


def sparsity_report(
    model: keras.Model,
    tolerance: float = TOLERANCE,
    axis: Axis | None = None,
) -> SparsityReport:
    """Returns what is alive in a model, kernel by kernel and in total.

    Args:
        model: A built model.
        tolerance: A weight counts as zero where `|w| < tolerance`, a neuron
            as dead where the mean of `|w|` over it is. `0` counts exact zeros.
        axis: The group axis for every kernel, or `None` for that of each
            kernel's penalty and, where it has none, `"auto"`. What `-1` and
            `"auto"` stand for depends on the layer, see `network.layer_table`.

    Returns:
        A `SparsityReport`.

    Raises:
        ValueError: If `tolerance` is negative, `axis` unknown or out of range
            for a kernel, or the model not built or without trainable kernel.

    Example:
        >>> print(sparsity_report(model))
    """
    return SparsityCounter(model, tolerance, axis)()


def weight_sparsity(model: keras.Model, tolerance: float = TOLERANCE) -> float:
    """Returns the share of a model's parameters with `|w| < tolerance`.

    All trainable parameters count, biases included, as in Bui et al.

    Args:
        model: A built model.
        tolerance: At least 0; `0` counts exact zeros.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: As in `sparsity_report`.

    Example:
        >>> weight_sparsity(apply_threshold(model), tolerance=0)
    """
    return sparsity_report(model, tolerance).weight_sparsity


def neuron_sparsity(
    model: keras.Model,
    tolerance: float = TOLERANCE,
    axis: Axis | None = None,
) -> float:
    """Returns the share of a model's groups with a mean `|w| < tolerance`.

    Args:
        model: A built model.
        tolerance: At least 0; `0` counts groups of exact zeros.
        axis: The group axis, as in `sparsity_report`.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: As in `sparsity_report`.

    Example:
        >>> neuron_sparsity(apply_threshold(model), tolerance=0)
    """
    return sparsity_report(model, tolerance, axis).neuron_sparsity


def apply_threshold(
    model: keras.Model,
    tolerance: float = TOLERANCE,
    axis: Axis | None = None,
) -> keras.Model:
    """Sets what counts as zero to exactly zero, in place.

    First every trainable parameter with `|w| < tolerance`, biases included;
    then every group of a kernel whose mean of `|w|` is still, or has become,
    less than `tolerance`, so that a neuron counted as dead is one. Doing it
    again changes nothing.

    Args:
        model: A built model.
        tolerance: At least 0; `0` changes nothing.
        axis: The group axis, as in `sparsity_report`.

    Returns:
        The same model.

    Raises:
        ValueError: As in `sparsity_report`.

    Example:
        >>> model.fit(x, y, callbacks=[VariableSplitting(beta=0.01)])
        >>> report = sparsity_report(apply_threshold(model))
    """
    kernels(model)
    thresholded = Thresholded(model, tolerance, axis)
    for variable in model.trainable_variables:
        variable.assign(thresholded(variable))
    return model


class Thresholded:
    """Gives what `apply_threshold` makes of each variable, when it is asked.

    A large model's values are not held a second time.

    Args:
        model: A built model; it may be without kernel.
        tolerance: At least 0; `0` changes nothing.
        axis: The group axis, as in `sparsity_report`.

    Raises:
        ValueError: If `tolerance` is negative, or `axis` unknown or out of
            range for a kernel.
    """

    def __init__(
        self,
        model: keras.Model,
        tolerance: float = TOLERANCE,
        axis: Axis | None = None,
    ):
        self._tolerance = finite_float("tolerance", tolerance, at_least=0)
        self._axes = neuron_axes(model, axis)
        self._trainable = {id(v) for v in model.trainable_variables}

    def __call__(self, variable: keras.Variable):
        """Returns the value of a variable; that of a frozen one as it is.

        Args:
            variable: A variable of the model.
        """
        w = ops.convert_to_tensor(variable)
        if id(variable) not in self._trainable or not self._tolerance:
            return w
        zero = ops.cast(0, w.dtype)
        w = ops.where(is_zero(w, self._tolerance), zero, w)
        if id(variable) in self._axes:
            own = self._axes[id(variable)]
            dead = dead_groups(w, own, self._tolerance)
            w = ops.where(per_weight(dead, w.shape, own), zero, w)
        return w


def _kernels(model) -> list:
    return [
        v
        for v in model.trainable_variables
        if (len(v.shape) >= 2 and v.name.endswith(_KERNEL_NAMES))
        or penalty_axis(v) is not None
    ]


def _size(variable) -> int:
    return math.prod(variable.shape)
