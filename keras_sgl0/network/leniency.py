"""What Keras allows on tensors, and by mistake not on symbolic ones."""

import contextlib
import functools
import string
from collections.abc import Callable, Iterator

import keras
from keras import ops

# Reductions that a user may call on a list of tensors, along the list.
_OF_TWO: dict[str, Callable] = {
    "Sum": ops.add,
    "Max": ops.maximum,
    "Min": ops.minimum,
}


@contextlib.contextmanager
def as_on_tensors() -> Iterator[None]:
    """Lets symbolic tensors take what tensors take.

    That is a key that is no tuple, `x[None]` or `x[1:]`; the sum of a list,
    `ops.sum([x, y], axis=0)`; and capital letters in `ops.einsum`.
    """
    get, call = keras.KerasTensor.__getitem__, keras.Operation.symbolic_call

    def get_item(x, key):
        return get(x, (key,) if _is_alone(key) else key)

    def symbolic_call(operation, *args, **kwargs):
        kind = type(operation).__name__
        if kind in _OF_TWO and args and isinstance(args[0], list | tuple):
            along = operation.axis in (0, [0], (0,))
            if along and not operation.keepdims:
                return functools.reduce(_OF_TWO[kind], args[0])
        if kind == "Einsum":
            small = _small(operation.subscripts)
            if small != operation.subscripts:
                return ops.einsum(small, *args, **kwargs)
        return call(operation, *args, **kwargs)

    keras.KerasTensor.__getitem__ = get_item
    keras.Operation.symbolic_call = symbolic_call
    try:
        yield
    finally:
        keras.KerasTensor.__getitem__ = get
        keras.Operation.symbolic_call = call


def _is_alone(key) -> bool:
    return key is None or key is Ellipsis or isinstance(key, slice)


def _small(subscripts: str) -> str:
    """Returns subscripts with small letters alone, as far as there are some."""
    free = (x for x in string.ascii_lowercase if x not in subscripts)
    large = sorted({x for x in subscripts if x.isupper()})
    names = {ord(x): small for x, small in zip(large, free, strict=False)}
    return subscripts.translate(names)
