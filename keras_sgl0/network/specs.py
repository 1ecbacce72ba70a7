"""Symbolic tensors: shape and type of what calls take and return."""

import keras

# Whose layers have a meaning of their own, which is more than their calls.
KNOWN = ("keras", __name__.partition(".")[0])


def spec_of(
    x: keras.KerasTensor,
    name: str | None = None,
    shape: tuple[int | None, ...] | None = None,
    sparse: bool | None = None,
) -> keras.KerasTensor:
    """Returns a symbolic tensor like another one, that no call has made.

    Args:
        x: The other one.
        name: Its name; `None` for one that Keras gives.
        shape: Its shape, `None` for that of the other one.
        sparse: Whether it is sparse, `None` for as the other one.
    """
    shape = x.shape if shape is None else shape
    sparse = x.sparse if sparse is None else sparse
    return keras.KerasTensor(shape, x.dtype, sparse=sparse, name=name)


def output_spec(operation: keras.Operation, *args, **kwargs):
    """Returns what a call returns, as symbolic tensors.

    Args:
        operation: A layer or another operation.
        *args: The positional arguments, with symbolic tensors.
        **kwargs: The keyword arguments likewise.
    """
    if is_told_by_call(operation):
        return keras.Operation.compute_output_spec(operation, *args, **kwargs)
    return operation.compute_output_spec(*args, **kwargs)


def is_told_by_call(operation: keras.Operation) -> bool:
    """Returns whether the shape of an output is to be read off the `call`.

    `EinsumDense` forgets sizes that it knows, and a subclass may have another
    `call` than that which the method for shapes is made for.

    Args:
        operation: A layer or another operation.
    """
    if isinstance(operation, keras.layers.EinsumDense):
        return True
    for kind in type(operation).__mro__:
        if {"compute_output_spec", "compute_output_shape"} & vars(kind).keys():
            return False
        if "call" in vars(kind):
            return kind.__module__.partition(".")[0] not in KNOWN
    return False


def mask_of(x: keras.KerasTensor) -> keras.KerasTensor | None:
    """Returns the mask that Keras hands on with a tensor, `None` for none.

    Args:
        x: A symbolic tensor.
    """
    return getattr(x, "_keras_mask", None)
