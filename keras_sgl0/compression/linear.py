"""Dense layers and convolutions as matrix products, in NumPy."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import other_axes

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
# How many numbers the rows of a part of a batch may be: 128 megabytes of them.
_MOST_NUMBERS = 2**24
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def is_linear(layer: keras.Operation) -> bool:
    """Returns whether a layer is dense, or a convolution without groups.

    It may be a transposed one, or a separable one: the second of its two
    convolutions is without groups.

    Args:
        layer: A layer or another operation.
    """
    if type(layer) in _CONVOLUTIONS:
        return layer.groups == 1
    return type(layer) in (keras.layers.Dense, *_TRANSPOSED, *_SEPARABLE)


def mixing_kernel(layer: keras.layers.Layer) -> keras.Variable:
    """Returns the kernel by which a layer mixes channels.

    That of a separable convolution is the pointwise one. It mixes what the
    depthwise one makes of each channel.

    Args:
        layer: A layer that `is_linear`.
    """
    if type(layer) in _SEPARABLE:
        return layer.pointwise_kernel
    return layer.kernel


def kernel_matrix(layer: keras.layers.Layer) -> np.ndarray:
    """Returns the kernel as a matrix, one column an output.

    Args:
        layer: A layer that `is_linear`.
    """
    kernel = ops.convert_to_numpy(mixing_kernel(layer)).astype("float64")
    kernel = _turned(layer, kernel)
    return kernel.reshape(-1, kernel.shape[-1])


def from_matrix(layer: keras.layers.Layer, matrix: np.ndarray) -> np.ndarray:
    """Returns a matrix like the `kernel_matrix` in the shape of a kernel.

    Args:
        layer: A layer that `is_linear`.
        matrix: The matrix. It may have another number of columns, of outputs.
    """
    shape = mixing_kernel(layer).shape
    *rows, _ = _turned(layer, np.empty(shape, "bool")).shape
    return _turned(layer, matrix.reshape(*rows, -1))


def labels_of_rows(
    layer: keras.layers.Layer, axis: int, labels: np.ndarray
) -> np.ndarray:
    """Returns for each row of the `kernel_matrix` which label it has.

    Args:
        layer: A layer that `is_linear`.
        axis: The axis of the `mixing_kernel` that the labels are along.
        labels: The label of each index of that axis.
    """
    shape = list(mixing_kernel(layer).shape)
    along = np.expand_dims(labels, other_axes(tuple(shape), axis))
    shape[-2 if type(layer) in _TRANSPOSED else -1] = 1
    return _turned(layer, np.broadcast_to(along, shape)).ravel()


def _turned(layer, kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel whose outputs are at the last axis, or the other way."""
    is_transposed = type(layer) in _TRANSPOSED
    return np.moveaxis(kernel, -1, -2) if is_transposed else kernel


def products(layer: keras.layers.Layer, x: np.ndarray) -> np.ndarray:
    """Returns the outputs without bias and activation, positions in rows.

    Args:
        layer: A layer that `is_linear`.
        x: A batch of what it reads.
    """
    if isinstance(layer, keras.layers.Dense):
        return input_rows(layer, x) @ kernel_matrix(layer)
    return _convolved(layer, x, ops.convert_to_numpy(mixing_kernel(layer)))


def input_rows(layer: keras.layers.Layer, x: np.ndarray) -> np.ndarray:
    """Returns what each position of the output is computed from, in rows.

    Then `input_rows(layer, x) @ kernel_matrix(layer)` is the output without
    bias and activation, its positions in rows.

    Args:
        layer: A layer that `is_linear`.
        x: A batch of what it reads.
    """
    size = len(kernel_matrix(layer))
    if isinstance(layer, keras.layers.Dense):
        return x.reshape(-1, size)
    # A kernel that copies each entry of a patch pads and strides as it should.
    return _convolved(layer, x, from_matrix(layer, np.eye(size)))


def parts_of(layer: keras.layers.Layer, x: np.ndarray) -> Iterator[slice]:
    """Yields slices of a batch, so few examples that their rows fit memory.

    A 3x3 convolution copies what it reads nine times.

    Args:
        layer: A layer that `is_linear`.
        x: A batch of what it reads.
    """
    step = max(1, _MOST_NUMBERS // input_rows(layer, x[:1]).size)
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _convolved(layer, x, kernel) -> np.ndarray:
    """Returns what a convolution makes with a kernel, positions in rows."""
    x = ops.convert_to_tensor(x, "float32")
    kernel = ops.convert_to_tensor(kernel, "float32")
    if type(layer) in _SEPARABLE:
        y = ops.separable_conv(
            x,
            ops.cast(layer.depthwise_kernel, "float32"),
            kernel,
            layer.strides,
            layer.padding,
            layer.data_format,
            layer.dilation_rate,
        )
    elif type(layer) in _TRANSPOSED:
        y = ops.conv_transpose(
            x,
            kernel,
            layer.strides,
            layer.padding,
            layer.output_padding,
            layer.data_format,
            layer.dilation_rate,
        )
    else:
        y = layer.convolution_op(x, kernel)
    y = np.asarray(ops.convert_to_numpy(y), "float64")
    if layer.data_format == "channels_first":
        y = np.moveaxis(y, 1, -1)
    return y.reshape(-1, y.shape[-1])
