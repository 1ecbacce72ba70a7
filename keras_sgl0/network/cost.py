"""Counts the parameters and the multiply-adds of a model.

A weight of a kernel takes part in one multiply-add for every position at which
the kernel is applied, so a kernel costs its size times its positions, see
`network.positions`. Only kernels count: not the products of queries and keys
in an attention, nor those of gates in a recurrent layer.

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
from collections.abc import Iterable

import keras

from keras_sgl0.network.cost_report import CostReport, LayerCost
from keras_sgl0.network.equations import CONTRACTIONS
from keras_sgl0.network.graph import Graph, Node
from keras_sgl0.network.positions import kernel_positions, product
from keras_sgl0.network.unfolding import trace
from keras_sgl0.utils.validation import boolean, require

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
_CONVOLUTIONS = {"Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose"}
_ACTIVATIONS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Softmax,
)


def count_macs(
    model: keras.Model, elementwise: bool = False, input_shapes: object = None
) -> CostReport:
    """Returns the parameters and multiply-adds of every layer.

    Args:
        model: A built model. What its kernels are
            applied to needs known sizes.
        elementwise: Whether to give the wider count, see the module's
            docstring: with biases, activations and pooling outputs.
        input_shapes: The sizes of one example, such as `(224, 224, 3)`, for a
            model whose input sizes are not known. For several inputs a list of
            them, in the order of `model.inputs`, or a dictionary by name.

    Returns:
        A `CostReport`. A kernel of unknown layout counts as 0, and the note
        of its layer says so.

    Raises:
        ValueError: If the model is not built or cannot be traced, a size is
            needed that is not known, or `input_shapes` do not fit the inputs.

    Example:
        >>> count_macs(models.LeNet5Caffe()).macs
        2293000
    """
    elementwise = boolean("elementwise", elementwise)
    graph = trace(model, input_shapes)
    _require_sizes(graph, elementwise)
    calls_of_layers = graph.by_operation().values()
    counted: set[int] = set()
    return CostReport(
        tuple(
            layer_cost(calls, elementwise, counted) for calls in calls_of_layers
        )
    )


def macs_per_weight(model: keras.Model) -> list[tuple[keras.Variable, int]]:
    """Returns the kernels of a model, each with the positions it is applied at.

    That is the number of multiply-adds that one weight of the kernel takes
    part in for one example, over all calls of its layer.

    Args:
        model: A built model. What its kernels are
            applied to needs known sizes.

    Raises:
        ValueError: As in `count_macs`.

    Example:
        >>> [n for kernel, n in macs_per_weight(models.LeNet5Caffe())]
        [576, 64, 1, 1]
    """
    graph = trace(model)
    _require_sizes(graph)
    kernels: dict[int, keras.Variable] = {}
    totals: collections.Counter = collections.Counter()
    for node in graph.nodes:
        for kernel, positions in kernel_positions(node):
            kernels[id(kernel)] = kernel
            totals[id(kernel)] += positions or 0
    return [(kernel, totals[key]) for key, kernel in kernels.items()]


def layer_cost(
    calls: list[Node],
    elementwise: bool = False,
    counted: set[int] | None = None,
) -> LayerCost:
    """Returns what one layer costs.

    Args:
        calls: All its calls.
        elementwise: Whether to give the wider count.
        counted: As in `count_parameters`.

    Returns:
        Its cost, the multiply-adds `None` where a size is not known.
    """
    first, layer = calls[0], calls[0].operation
    kernels = [pair for node in calls for pair in kernel_positions(node)]
    macs = total(product((*kernel.shape, n)) for kernel, n in kernels)
    if elementwise:
        macs = total((macs, *map(_elementwise, calls)))
    known = {id(kernel) for kernel, _ in kernels}
    # What has one axis, and a bias or slope, is applied entry by entry.
    not_counted = [
        v.name
        for v in getattr(layer, "weights", ())
        if len(v.shape) > 1
        and id(v) not in known
        and not v.name.endswith(("bias", "alpha"))
    ]
    # A block may compute a kernel from its weights.
    if first.type in CONTRACTIONS | _CONVOLUTIONS and any(
        x.unbatched for x in first.inputs
    ):
        not_counted.append("a computed kernel")
    return LayerCost(
        layer=first.path,
        type=first.type,
        parameters=count_parameters(layer, counted),
        macs=macs,
        note=f"not counted: {', '.join(not_counted)}" if not_counted else "",
    )


def count_parameters(
    operation: keras.Operation, counted: set[int] | None = None
) -> int:
    """Returns the number of parameters of a layer; 0 for other operations.

    Args:
        operation: A layer or another operation of a model.
        counted: The variables that other layers have and that do not count
            again, by their `id`. Those of this layer are added.
    """
    counted = set() if counted is None else counted
    weights = {id(v): v for v in getattr(operation, "weights", ())}
    own = [v for key, v in weights.items() if key not in counted]
    counted.update(weights)
    return sum(math.prod(v.shape) for v in own)


def has_sizes(graph: Graph) -> bool:
    """Returns whether it is known how often each kernel is applied.

    Args:
        graph: The calls of a model.
    """
    return not _without_sizes(graph, False)


def total(numbers: Iterable[int | None]) -> int | None:
    """Returns a sum, `None` if one of the numbers is not known.

    Args:
        numbers: The numbers, or `None`.
    """
    numbers = list(numbers)
    known = [n for n in numbers if n is not None]
    return sum(known) if len(known) == len(numbers) else None


def _require_sizes(graph: Graph, elementwise: bool = False):
    unknown = _without_sizes(graph, elementwise)
    require(
        not unknown,
        "model",
        "a model whose inputs have known sizes, as far as kernels are applied "
        "to them (`count_macs` takes `input_shapes`)",
        f"unknown sizes at {unknown}",
    )


def _without_sizes(graph, elementwise) -> list[str]:
    """Returns the layers whose multiply-adds are not known."""
    return [
        calls[0].path
        for calls in graph.by_operation().values()
        if layer_cost(calls, elementwise).macs is None
    ]


def _elementwise(node: Node) -> int | None:
    """Returns the outputs of a bias, an activation and a pooling of a call."""
    layer = node.operation
    activation = getattr(layer, "activation", None)
    is_active = activation not in (None, keras.activations.linear)
    times = sum(
        (
            getattr(layer, "bias", None) is not None,
            is_active or _is_activation(node),
            isinstance(layer, _POOLING),
        )
    )
    if not times:
        return 0
    size = total(product((y.entries, *y.shape[1:])) for y in node.outputs)
    return None if size is None else times * size


def _is_activation(node: Node) -> bool:
    """Returns whether what is called is an activation: layer or operation."""
    if isinstance(node.operation, keras.layers.Layer):
        return isinstance(node.operation, _ACTIVATIONS)
    name = node.type.lower()
    return name == "exp" or name in {
        known.replace("_", "") for known in vars(keras.activations)
    }
