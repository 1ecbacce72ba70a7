"""Which weights of a kernel form a group, and the norm of a group.

A group is every weight that shares one index along one axis of the kernel: a
neuron. Three ways to name that axis:

* `axis=-1` (the default everywhere): the output axis, for convolutions and
  dense layers alike. One group per output channel or unit.
* any other integer, for kernels of another layout (`Conv2DTranspose` and
  depthwise kernels have their channels at `axis=2`).
* `axis="auto"`: the neurons of Bui et al. (arXiv 1912.07868): a convolution
  kernel is grouped by output channel, a dense kernel (two axes) by **input
  row**, all weights that leave one input unit. Only this reading gives the
  paper's 1,370 neurons of LeNet-5-Caffe.
"""

import math
import numbers

import keras
from keras import ops

from keras_sgl0.utils.gradients import with_gradient
from keras_sgl0.utils.validation import require, sizes

Axis = int | str


def validate_axis(axis: Axis) -> Axis:
    """Returns `axis` if it can name a group axis at all.

    Args:
        axis: An integer or `"auto"`.

    Raises:
        ValueError: If `axis` is neither.
    """
    is_integer = isinstance(axis, numbers.Integral) and not isinstance(
        axis, bool
    )
    require(
        is_integer or (isinstance(axis, str) and axis == "auto"),
        "axis",
        'an integer or "auto"',
        axis,
    )
    return int(axis) if is_integer else axis


def resolve_axis(shape: tuple[int, ...], axis: Axis = -1) -> int:
    """Returns the group axis of a kernel as a non-negative integer.

    Args:
        shape: The kernel's shape, e.g. `(kh, kw, cin, cout)` or `(in, out)`.
        axis: An integer or `"auto"`, see the module's docstring.

    Raises:
        ValueError: If the kernel has no such axis, or if `axis="auto"` and
            the kernel has fewer than two axes.

    Example:
        >>> resolve_axis((800, 500)), resolve_axis((800, 500), "auto")
        (1, 0)
    """
    shape = sizes("shape", shape, at_least=1)
    rank = len(shape)
    axis = validate_axis(axis)
    if isinstance(axis, str):
        require(rank >= 2, "axis", f"an integer for a kernel of {shape}", axis)
        return 0 if rank == 2 else rank - 1
    require(
        -rank <= axis < rank,
        "axis",
        f'an integer in [{-rank}, {rank}) or "auto" for a kernel of shape '
        f"{shape}",
        axis,
    )
    return axis % rank


def num_groups(shape: tuple[int, ...], axis: Axis = -1) -> int:
    """Returns the number of groups of a kernel.

    Args:
        shape: The kernel's shape.
        axis: The group axis.

    Raises:
        ValueError: If the kernel has no such axis.

    Example:
        >>> num_groups((5, 5, 20, 50)), num_groups((800, 500), "auto")
        (50, 800)
    """
    resolved = resolve_axis(shape, axis)
    return tuple(shape)[resolved]


def group_size(shape: tuple[int, ...], axis: Axis = -1) -> int:
    """Returns `|g|`, the number of weights of each group of a kernel.

    Args:
        shape: The kernel's shape.
        axis: The group axis.

    Raises:
        ValueError: If the kernel has no such axis.

    Example:
        >>> group_size((5, 5, 20, 50)), group_size((800, 500), "auto")
        (500, 500)
    """
    number = num_groups(shape, axis)
    return math.prod(shape) // number


def other_axes(shape: tuple[int, ...], axis: Axis = -1) -> tuple[int, ...]:
    """Returns the axes to reduce over so that one number a group remains.

    Args:
        shape: The kernel's shape.
        axis: The group axis.

    Raises:
        ValueError: If the kernel has no such axis.
    """
    kept = resolve_axis(shape, axis)
    return tuple(i for i in range(len(shape)) if i != kept)


def upcast(x):
    """Returns `x` in at least float32.

    Sums of squares overflow float16 at weights of 256 and underflow below
    `2e-4`, so every reduction of this package is done in float32 or better.

    Args:
        x: A tensor or variable of any floating dtype.
    """
    return ops.cast(x, wide_dtype(x))


