"""At how many positions a call applies each of its kernels.

A weight of a kernel takes part in one multiply-add for every position. Where
the kernels of a single layer are applied is a column of the table in
`layer_table`; here come the layers that hold others:

| layer                        | positions                                 |
| ---------------------------- | ----------------------------------------- |
| SimpleRNN, GRU, LSTM, an RNN | the steps, for both kernels of every cell |
| of their cells               |                                           |
| ConvLSTM1D, 2D, 3D           | the steps times those of the output       |
| Bidirectional                | those of both layers                      |
| TimeDistributed              | the steps times those of the layer        |
| SpectralNormalization        | those of the layer                        |
| ReversibleEmbedding          | those of the input, if called in reverse  |
| MultiHeadAttention,          | of each projection, those of the query,   |
| GroupQueryAttention          | key or value that it is applied to        |
"""

from collections.abc import Iterable, Iterator

import keras

from keras_sgl0.network.attention import projected, projections
from keras_sgl0.network.equations import spell
from keras_sgl0.network.graph import Node
from keras_sgl0.network.layer_table import ATTENTION, Layout, layouts

Shape = tuple[int | None, ...]
Positions = Iterator[tuple[keras.Variable, int | None]]
_CELLS = (
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
)

_CONV_LSTM = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)


def kernel_positions(node: Node) -> list[tuple[keras.Variable, int | None]]:
    """Returns the kernels of a call, each with its number of positions.

    Args:
        node: A call.

    Returns:
        Pairs of a kernel and a number, `None` where a size is not known.
    """
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer) or not node.inputs:
        return []
    entries = max(x.entries for x in node.inputs)
    found = _of_call(node)
    return [(kernel, product((number, entries))) for kernel, number in found]


def _of_call(node: Node) -> Positions:
    """Yields the kernels of a call on what is one entry of its inputs."""
    layer = node.operation
    if isinstance(layer, ATTENTION):
        yield from _of_attention(node)
    elif is_reversed(node):
        tied = layer.tie_weights
        kernel = layer.embeddings if tied else layer.reverse_embeddings
        yield kernel, product(node.inputs[0].shape[1:-1])
    else:
        yield from _of(layer, node.inputs[0].shape, node.outputs[0].shape)


def is_reversed(node: Node) -> bool:
    """Returns whether a call multiplies with a table instead of looking up.

    Args:
        node: A call.
    """
    return isinstance(node.operation, keras.layers.ReversibleEmbedding) and (
        bool(node.kwargs.get("reverse")) or any(node.args[1:])
    )


def product(sizes: Iterable[int | None]) -> int | None:
    """Returns the product of sizes, `None` if one is not known.

    Args:
        sizes: Numbers, or `None`.
    """
    result = 1
    for size in sizes:
        if size is None:
            return None
        result *= size
    return result


def _of(layer: keras.layers.Layer, x: Shape, y: Shape) -> Positions:
    """Yields the kernels of a layer on an input of one shape."""
    for layout in layouts((layer,)):
        yield getattr(layer, layout.kernel), _positions(layout, layer, x, y)
    if isinstance(layer, keras.layers.TimeDistributed):
        inner = _of(layer.layer, (x[0], *x[2:]), (y[0], *y[2:]))
        for kernel, number in inner:
            yield kernel, product((x[1], number))
    elif isinstance(layer, keras.layers.SpectralNormalization):
        yield from _of(layer.layer, x, y)
    elif isinstance(layer, keras.layers.Bidirectional):
        yield from _of(layer.forward_layer, x, y)
        yield from _of(layer.backward_layer, x, y)
    elif isinstance(layer, keras.layers.RNN):
        yield from _of_recurrent(layer, x, y)


def _of_recurrent(layer, x, y) -> Positions:
    cells = getattr(layer.cell, "cells", [layer.cell])
    number: int | None
    if isinstance(layer, _CONV_LSTM):
        # The input keeps the rank of the output without the steps.
        spatial = y[1:] if not layer.return_sequences else y[2:]
        first = layer.cell.data_format == "channels_first"
        number = product((x[1], *(spatial[1:] if first else spatial[:-1])))
    else:
        cells = [cell for cell in cells if isinstance(cell, _CELLS)]
        number = x[1]
    for cell in cells:
        yield cell.kernel, number
        yield cell.recurrent_kernel, number


def _of_attention(node: Node) -> Positions:
    """Yields the kernels of the projections of an attention."""
    layer = node.operation
    given = projected(node)
    for name, attribute in projections(layer).items():
        # The output is projected where the query is.
        x = given.get("query" if name == "output" else name)
        kernel = getattr(layer, attribute).kernel
        yield kernel, product(x.shape[1:-1]) if x else None


def _positions(layout: Layout, layer, x: Shape, y: Shape) -> int | None:
    """Returns at how many positions a call applies a kernel."""
    if layout.applied == "lookup":
        return 0
    if layout.applied == "einsum":
        return _einsum_positions(layer, x, y)
    shape = x if layout.applied == "inputs" else y
    first = getattr(layer, "data_format", "") == "channels_first"
    return product(shape[2:] if first else shape[1:-1])


def _einsum_positions(layer, x: Shape, y: Shape) -> int | None:
    """Returns the product of the sizes of all axes that the kernel lacks."""
    operands, result = layer.equation.split("->")
    inputs, kernel = operands.split(",")
    sizes: dict[str | int, int | None] = {}
    for term, shape in ((inputs, x), (result, y)):
        # The batch axis comes first.
        names = spell(term, len(shape))[1:]
        sizes |= dict(zip(names, shape[1:], strict=True))
    return product(n for name, n in sizes.items() if name not in set(kernel))
