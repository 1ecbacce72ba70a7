"""Data as `fit` takes it, batch by batch."""

import functools
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.unfolding import functional
from keras_sgl0.utils.validation import require


def batches(data, batch_size: int, name: str = "data") -> Iterator[tuple]:
    """Yields `(x, y, sample_weight)` in tensors of this backend.

    Args:
        data: A tuple `(x, y)` or `(x, y, sample_weight)` of arrays, a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or another finite
            iterable of batches.
        batch_size: How many examples of arrays to take at a time.
        name: What the argument is called in errors.

    Raises:
        ValueError: If it is of another kind.
    """
    if isinstance(data, tuple):
        arrays = [a for a in keras.tree.flatten(data) if a is not None]
        lengths = {len(a) for a in arrays if np.ndim(a)}
        same = len(lengths) == 1 and all(map(np.ndim, arrays))
        require(same, name, "arrays of the same length", data)
        (size,) = lengths
        found = (
            keras.tree.map_structure(
                functools.partial(_rows, start, start + batch_size), data
            )
            for start in range(0, size, batch_size)
        )
    elif isinstance(data, keras.utils.PyDataset):
        found = (data[i] for i in range(data.num_batches))
    else:
        # A list of arrays is a tuple that was meant otherwise.
        is_arrays = isinstance(data, list) and any(
            hasattr(part, "shape") for part in data
        )
        others = str | bytes | Mapping  # they are iterables, too
        is_batches = isinstance(data, Iterable) and not (
            hasattr(data, "shape") or is_arrays or isinstance(data, others)
        )
        expected = "a tuple (x, y) of arrays or a finite iterable of batches"
        require(is_batches, name, expected, data)
        found = data
    for batch in found:
        require(batch is not None, name, "batches (x, y)", data)
        yield keras.tree.map_structure(
            _tensor, keras.utils.unpack_x_y_sample_weight(batch)
        )


def batches_for(
    model: keras.Model, data, batch_size: int, name: str = "data"
) -> Iterator[tuple]:
    """Yields batches as `batches` does, with inputs as the model names them.

    As in `fit`, a dictionary may stand for a list of named inputs, and a last
    axis of length 1 may be missing or be there in excess.

    Args:
        model: The built model that will be called on their inputs.
        data: As in `batches`.
        batch_size: As in `batches`.
        name: As in `batches`.

    Raises:
        ValueError: As in `batches`, if the inputs have other shapes, or if
            there is no batch.
    """
    structure = functional(model).input
    inputs = keras.tree.flatten(structure)
    expected = f"inputs of the shapes {[tuple(x.shape) for x in inputs]}"
    number = 0
    for x, *rest in batches(data, batch_size, name):
        number += 1
        if isinstance(x, Mapping) and not isinstance(structure, Mapping):
            names = [own.name for own in inputs]
            known = set(names) <= set(x)
            require(known, name, f"inputs that are named {names}", list(x))
            x = [x[own] for own in names]
        found = keras.tree.flatten(x)
        if len(found) == len(inputs):
            found = list(map(_with_rank, found, inputs))
        shapes = [tuple(x.shape) for x in found]
        same = len(shapes) == len(inputs) and all(map(_fits, shapes, inputs))
        require(same, name, expected, shapes)
        yield keras.tree.pack_sequence_as(structure, found), *rest
    require(number, name, "at least one batch", data)


def _with_rank(x, spec):
    """Returns a batch with or without a last axis, as an input wants it."""
    excess = len(x.shape) - len(spec.shape)
    if excess == 1 and x.shape[-1] == 1:
        return ops.squeeze(x, -1)
    if excess == -1 and spec.shape[-1] == 1:
        return ops.expand_dims(x, -1)
    return x


def _fits(shape, spec) -> bool:
    """Returns whether a batch is as an input wants it."""
    pairs = zip(shape[1:], spec.shape[1:], strict=False)
    return len(shape) == len(spec.shape) and all(
        wanted in (None, size) for size, wanted in pairs
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
