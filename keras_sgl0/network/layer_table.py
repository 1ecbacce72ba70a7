"""The layers with kernels: what the axes of a kernel are, where it is applied.

This is the one table of layer classes with kernels. Regularization, reports,
costs and callbacks all read it; a layer that is added here is known to all.

What a group axis of `-1` ("the output axis") or `"auto"` stands for:

| layer                      | kernel                   | `-1` | `"auto"` |
| -------------------------- | ------------------------ | ---- | -------- |
| Dense                      | `(in, out)`              | -1   | 0        |
| Conv1D, 2D, 3D             | `(..., cin, cout)`       | -1   | -1       |
| Conv1DTranspose, 2D, 3D    | `(..., cout, cin)`       | -2   | -2       |
| DepthwiseConv1D, 2D        | `(..., cin, multiplier)` | -2   | -2       |
| SeparableConv1D, 2D        | the depthwise kernel     | -2   | -2       |
|                            | the pointwise kernel     | -1   | -1       |
| EinsumDense                | by its equation          | (1)  | (2)      |
| MultiHeadAttention,        | of its EinsumDense parts | -1   | -1       |
| GroupQueryAttention        |                          |      |          |
| Embedding                  | `(tokens, dimension)`    | -1   | -1       |
| SimpleRNN, GRU, LSTM       | `(in, units of gates)`,  | -1   | 0        |
|                            | both kernels             |      |          |
| ConvLSTM1D, 2D, 3D         | `(..., in, of gates)`    | -1   | -1       |
| normalizations             | gamma, `(channels,)`     | -1   | -1       |

(1) The last axis that is in the output and not in the input, or else the last.
(2) The last axis that is summed over, or else that of (1).

The fan-in, the number of inputs that one output unit sums over, and the
positions at which the kernel is applied, once each:

| layer                         | fan-in                 | positions         |
| ----------------------------- | ---------------------- | ----------------- |
| Dense                         | `in`                   | of the output     |
| Conv1D, 2D, 3D                | spatial size times     | of the output     |
|                               | `cin`, that of a group |                   |
| Conv1DTranspose, 2D, 3D       | spatial size * `cin`   | of the input      |
| DepthwiseConv1D, 2D           | spatial size           | of the output     |
| SeparableConv1D, 2D, both     | as of a depthwise and  | of the output     |
|                               | of a 1x1 convolution   |                   |
| EinsumDense                   | the axes summed over   | the axes that its |
|                               |                        | kernel has not    |
| Embedding                     | 1                      | 0: looked up      |

So a group of a depthwise kernel is one input channel with all its multipliers,
a group of an embedding is one of its dimensions, a column, and a group of a
query, key or value projection is one dimension of all heads.

A kernel of a recurrent layer and gamma get a penalty only where `regularize`
is asked for them, by its `weights`.
"""

import math
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

import keras

from keras_sgl0.groups import Axis

Line = tuple[keras.layers.Layer, ...]
Positions = Literal["outputs", "inputs", "einsum", "lookup"]
Weights = Literal["kernel", "recurrent", "gamma"]
WEIGHTS: tuple[Weights, ...] = ("kernel", "recurrent", "gamma")
KERNELS: tuple[Weights, ...] = ("kernel",)


