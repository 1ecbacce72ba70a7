"""Counts the parameters and the multiply-adds of a model.

A weight of a kernel takes part in one multiply-add for every position at which
the kernel is applied, so a kernel costs its size times its positions. Where
the kernel of a layer is applied is a column of the table in `layer_table`.

All counts are for one example. The zeros of 'same' padding count like other
entries. Batch normalization counts as 0, as it can be folded into the kernel
before it.

The wider count adds one for each output of a layer with a bias, of an
activation other than the linear one, and of a pooling layer. LeNet-5-Caffe has
2,293,000 multiply-adds in its kernels and 2,327,130 in the wider count, which
is the figure some papers give.
"""

import collections
import math
import re
from collections.abc import Iterable

import keras

from keras_sgl0.network.cost_report import CostReport, LayerCost
from keras_sgl0.network.graph import Graph, Node, trace
from keras_sgl0.network.layer_table import Layout, layouts
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


def count_macs(model: keras.Model, elementwise: bool = False) -> CostReport:
    """Returns the parameters and multiply-adds of every layer.

    Args:
        model: A built Sequential or Functional model. Its inputs need known
            sizes.
        elementwise: Whether to give the wider count, see the module's
            docstring: with biases, activations and pooling outputs.

    Returns:
        A `CostReport`. A kernel of unknown layout counts as 0, and the note
        of its layer says so.

    Raises:
        ValueError: If the model is not built or subclassed, or the size of an
            input is not known.

    Example:
        >>> count_macs(models.LeNet5Caffe()).macs
        2293000
    """
    graph = trace(model)
    _require_sizes(model, graph)
    calls_of_layers = graph.by_operation().values()
    return CostReport(
        tuple(layer_cost(calls, elementwise) for calls in calls_of_layers)
    )


def macs_per_weight(model: keras.Model) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels of a model, each with the positions it is applied at.

    That is the number of multiply-adds that one weight of the kernel takes
    part in for one example, over all calls of its layer.

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
    kernels: dict[int, keras.Variable] = {}
    totals: collections.Counter = collections.Counter()
    for node in graph.nodes:
        for kernel, positions in kernel_positions(node):
            kernels[id(kernel)] = kernel
            totals[id(kernel)] += positions
    return [(kernel, totals[key]) for key, kernel in kernels.items()]


def layer_cost(calls: list[Node], elementwise: bool = False) -> LayerCost:
    """Returns what one layer costs.

    Args:
        calls: All its calls, of known sizes.
        elementwise: Whether to give the wider count.
    """
    first, layer = calls[0], calls[0].operation
    kernels = [pair for node in calls for pair in kernel_positions(node)]
    macs = sum(math.prod(kernel.shape) * n for kernel, n in kernels)
    if elementwise:
        macs += sum(map(_elementwise, calls))
    known = {id(kernel) for kernel, _ in kernels}
    # What has one axis, and a bias or slope, is applied entry by entry.
    not_counted = [
        v.name
        for v in getattr(layer, "weights", ())
        if len(v.shape) > 1
        and id(v) not in known
        and not v.name.endswith(("bias", "alpha"))
    ]
    return LayerCost(
        layer=first.path,
        type=first.type,
        parameters=count_parameters(layer),
        macs=macs,
        note=f"not counted: {', '.join(not_counted)}" if not_counted else "",
    )


def count_parameters(operation: keras.Operation) -> int:
    """Returns the number of parameters of a layer; 0 for other operations.

    Args:
        operation: A layer or another operation of a model.
    """
    weights = getattr(operation, "weights", ())
    return sum(math.prod(v.shape) for v in weights)


def has_sizes(graph: Graph) -> bool:
    """Returns whether all sizes but that of the batch are known.

    Args:
        graph: The calls of a model.
    """
    return all(
        None not in x.shape[1:]
        for node in graph.nodes
        for x in (*node.inputs, *node.outputs)
    )


def _require_sizes(model: keras.Model, graph: Graph):
    require(
        has_sizes(graph),
        "model",
        "a model whose inputs have known sizes",
        model,
    )


def kernel_positions(node: Node) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels of a call with their numbers of positions.

    Args:
        node: A call, of known sizes.
    """
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer):
        return []
    return [
        (getattr(layer, layout.kernel), _positions(layout, node))
        for layout in layouts((layer,))
    ]


def _positions(layout: Layout, node: Node) -> int:
    """Returns at how many positions a call applies a kernel."""
    if layout.applied == "lookup":
        return 0
    if layout.applied == "einsum":
        return _einsum_positions(node)
    x = (node.inputs if layout.applied == "inputs" else node.outputs)[0]
    first = getattr(node.operation, "data_format", "") == "channels_first"
    return _product(x.shape[2:] if first else x.shape[1:-1])


def _einsum_positions(node: Node) -> int:
    """Returns the product of the sizes of all axes that the kernel lacks."""
    operands, result = node.operation.equation.split("->")
    inputs, kernel = operands.split(",")
    sizes: dict[str | int, int | None] = {}
    for names, x in ((inputs, node.inputs[0]), (result, node.outputs[0])):
        hidden = x.rank - len(names.replace("...", ""))
        names = names.replace("...", "*" * hidden)
        # The batch axis comes first, and "*" stands for axes without name.
        for axis in range(1, x.rank):
            name = names[axis] if names[axis] != "*" else axis
            sizes[name] = x.shape[axis]
    return _product(n for name, n in sizes.items() if name not in set(kernel))


def _elementwise(node: Node) -> int:
    """Returns the outputs of a bias, an activation and a pooling of a call."""
    layer = node.operation
    size = sum(_product(y.shape[1:]) for y in node.outputs)
    activation = getattr(layer, "activation", None)
    is_active = activation not in (None, keras.activations.linear)
    return size * sum(
        (
            getattr(layer, "bias", None) is not None,
            is_active or _is_activation(node),
            isinstance(layer, _POOLING),
        )
    )


def _product(sizes: Iterable[int | None]) -> int:
    """Returns the product of sizes, all of which are known."""
    return math.prod(size for size in sizes if size is not None)


def _is_activation(node: Node) -> bool:
    """Returns whether what is called is an activation: layer or operation."""
    if isinstance(node.operation, keras.layers.Layer):
        return isinstance(node.operation, _ACTIVATIONS)
    name = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", node.type).lower()
    return hasattr(keras.activations, name)
