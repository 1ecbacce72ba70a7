"""Dense layers and convolutions as matrix products, in NumPy."""

import keras
import numpy as np
from keras import ops

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def is_linear(layer: keras.Operation) -> bool:
    """Returns whether a layer is dense, or a convolution without groups.

    Args:
        layer: A layer or another operation.
    """
    if type(layer) in _CONVOLUTIONS:
        return layer.groups == 1
    return type(layer) is keras.layers.Dense


def kernel_matrix(layer: keras.layers.Layer) -> np.ndarray:
    """Returns the kernel as a matrix, one column an output.

    Args:
        layer: A layer that `is_linear`.
    """
    kernel = np.asarray(ops.convert_to_numpy(layer.kernel), "float64")
    return kernel.reshape(-1, kernel.shape[-1])


def products(layer: keras.layers.Layer, x: np.ndarray) -> np.ndarray:
    """Returns the outputs without bias and activation, positions in rows.

    Args:
        layer: A layer that `is_linear`.
        x: A batch of what it reads.
    """
    if isinstance(layer, keras.layers.Dense):
        return input_rows(layer, x) @ kernel_matrix(layer)
    return _convolved(layer, x, ops.convert_to_numpy(layer.kernel))


def input_rows(layer: keras.layers.Layer, x: np.ndarray) -> np.ndarray:
    """Returns what each position of the output is computed from, in rows.

    Then `input_rows(layer, x) @ kernel_matrix(layer)` is the output without
    bias and activation, its positions in rows.

    Args:
        layer: A layer that `is_linear`.
        x: A batch of what it reads.
    """
    size = int(np.prod(layer.kernel.shape[:-1]))
    if isinstance(layer, keras.layers.Dense):
        return x.reshape(-1, size)
    # A kernel that copies each entry of a patch pads and strides as it should.
    copying = np.eye(size).reshape(*layer.kernel.shape[:-1], size)
    return _convolved(layer, x, copying)


def _convolved(layer, x, kernel) -> np.ndarray:
    """Returns what a convolution makes with a kernel, positions in rows."""
    y = layer.convolution_op(
        ops.convert_to_tensor(x, "float32"),
        ops.convert_to_tensor(kernel, "float32"),
    )
    y = np.asarray(ops.convert_to_numpy(y), "float64")
    if layer.data_format == "channels_first":
        y = np.moveaxis(y, 1, -1)
    return y.reshape(-1, y.shape[-1])