class Layout(NamedTuple):
    """A kernel of a layer.

    Args:
        kernel: The layer's attribute that holds it.
        regularizer: The layer's attribute that holds its penalty.
        output: The axis that `-1` stands for.
        auto: The axis that `"auto"` stands for.
        unsummed: The axes that no output unit sums over, negative integers.
        applied: Where the kernel is applied: at the positions of the
            `"outputs"` or of the `"inputs"`, by an `"einsum"` equation, or as
            a table for `"lookup"`.
    """

    kernel: str
    regularizer: str
    output: int
    auto: int
    unsummed: tuple[int, ...]
    applied: Positions

    def meant(self, axis: Axis) -> Axis:
        """Returns what a group axis stands for; any other is itself.

        Args:
            axis: An integer or `"auto"`.
        """
        return {-1: self.output, "auto": self.auto}.get(axis, axis)

    @property
    def output_axes(self) -> tuple[int, ...]:
        """The axes along which each index makes outputs of its own."""
        # A row of a table is what one token is turned into, not an output.
        return (self.output,) if self.applied == "lookup" else self.unsummed

    def fan_in(self, shape: tuple[int, ...]) -> int:
        """Returns the number of inputs that one output unit sums over.

        Args:
            shape: The kernel's shape.

        Example:
            >>> layouts_of(model)[id(depthwise.kernel)].fan_in((3, 3, 256, 1))
            9
        """
        kept = {axis % len(shape) for axis in self.unsummed}
        return math.prod(n for i, n in enumerate(shape) if i not in kept)


ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
_CELLS = (
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
)
# They make their cell from their own config.
_RECURRENT = (
    keras.layers.SimpleRNN,
    keras.layers.GRU,
    keras.layers.LSTM,
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)
_LAYOUTS = (
    (
        (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
        (
            Layout(
                kernel="kernel",
                regularizer="kernel_regularizer",
                output=-1,
                auto=-1,
                unsummed=(-1,),
                applied="outputs",
            ),
        ),
    ),
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        (
            Layout(
                kernel="kernel",
                regularizer="kernel_regularizer",
                output=-2,
                auto=-2,
                unsummed=(-2,),
                applied="inputs",
            ),
        ),
    ),
    (
        (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
        (
            Layout(
                kernel="kernel",
                regularizer="depthwise_regularizer",
                output=-2,
                auto=-2,
                unsummed=(-2, -1),
                applied="outputs",
            ),
        ),
    ),
    (
        (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
        (
            Layout(
                kernel="depthwise_kernel",
                regularizer="depthwise_regularizer",
                output=-2,
                auto=-2,
                unsummed=(-2, -1),
                applied="outputs",
            ),
            Layout(
                kernel="pointwise_kernel",
                regularizer="pointwise_regularizer",
                output=-1,
                auto=-1,
                unsummed=(-1,),
                applied="outputs",
            ),
        ),
    ),
    (
        keras.layers.Dense,
        (
            Layout(
                kernel="kernel",
                regularizer="kernel_regularizer",
                output=-1,
                auto=0,
                unsummed=(-1,),
                applied="outputs",
            ),
        ),
    ),
    (
        keras.layers.Embedding,
        (
            Layout(
                kernel="embeddings",
                regularizer="embeddings_regularizer",
                output=-1,
                auto=-1,
                unsummed=(-2, -1),
                applied="lookup",
            ),
        ),
    ),
)

# Each of its entries is a group.
_GAMMA = Layout(
    kernel="gamma",
    regularizer="gamma_regularizer",
    output=-1,
    auto=-1,
    unsummed=(-1,),
    applied="outputs",
)


def walk_layers(model: keras.layers.Layer) -> Iterator[Line]:
    """Yields every layer of a model once, with its owners before it.

    Args:
        model: The first of each line; the layer itself is the last.
    """
    return _below((model,), set())


def parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers that a layer or model is directly made of.

    Args:
        layer: A layer or model.
    """
    if isinstance(layer, keras.Model):
        return layer.layers
    return layer._flatten_layers(include_self=False, recursive=False)


def all_layers(operation: keras.Operation) -> list[keras.layers.Layer]:
    """Returns a layer and all layers in it; none for other operations.

    Args:
        operation: A layer or another operation of a model.
    """
    if isinstance(operation, keras.layers.Layer):
        return list(operation._flatten_layers())
    return []


def is_projection(line: Line) -> bool:
    """Returns whether a layer is one of the projections of an attention.

    Args:
        line: The layer and its owners.
    """
    return (
        len(line) > 1
        and isinstance(line[-1], keras.layers.EinsumDense)
        and isinstance(line[-2], ATTENTION)
    )


def is_cell(line: Line) -> bool:
    """Returns whether a layer is the cell that a recurrent layer has made.

    Args:
        line: The layer and its owners.
    """
    return (
        len(line) > 1
        and isinstance(line[-2], _RECURRENT)
        and line[-1] is line[-2].cell
    )


def layouts(
    line: Line, weights: Collection[Weights] = KERNELS
) -> tuple[Layout, ...]:
    """Returns the kernels of a built layer; none where they are not known.

    Args:
        line: The layer and its owners. Without owners the axis `"auto"` of a
            projection of an attention is that of any other `EinsumDense`.
        weights: What to return: `"kernel"`; both kernels of a `"recurrent"`
            layer; `"gamma"` of a normalization.
    """
    layer = line[-1]
    if not layer.built:
        return ()
    if "gamma" in weights and isinstance(layer, _NORMALIZATIONS):
        return () if layer.gamma is None else (_GAMMA,)
    if "recurrent" in weights and (isinstance(layer, _CELLS) or is_cell(line)):
        return _cell_layouts(len(layer.kernel.shape))
    if "kernel" not in weights:
        return ()
    if isinstance(layer, keras.layers.EinsumDense):
        return (_einsum_layout(layer.equation, is_projection(line)),)
    return next((rows for t, rows in _LAYOUTS if isinstance(layer, t)), ())


def layouts_of(
    model: keras.Model, weights: Collection[Weights] = KERNELS
) -> dict[int, Layout]:
    """Returns the layout of each kernel of a model, by the kernel's `id`.

    Args:
        model: A built model. Kernels whose layout is not known are left out.
        weights: As in `layouts`.
    """
    found: dict[int, Layout] = {}
    for line in walk_layers(model):
        for layout in layouts(line, weights):
            kernel = getattr(line[-1], layout.kernel)
            found.setdefault(id(kernel), layout)
    return found


def _below(line: Line, visited: set[int]) -> Iterator[Line]:
    for layer in parts(line[-1]):
        if id(layer) not in visited:
            visited.add(id(layer))
            yield (*line, layer)
            yield from _below((*line, layer), visited)


def _cell_layouts(rank: int) -> tuple[Layout, ...]:
    """Returns the layouts of both kernels of the cell of a recurrent layer."""
    return tuple(
        Layout(
            kernel=kernel,
            regularizer=regularizer,
            output=-1,
            auto=0 if rank == 2 else -1,
            unsummed=(-1,),
            applied="outputs",
        )
        for kernel, regularizer in (
            ("kernel", "kernel_regularizer"),
            ("recurrent_kernel", "recurrent_regularizer"),
        )
    )


def _einsum_layout(equation: str, projection: bool) -> Layout:
    """Returns the layout of the kernel of an `EinsumDense`."""
    operands, result = equation.split("->")
    inputs, kernel = operands.split(",")
    rank = len(kernel)
    made = [
        i - rank
        for i, a in enumerate(kernel)
        if a in result and a not in inputs
    ]
    summed = [i - rank for i, a in enumerate(kernel) if a not in result]
    output = made[-1] if made else -1
    # One penalty serves all kernels of an attention layer, so they are all
    # grouped by their outputs.
    by_output = projection or not summed
    return Layout(
        kernel="kernel",
        regularizer="kernel_regularizer",
        output=output,
        auto=output if by_output else summed[-1],
        unsummed=tuple(i for i in range(-rank, 0) if i not in summed),
        applied="einsum",
    )
