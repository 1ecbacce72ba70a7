"""What a block reads that no input gives it: weights of its own, arrays.

A block may read a weight of its own in its `call`, or call a layer in it on an
array, such as the numbers of positions. Then the calls in it do not tell what
it does. A weight is what an `Embedding` of Keras gives for the numbers of all
its rows, but for its shape. So that is what is recorded. An array is added to a
zero that comes from an input, as Keras calls a layer as a part of a model only
on what does.
"""

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops, tree


class OwnWeights:
    """The weights of a block, as layers.

    Those that are no floats are left out.

    Args:
        block: A built layer that has others in it.

    Attributes:
        zero: A symbolic zero, for one that comes from an input.
        layers: An `Embedding` for each weight. It has the variable of the
            block, which may have any number of axes.
    """

    def __init__(self, block: keras.layers.Layer):
        own = {id(v) for v in block._trainable_variables}
        own |= {id(v) for v in block._non_trainable_variables}
        self.zero = keras.KerasTensor((), "int32")
        self._block = block
        self._names: list[str] = []
        self._by_variable: dict[int, keras.layers.Embedding] = {}
        for name, held in vars(block).items():
            if name in _LISTS:
                continue
            found = [v for v in _flat(held) if _is_float(v) and id(v) in own]
            for variable in found:
                self._by_variable[id(variable)] = _embedding(variable, block)
            if found:
                self._names.append(name)
        self.layers = list(self._by_variable.values())

    @contextlib.contextmanager
    def as_symbols(self) -> Iterator[None]:
        """Has the block hold what the layers return instead of its weights."""
        before = {name: getattr(self._block, name) for name in self._names}
        try:
            for name, held in before.items():
                symbols = tree.map_structure(self._symbol, held)
                object.__setattr__(self._block, name, symbols)
            yield
        finally:
            for name, held in before.items():
                object.__setattr__(self._block, name, held)

    def of_array(self, x: object) -> object:
        """Returns a symbolic tensor for an array, all else as it is.

        Args:
            x: Anything that a layer is called on.
        """
        if not is_array(x):
            return x
        array = ops.convert_to_numpy(x)
        y = ops.add(self.zero, array)
        wanted = keras.backend.standardize_dtype(array.dtype)
        return y if y.dtype == wanted else ops.cast(y, wanted)

    def _symbol(self, variable):
        layer = self._by_variable.get(id(variable))
        if layer is None:
            return variable
        shape = tuple(variable.shape)
        rows = np.arange(math.prod(shape[:-1]), dtype="int32")
        table = layer(ops.add(self.zero, rows))
        return table if len(shape) == 2 else ops.reshape(table, shape)


def is_array(x: object) -> bool:
    """Returns whether something is an array, or a tensor with values.

    Args:
        x: Anything.
    """
    return ops.is_tensor(x) or isinstance(x, np.ndarray)


def zero_of(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns a zero that is computed from an input of the model.

    Args:
        x: The input.
    """
    return ops.sum(ops.zeros_like(x, dtype="int32"))


# Where Keras itself holds the variables of a layer.
_LISTS = set(vars(keras.layers.Layer(name="any")))


def _embedding(variable, block):
    """Returns a layer that has a variable as its table."""
    shape = tuple(variable.shape) or (1,)
    # A variable that is not cast has its own type in the call.
    dtype = block.dtype_policy if variable._autocast else variable.dtype
    layer = keras.layers.Embedding(
        math.prod(shape[:-1]),
        shape[-1],
        embeddings_regularizer=variable.regularizer,
        embeddings_constraint=variable.constraint,
        dtype=dtype,
        trainable=variable.trainable,
        name=variable.name,
    )
    layer._embeddings = variable  # Private: what `build` would make.
    layer.built = True
    return layer


def _flat(held) -> list:
    """Returns what is in lists and dictionaries, or the one thing itself."""
    if isinstance(held, dict):
        held = list(held.values())
    if isinstance(held, list | tuple):
        return [x for value in held for x in _flat(value)]
    return [held]


def _is_float(x) -> bool:
    return isinstance(x, keras.Variable) and keras.backend.is_float_dtype(
        x.dtype
    )
