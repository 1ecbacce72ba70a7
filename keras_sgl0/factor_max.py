"""How large the factor of a group penalty has to be to leave nothing."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import Axis, group_size, other_axes
from keras_sgl0.network.batches import batches
from keras_sgl0.network.gradients import copy, loss_gradients, without_penalties
from keras_sgl0.network.sparsity import kernels, penalty_axis
from keras_sgl0.utils.validation import InputError, integer, require


def factor_max(model: keras.Model, data, batch_size: int = 128) -> float:
    r"""Returns the factor at which group lasso kills every group at the start.

    It is the upper end of the scale on which to choose a factor. Let `L` be
    the mean loss over the data, `W_k` the kernels that have a group penalty,
    at their present values, and

    `G_k = lim_{e -> 0+} dL/dW_k (W_1, ..., e * W_k, ..., W_K)`

    the gradient where kernel `k` has shrunk to nothing and all else is as it
    is. The factor is `max_k max_{g in k} ||G_kg||_2 / sqrt(|g|)`.

    *What it means.* A group rests at zero under group lasso if the penalty's
    pull, `factor * sqrt(|g|)`, is not weaker than the loss's, `||G_kg||`. From
    this factor on, that holds for all groups of each kernel.

    *Where it is exact.* For a model that is linear in its only kernel and has
    a convex loss this is the lambda_max of the textbooks, whatever the present
    kernel: from it on the optimum is all zero, below it is not. A bias counts
    as fixed; give it its best value first.

    *Where it is a heuristic.* In a deep model each kernel is judged with all
    the others alive, though they would shrink together and weaken each other's
    gradients. And a rectified unit has no gradient at zero itself, hence the
    limit along the present kernel; another start gives another limit. In
    trials with small networks (dense and convolutional, with and without
    batch normalization) proximal training at this factor killed all groups, at
    a hundredth of it none; between a thirtieth and a half of it sparsity and
    accuracy traded off. Batch normalization is in inference mode here and
    dropout is off.

    It is the factor of `GroupLasso`. A sparse group penalty of the same factor
    (`SparseGroupLasso`, `SGL0`) pulls harder, so for it this is an upper bound.
    Other penalties weigh their groups differently.

    The model is not changed. The cost is that of one training step a kernel
    and batch; a few hundred examples will do.

    Args:
        model: A built and compiled model with a group penalty on at least one
            trainable kernel. Its factor does not matter here.
        data: What `fit` takes: a tuple `(x, y)` or `(x, y, sample_weight)` of
            arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or another
            finite iterable of batches. It is read once.
        batch_size: How many examples of arrays to take at a time, which
            changes nothing but memory and time where the loss of a batch is
            the mean over its examples, as Keras's losses are by default. At
            least 1.

    Returns:
        The factor, in units of the loss; weighted, where batches differ, by
        their sizes.

    Raises:
        ValueError: If the model is not built, not compiled or has no trainable
            kernel with a group penalty, if `data` is empty or of another kind,
            if `batch_size` is less than 1, or if a gradient is not finite.

    Example:
        >>> regularize(model, GroupLasso(1.0))
        >>> top = factor_max(model, (x[:500], y[:500]))
        >>> regularize(model, GroupLasso(0.1 * top))

    Reference:
        Yuan, Lin: Model selection and estimation in regression with grouped
        variables, J. R. Stat. Soc. B 68, 2006: the optimality conditions.
    """
    batch_size = integer("batch_size", batch_size, at_least=1)
    require(
        isinstance(model, keras.Model) and model.built and model.compiled,
        "model",
        "a built and compiled model",
        model,
    )
    pairs = [(kernel, penalty_axis(kernel)) for kernel in kernels(model)]
    grouped = [kernel for kernel, axis in pairs if axis is not None]
    axes = [axis for _, axis in pairs if axis is not None]
    require(
        grouped,
        "model",
        "a model with a group penalty on a trainable kernel, which "
        "`regularize(model, GroupLasso(1.0))` puts on",
        model,
    )
    # So small that it is as good as zero, and large enough that float16 still
    # has the signs of the kernel.
    shrunk = 2.0**-10 if model.compute_dtype == "float16" else 2.0**-20
    sums = [np.zeros(kernel.shape) for kernel in grouped]
    examples = 0
    with without_penalties(model):
        gradients = loss_gradients(model, grouped)
        values = [copy(kernel) for kernel in grouped]
        for batch in batches(data, batch_size):
            size = len(keras.tree.flatten(batch[0])[0])
            examples += size
            for k, value in enumerate(values):
                here = [*values[:k], value * shrunk, *values[k + 1 :]]
                gradient = ops.convert_to_numpy(gradients(here, batch)[k])
                sums[k] += size * gradient.astype("float64")
    require(examples > 0, "data", "at least one batch", data)
    of_kernels = [
        _largest(total / examples, axis)
        for total, axis in zip(sums, axes, strict=True)
    ]
    # `max` would ignore NaN.
    result = float(np.max(of_kernels))
    if not np.isfinite(result):
        raise InputError(
            "A gradient of the loss is not finite. Look for values in `data` "
            f"that are not, or too large. Received: {result}"
        )
    return result


def _largest(gradient: np.ndarray, axis: Axis) -> float:
    """Returns `max_g ||gradient_g|| / sqrt(|g|)`."""
    norms = np.sqrt(np.square(gradient).sum(other_axes(gradient.shape, axis)))
    return float(norms.max() / group_size(gradient.shape, axis) ** 0.5)
