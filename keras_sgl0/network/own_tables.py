"""The tables that a block looks things up in itself, as layers.

A block may read a weight of its own in its `call`, so that the calls in it do
not tell what it does. A weight of two axes is what an `Embedding` of Keras
gives for the numbers of all its rows. So that is what is recorded.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.graph import Tensor


class OwnTable(NamedTuple):
    """A weight of a block as a layer.

    Args:
        name: The attribute of the block that holds it.
        layer: The layer, which has the same variable.
        rows: A symbolic tensor for the numbers of all rows.
    """

    name: str
    layer: keras.layers.Embedding
    rows: keras.KerasTensor


def own_tables(block: keras.layers.Layer) -> list[OwnTable]:
    """Returns the weights of two axes that a block has itself.

    One that is cast in the call, as with mixed precision, is left out.

    Args:
        block: A built layer that has others in it.
    """
    own = {id(v) for v in block._trainable_variables}
    own |= {id(v) for v in block._non_trainable_variables}
    return [
        OwnTable(
            name,
            _embedding(variable, block),
            keras.KerasTensor((variable.shape[0],), "int32"),
        )
        for name, variable in vars(block).items()
        if id(variable) in own
        and len(variable.shape) == 2
        and variable.dtype == block.compute_dtype
    ]


def numbers_of_rows(table: OwnTable, x: Tensor) -> keras.KerasTensor:
    """Returns the numbers of all rows, computed from an input of the model.

    Keras calls a layer as a part of a model only on what comes from an input.

    Args:
        table: The table.
        x: An input of the model.

    Returns:
        A symbolic tensor, made by operations from `x.spec`.
    """
    zero = ops.sum(ops.zeros_like(x.spec, dtype="int32"))
    return ops.add(zero, np.arange(table.rows.shape[0], dtype="int32"))


def _embedding(variable, block):
    """Returns a layer that has a variable as its table."""
    layer = keras.layers.Embedding(
        *variable.shape,
        embeddings_regularizer=variable.regularizer,
        embeddings_constraint=variable.constraint,
        dtype=block.dtype_policy,
        trainable=variable.trainable,
        name=variable.name,
    )
    layer._embeddings = variable  # Private: what `build` would make.
    layer.built = True
    return layer