def wide_dtype(x) -> str:
    """Returns the dtype of `x`, or float32 where it has less than that.

    Args:
        x: A tensor, variable or layer of any floating dtype.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    return "float64" if dtype == "float64" else "float32"


def safe_norm(x, axis=None):
    """Returns Euclidean norms whose gradient at zero is 0, not NaN.

    There is no epsilon: where the norm is not 0, value and gradient are exact.

    Args:
        x: Tensor or variable of any floating dtype.
        axis: The axes to reduce over; default all.

    Returns:
        The norms, in at least float32.
    """
    return safe_sqrt(sum_of_squares(upcast(x), axis))


def sum_of_squares(x, axis=None):
    """Returns sums of squares whose gradient costs one pass over `x`.

    Args:
        x: Tensor of a floating dtype, no variable.
        axis: The axes to reduce over; default all.
    """

    def function(x):
        def chain(upstream):
            # Doubled while it is small.
            twice = 2 * upstream
            if axis is not None:
                twice = ops.expand_dims(twice, axis)
            return x * twice

        return ops.sum(ops.square(x), axis=axis), chain

    return with_gradient(function, x)


def safe_sqrt(squared):
    """Returns square roots whose gradient at zero is 0, not infinite.

    Args:
        squared: Tensor of numbers that are not negative.
    """
    # Both `where` are needed: one keeps the value, one the gradient finite.
    zero = squared <= 0  # not of NaN, which stays NaN
    roots = ops.sqrt(ops.where(zero, ops.ones_like(squared), squared))
    return ops.where(zero, ops.zeros_like(squared), roots)


def group_norms(kernel, axis: Axis = -1):
    """Returns the Euclidean norm `||w_g||_2` of every group.

    Args:
        kernel: Tensor or variable of any floating dtype.
        axis: The group axis.

    Returns:
        A vector with one entry a group, in at least float32; see `safe_norm`.

    Raises:
        ValueError: If the kernel has no such axis.

    Example:
        >>> group_norms(keras.ops.array([[3.0, 0.0], [4.0, 0.0]]))
        [5., 0.]
    """
    return safe_norm(kernel, other_axes(_shape(kernel), axis))


def group_means(kernel, axis: Axis = -1):
    """Returns the mean of `|w|` over every group.

    Bui et al. call it the normalized sum of the absolute values of a neuron
    and count the neuron as dead where it is below `1e-5`.

    Args:
        kernel: Tensor or variable of any floating dtype.
        axis: The group axis.

    Returns:
        A vector with one entry a group, in at least float32.

    Raises:
        ValueError: If the kernel has no such axis.
    """
    reduced = other_axes(_shape(kernel), axis)
    return ops.mean(ops.abs(upcast(kernel)), axis=reduced)


def by_group(kernel, axis: Axis = -1):
    """Returns a kernel as a matrix `(groups, |g|)`, in at least float32.

    Args:
        kernel: Tensor or variable of any floating dtype.
        axis: The group axis.

    Raises:
        ValueError: If the kernel has no such axis.
    """
    shape = _shape(kernel)
    first = ops.moveaxis(upcast(kernel), resolve_axis(shape, axis), 0)
    return ops.reshape(first, (num_groups(shape, axis), -1))


def _shape(kernel):
    is_tensor = hasattr(kernel, "shape") and hasattr(kernel, "dtype")
    require(is_tensor, "kernel", "a tensor or variable", kernel)
    return kernel.shape


def per_weight(values, shape: tuple[int, ...], axis: Axis = -1):
    """Returns one number a group, shaped so that it broadcasts over a kernel.

    Args:
        values: A vector with one entry a group.
        shape: The kernel's shape.
        axis: The group axis.

    Raises:
        ValueError: If the kernel has no such axis.
    """
    return ops.expand_dims(values, other_axes(shape, axis))


def sorted_sizes(w, axis: Axis) -> tuple:
    """Returns `|w|` as a matrix `(groups, |g|)`, largest first in each group.

    Beside it stands the vector `1, 2, ..., |g|` of how many weights a prefix
    of a group has.

    Args:
        w: Tensor or variable, a kernel.
        axis: The group axis.
    """
    largest = ops.flip(ops.sort(ops.abs(by_group(w, axis)), axis=1), axis=1)
    return largest, ops.arange(1, largest.shape[1] + 1, dtype=largest.dtype)


def signed(w, dead, size):
    """Returns 0 where `dead`, else `sign(w) * size`, in the dtype of `w`.

    Args:
        w: Tensor or variable.
        dead: Where the result is 0. Not where `w` is NaN, which has to stay
            NaN: a comparison with it is false, so ask for what is dead.
        size: The absolute values of the result.
    """
    kept = ops.where(dead, ops.zeros_like(size), ops.sign(upcast(w)) * size)
    return ops.cast(kept, keras.backend.standardize_dtype(w.dtype))
