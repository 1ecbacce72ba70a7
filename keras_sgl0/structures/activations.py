"""Functions of each entry alone, and what they make of constants."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.calls import calls_behind
from keras_sgl0.structures.registry import find

_ELEMENTWISE = (
    "abs arcsinh arctan celu cos cosh elu erf exp expm1 exponential gelu "
    "hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log1p "
    "log_sigmoid mish relu relu6 selu sigmoid silu sin sinh soft_shrink "
    "softplus softsign sparse_plus sparse_sigmoid sqrt square squareplus tanh "
    "tanh_shrink threshold"
).split()
_ACTIVATIONS = {
    getattr(module, name)
    for module in (keras.activations, ops)
    for name in _ELEMENTWISE
    if hasattr(module, name)
}


_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
# The functions of these have the names of Keras's, as `tf.nn.relu`.
_BACKENDS = ("tensorflow", "jax", "torch")


def is_elementwise(activation: Callable) -> bool:
    """Returns whether an activation is known to treat each entry alone.

    Args:
        activation: A function of a tensor, or a layer.
    """
    own: Any = activation
    if type(own) is keras.layers.Activation:
        own = own.activation
    try:
        known = own in _ACTIVATIONS
    except TypeError:
        known = False
    package = str(getattr(own, "__module__", "")).partition(".")[0]
    name = getattr(own, "__name__", "")
    of_backend = package in _BACKENDS and name in (*_ELEMENTWISE, "swish")
    if known or of_backend or type(own) in _LAYERS:
        return True
    return not isinstance(own, keras.layers.Layer) and _is_made_of_such(own)


def _is_made_of_such(function: Callable) -> bool:
    """Returns whether a function of the user calls elementwise ones alone."""
    x = keras.KerasTensor((None, 2))
    try:
        y = function(x)
        calls = calls_behind(y, {id(x)})
    except Exception:  # it may be anything, and need not take such tensors
        return False
    return all(
        getattr(find(call.operation), "is_entrywise", False)
        and all(
            isinstance(other, keras.KerasTensor | str | None)
            or np.size(other) == 1
            for other in keras.tree.flatten((call.args, call.kwargs))
        )
        for call in calls
    )


def evaluate(
    function: Callable, *arguments: np.ndarray, dtype: str = "float32"
) -> np.ndarray:
    """Returns a function of constants, NaN where one of them is unknown.

    Args:
        function: Takes and returns tensors of the shape `(1, channels)`.
        arguments: The constants, vectors with NaN for unknown.
        dtype: What to compute in.
    """
    unknown = np.isnan(np.sum(np.broadcast_arrays(*arguments), axis=0))
    if unknown.all():
        return np.full(unknown.shape, np.nan)
    known = [np.nan_to_num(x, nan=1.0)[None] for x in arguments]
    known = [ops.convert_to_tensor(x, dtype) for x in known]
    result = ops.convert_to_numpy(ops.cast(function(*known), dtype))
    result = result.reshape(-1)  # a constant of more axes adds some in front
    return finite(np.where(unknown, np.nan, result))


def finite(values: np.ndarray) -> np.ndarray:
    """Returns constants with NaN for infinity, which must not be folded.

    Args:
        values: The constants.
    """
    return np.where(np.isfinite(values), values, np.nan).astype("float64")
