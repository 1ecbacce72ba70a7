"""How large the factor of a group penalty has to be to leave nothing."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import Axis, group_size, other_axes
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
    with _without_regularizers(model):
        gradients = _gradients(model, grouped)
        values = [_copy(kernel) for kernel in grouped]
        for batch in _batches(data, batch_size):
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


@contextlib.contextmanager
def _without_regularizers(model: keras.Model) -> Iterator[None]:
    """Takes the penalties out of the model's loss, and puts them back."""
    penalties = [(v, v.regularizer) for v in model.variables]
    try:
        for variable, _ in penalties:
            variable.regularizer = None
        yield
    finally:
        for variable, penalty in penalties:
            variable.regularizer = penalty


def _batches(data, batch_size: int) -> Iterator[tuple]:
    """Yields `(x, y, sample_weight)` in tensors of this backend."""
    if isinstance(data, tuple):
        size = len(keras.tree.flatten(data)[0])
        batches = (
            keras.tree.map_structure(
                functools.partial(_rows, start, start + batch_size), data
            )
            for start in range(0, size, batch_size)
        )
    elif isinstance(data, keras.utils.PyDataset):
        batches = (data[i] for i in range(data.num_batches))
    else:
        # A list of arrays is a tuple that was meant otherwise.
        arrays = isinstance(data, list) and any(
            hasattr(part, "shape") for part in data
        )
        is_batches = isinstance(data, Iterable) and not (
            hasattr(data, "shape") or arrays
        )
        expected = "a tuple (x, y) of arrays or a finite iterable of batches"
        require(is_batches, "data", expected, data)
        batches = data
    for batch in batches:
        yield keras.tree.map_structure(
            _tensor, keras.utils.unpack_x_y_sample_weight(batch)
        )


def _rows(start: int, stop: int, array):
    return None if array is None else array[start:stop]


def _tensor(leaf):
    """Returns an array of any library as a tensor of this backend."""
    if leaf is None or ops.is_tensor(leaf):
        return leaf
    array = np.asarray(leaf)
    is_float = np.issubdtype(array.dtype, np.floating)
    return ops.convert_to_tensor(
        array, dtype=keras.config.floatx() if is_float else None
    )


def _copy(variable):
    return ops.copy(ops.convert_to_tensor(variable))


def _gradients(model: keras.Model, variables: list) -> Callable:
    """Returns `gradients(values, batch)`: of the mean loss, at given values.

    The variables themselves are not assigned. This is the one place where the
    backends differ.
    """
    inside = {id(v) for v in variables}
    others = [v for v in model.variables if id(v) not in inside]
    fixed = [_copy(v) for v in others]
    takes_training = "training" in inspect.signature(model.call).parameters
    inference = {"training": False} if takes_training else {}

    def loss(values, fixed, batch):
        x, y, weight = batch
        state = zip([*variables, *others], [*values, *fixed], strict=True)
        with keras.StatelessScope(state, collect_losses=True):
            y_pred = model(x, **inference)
            return model.compute_loss(x, y, y_pred, sample_weight=weight)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients(values, fixed, batch):
            with tf.GradientTape() as tape:
                tape.watch(values)
                value = loss(values, fixed, batch)
            found = tape.gradient(
                value,
                values,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return [tf.convert_to_tensor(g) for g in found]

        if not model.run_eagerly:
            gradients = tf.function(gradients, autograph=False)
    elif backend == "jax":
        import jax

        gradients = jax.grad(loss)
        if not model.run_eagerly:
            gradients = jax.jit(gradients)
    else:
        import torch

        def gradients(values, fixed, batch):
            values = [v.detach().requires_grad_() for v in values]
            found = torch.autograd.grad(
                loss(values, fixed, batch), values, allow_unused=True
            )
            return [
                torch.zeros_like(v) if g is None else g
                for v, g in zip(values, found, strict=True)
            ]

    return lambda values, batch: gradients(values, fixed, batch)
