"""Which axis of a layer's kernel holds its outputs.

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

(1) The last axis that is in the output and not in the input, or else the last.
(2) The last axis that is summed over, or else that of (1).

So a group of a depthwise kernel is one input channel with all its multipliers,
a group of an embedding is one of its dimensions, a column, and a group of a
query, key or value projection is one dimension of all heads.
"""

from collections.abc import Iterator
from typing import NamedTuple

import keras

from keras_sgl0.groups import Axis

Line = tuple[keras.layers.Layer, ...]


class Layout(NamedTuple):
    """A kernel of a layer.

    Args:
        kernel: The layer's attribute that holds it.
        regularizer: The layer's attribute that holds its penalty.
        output: The axis that `-1` stands for.
        auto: The axis that `"auto"` stands for.
    """

    kernel: str
    regularizer: str
    output: int
    auto: int

    def meant(self, axis: Axis) -> Axis:
        """Returns what a group axis stands for; any other is itself.

        Args:
            axis: An integer or `"auto"`.
        """
        return {-1: self.output, "auto": self.auto}.get(axis, axis)


_ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)
_LAYOUTS = (
    (
        (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
        (Layout("kernel", "kernel_regularizer", -1, -1),),
    ),
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        (Layout("kernel", "kernel_regularizer", -2, -2),),
    ),
    (
        (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
        (Layout("kernel", "depthwise_regularizer", -2, -2),),
    ),
    (
        (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
        (
            Layout("depthwise_kernel", "depthwise_regularizer", -2, -2),
            Layout("pointwise_kernel", "pointwise_regularizer", -1, -1),
        ),
    ),
    (
        keras.layers.Dense,
        (Layout("kernel", "kernel_regularizer", -1, 0),),
    ),
    (
        keras.layers.Embedding,
        (Layout("embeddings", "embeddings_regularizer", -1, -1),),
    ),
)


def lines(model: keras.layers.Layer) -> Iterator[Line]:
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


def is_projection(line: Line) -> bool:
    """Returns whether a layer is one of the projections of an attention.

    Args:
        line: The layer and its owners.
    """
    einsum = isinstance(line[-1], keras.layers.EinsumDense)
    return einsum and isinstance(line[-2], _ATTENTION)


def layouts(line: Line) -> tuple[Layout, ...]:
    """Returns the kernels of a built layer; none where they are not known.

    Args:
        line: The layer and its owners.
    """
    layer = line[-1]
    if not layer.built:
        return ()
    if isinstance(layer, keras.layers.EinsumDense):
        output, auto = _einsum_axes(layer.equation)
        # One penalty serves all kernels of an attention layer.
        auto = output if is_projection(line) else auto
        return (Layout("kernel", "kernel_regularizer", output, auto),)
    return next((rows for t, rows in _LAYOUTS if isinstance(layer, t)), ())


def layouts_of(model: keras.Model) -> dict[int, Layout]:
    """Returns the layout of each kernel of a model, by the kernel's `id`.

    Args:
        model: A built model. Kernels whose layout is not known are left out.
    """
    found = {}
    for line in lines(model):
        for layout in layouts(line):
            kernel = getattr(line[-1], layout.kernel)
            found.setdefault(id(kernel), layout)
    return found


def _below(line, seen) -> Iterator[Line]:
    for layer in parts(line[-1]):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield (*line, layer)
            yield from _below((*line, layer), seen)


def _einsum_axes(equation: str) -> tuple[int, int]:
    """Returns the output axis and the input axis of an EinsumDense kernel."""
    operands, result = equation.split("->")
    inputs, kernel = operands.split(",")
    made = [i for i, a in enumerate(kernel) if a in result and a not in inputs]
    summed = [i for i, a in enumerate(kernel) if a not in result]
    output = made[-1] - len(kernel) if made else -1
    return output, summed[-1] - len(kernel) if summed else output
