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

    One of integers that is not trained, such as the indices of a table, counts
    as an array.

    Args:
        block: A built layer.

    Attributes:
        zero: A symbolic zero, for one that comes from an input.
        layers: An `Embedding` for each weight of floats. It has the variable
            of the block, which may have any number of axes.
    """

    def __init__(self, block: keras.layers.Layer):
        own = {id(v) for v in block._trainable_variables}
        own |= {id(v) for v in block._non_trainable_variables}
        self.zero = keras.KerasTensor((), "int32")
        self._block = block
        self._names: list[str] = []
        self._constants: dict[int, np.ndarray] = {}
        self._by_variable: dict[int, keras.layers.Embedding] = {}
        for name, held in vars(block).items():
            if name in _LISTS:
                continue
            found = [v for v in _flat(held) if id(v) in own]
            for variable in found:
                if keras.backend.is_float_dtype(variable.dtype):
                    table = _embedding(variable, block)
                    self._by_variable[id(variable)] = table
                elif variable.shape and not variable.trainable:
                    array = ops.convert_to_numpy(variable)
                    self._constants[id(variable)] = array
            if found:
                self._names.append(name)
        self.layers = list(self._by_variable.values())
        self._products: list[tuple] = []

    @property
    def keeps_masks(self) -> bool:
        """Whether what the block returns has the masks of its inputs."""
        return bool(self._block.supports_masking)

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights that have a layer."""
        return [layer._embeddings for layer in self.layers]

    def variable_of(self, layer: keras.Operation) -> keras.Variable | None:
        """Returns the weight that a layer stands for, `None` if for none.

        Args:
            layer: A layer or another operation.
        """
        own = any(layer is known for known in self.layers)
        return layer._embeddings if own else None

    def product(
        self,
        kind: type[keras.layers.Layer],
        config: dict,
        kernel: keras.Variable,
        bias: keras.Variable | None,
        x: keras.KerasTensor,
    ) -> keras.layers.Layer | None:
        """Returns a layer with weights of the block, each time the same one.

        Args:
            kind: Its class.
            config: What it is made from, but for its name and bias.
            kernel: Its kernel.
            bias: Its bias, `None` if it has none.
            x: What it is called on.

        Returns:
            `None` if the layer would compute in another type.
        """
        key = kind, config, id(kernel), id(bias)
        layer = next((own for k, own in self._products if k == key), None)
        if layer is None:
            given = kind, config, kernel, bias, x
            layer = _with_weights(self._block, *given)
            self._products.append((key, layer))
        return layer if layer.compute_dtype == x.dtype else None

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
            return self.of_array(self._constants.get(id(variable), variable))
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


def sums_all(operation: keras.Operation) -> bool:
    """Returns whether an operation is the sum of all entries, as in `zero_of`.

    Args:
        operation: A layer or another operation.
    """
    return type(operation).__name__ == "Sum" and operation.axis is None


# Where Keras itself holds the variables of a layer.
_LISTS = set(vars(keras.layers.Layer(name="any")))


def _embedding(variable, block):
    """Returns a layer that has a variable as its table."""
    shape = tuple(variable.shape) or (1,)
    layer = keras.layers.Embedding(
        math.prod(shape[:-1]),
        shape[-1],
        embeddings_regularizer=variable.regularizer,
        embeddings_constraint=variable.constraint,
        **_common(variable, block),
    )
    layer._embeddings = variable  # Private: what `build` would make.
    layer.built = True
    return layer


def _with_weights(block, kind, config, kernel, bias, x):
    """Returns a layer that Keras has built with weights of a block."""
    named = {"depthwise" if "depth_multiplier" in config else "kernel": kernel}
    if bias is not None:
        named["bias"] = bias
    own = {
        f"{name}_{what}": getattr(variable, what)
        for name, variable in named.items()
        for what in ("regularizer", "constraint")
    }
    if "equation" not in config:
        own["use_bias"] = bias is not None
    elif bias is not None:
        own["bias_axes"] = config["equation"][-1]
    layer = kind(**config, **own, **_common(kernel, block))
    given = {"kernel": kernel, "bias": bias}
    object.__setattr__(layer, "add_weight", lambda name, **_: given[name])
    layer.build(x.shape)
    object.__delattr__(layer, "add_weight")
    layer.built = True
    return layer


def _common(variable, block) -> dict:
    """Returns what any layer with a weight of a block is made from."""
    # A variable that is not cast has its own type in the call.
    dtype = block.dtype_policy if variable._autocast else variable.dtype
    name, trainable = variable.name, variable.trainable
    return {"name": name, "trainable": trainable, "dtype": dtype}


def _flat(held) -> list:
    """Returns what is in lists and dictionaries, or the one thing itself."""
    if isinstance(held, dict):
        held = list(held.values())
    if isinstance(held, list | tuple):
        return [x for value in held for x in _flat(value)]
    return [held]
