"""Counting the parameters and the multiply-adds of a model.

A weight of a kernel takes part in one multiply-add for every position at which
the kernel is applied, so a kernel costs its size times its positions:

| layer                        | positions                                  |
| ---------------------------- | ------------------------------------------ |
| Dense                        | the output without its channels            |
| Conv, DepthwiseConv,         | the output without its channels            |
| SeparableConv (both kernels) |                                            |
| ConvTranspose                | the input without its channels             |
| EinsumDense                  | the product of the axes its kernel has not |
| Embedding                    | 0, as rows are looked up                   |

All counts are for one example. 'same' padding is counted as if its zeros were
entries, batch normalization as nothing, as it can be part of the kernel before.

The wider count adds one for each output of a layer with a bias, of an
activation other than the linear one, and of a pooling layer. LeNet-5-Caffe has
2,293,000 multiply-adds in its kernels and 2,327,130 in the wider count, which
is the figure some papers give.
"""

import math
import re

import keras

from keras_sgl0.network.cost_report import CostReport, LayerCost
from keras_sgl0.network.graph import Graph, Node, trace
from keras_sgl0.utils.validation import require

_POOLING = tuple(
    getattr(keras.layers, f"{kind}Pooling{rank}D")
    for rank in (1, 2, 3)
    for kind in (
        "Max",
        "Average",
        "GlobalMax",
        "GlobalAverage",
        "AdaptiveMax",
        "AdaptiveAverage",
    )
)
_ACTIVATIONS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Softmax,
)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def count_macs(model: keras.Model, elementwise: bool = False) -> CostReport:
    """Returns the parameters and multiply-adds of every layer.

    Args:
        model: A built Sequential or Functional model. Its inputs need known
            sizes.
        elementwise: Whether to give the wider count, see the module's
            docstring: with biases, activations and pooling outputs.

    Returns:
        A `CostReport`. A layer with kernels of an unknown layout counts as
        nothing and says so in its note.

    Raises:
        ValueError: If the model is not built or subclassed, or the size of an
            input is not known.

    Example:
        >>> count_macs(models.LeNet5Caffe()).macs
        2293000
    """
    graph = trace(model)
    _require_sizes(model, graph)
    nodes = {}
    for node in graph.nodes:
        nodes.setdefault(id(node.operation), []).append(node)
    return CostReport(
        tuple(layer_cost(calls, elementwise) for calls in nodes.values())
    )


def macs_per_weight(model: keras.Model) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels of a model, each with the positions it is applied at.

    So one weight of the kernel takes part in that many multiply-adds for one
    example, those of all calls of its layer together.

    Args:
        model: A built Sequential or Functional model. Its inputs need known
            sizes.

    Raises:
        ValueError: As in `count_macs`.

    Example:
        >>> [n for kernel, n in macs_per_weight(models.LeNet5Caffe())]
        [576, 64, 1, 1]
    """
    graph = trace(model)
    _require_sizes(model, graph)
    kernels = {}
    for node in graph.nodes:
        for kernel, positions in _kernels(node):
            before = kernels.get(id(kernel), (kernel, 0))[1]
            kernels[id(kernel)] = kernel, before + positions
    return list(kernels.values())


def layer_cost(calls: list[Node], elementwise: bool = False) -> LayerCost:
    """Returns what one layer costs.

    Args:
        calls: All its calls, of known sizes.
        elementwise: Whether to give the wider count.
    """
    first, layer = calls[0], calls[0].operation
    kernels = [pair for node in calls for pair in _kernels(node)]
    macs = sum(math.prod(kernel.shape) * n for kernel, n in kernels)
    if elementwise:
        macs += sum(map(_elementwise, calls))
    known = {id(kernel) for kernel, _ in kernels}
    weights = getattr(layer, "weights", ())
    # What has one axis, and a bias or slope, is applied entry by entry.
    odd = [
        v.name
        for v in weights
        if len(v.shape) > 1
        and id(v) not in known
        and not v.name.endswith(("bias", "alpha"))
    ]
    return LayerCost(
        first.path,
        first.type,
        sum(math.prod(v.shape) for v in weights),
        macs,
        f"not counted: {', '.join(odd)}" if odd else "",
    )


def has_sizes(graph: Graph) -> bool:
    """Returns whether all sizes are known, but for that of the batch.

    Args:
        graph: The calls of a model.
    """
    return all(
        None not in x.shape[1:]
        for node in graph.nodes
        for x in (*node.inputs, *node.outputs)
    )


def _require_sizes(model, graph):
    require(
        has_sizes(graph),
        "model",
        "a model whose inputs have known sizes",
        model,
    )


def _kernels(node) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels of a call with their numbers of positions."""
    layer = node.operation
    if isinstance(layer, keras.layers.Dense):
        return [(layer.kernel, math.prod(node.outputs[0].shape[1:-1]))]
    if isinstance(layer, keras.layers.Embedding):
        return [(layer.embeddings, 0)]
    if isinstance(layer, keras.layers.EinsumDense):
        return [(layer.kernel, _einsum_positions(node))]
    if isinstance(layer, _TRANSPOSED):
        return [(layer.kernel, _positions(layer, node.inputs[0]))]
    if isinstance(layer, _CONVOLUTIONS):
        positions = _positions(layer, node.outputs[0])
        names = ("kernel", "depthwise_kernel", "pointwise_kernel")
        kernels = [getattr(layer, name, None) for name in names]
        return [(kernel, positions) for kernel in kernels if kernel is not None]
    return []


def _positions(layer, x) -> int:
    first = layer.data_format == "channels_first"
    return math.prod(x.shape[2:] if first else x.shape[1:-1])


def _einsum_positions(node) -> int:
    """Returns the product of the sizes of all axes the kernel has not."""
    operands, result = node.operation.equation.split("->")
    inputs, kernel = operands.split(",")
    sizes = {}
    for names, x in ((inputs, node.inputs[0]), (result, node.outputs[0])):
        hidden = x.rank - len(names.replace("...", ""))
        names = names.replace("...", "*" * hidden)
        # The batch axis comes first, and "*" stands for axes without name.
        for axis in range(1, x.rank):
            name = names[axis] if names[axis] != "*" else axis
            sizes[name] = x.shape[axis]
    return math.prod(n for name, n in sizes.items() if name not in set(kernel))


def _elementwise(node) -> int:
    """Returns the outputs of a bias, an activation and a pooling of a call."""
    layer = node.operation
    size = sum(math.prod(y.shape[1:]) for y in node.outputs)
    activation = getattr(layer, "activation", None)
    is_active = activation not in (None, keras.activations.linear)
    return size * sum(
        (
            getattr(layer, "bias", None) is not None,
            is_active or _is_activation(node),
            isinstance(layer, _POOLING),
        )
    )


def _is_activation(node) -> bool:
    """Returns whether what is called is an activation: layer or operation."""
    if isinstance(node.operation, keras.layers.Layer):
        return isinstance(node.operation, _ACTIVATIONS)
    name = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", node.type).lower()
    return hasattr(keras.activations, name)
