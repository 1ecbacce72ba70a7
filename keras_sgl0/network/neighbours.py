"""What stands before and behind a layer in a Functional model."""

import keras
from keras import tree

from keras_sgl0.network.calls import Call, call_of
from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.specs import spec_of


def readers(layer: keras.layers.Layer) -> list[keras.Operation]:
    """Returns what is called on an output of a layer, each operation once.

    Args:
        layer: A layer of a Functional or Sequential model.
    """
    return _each_once(layer._outbound_nodes)


def parents(layer: keras.layers.Layer) -> list[keras.Operation]:
    """Returns whose outputs a layer is called on, each operation once.

    Args:
        layer: A layer of a Functional or Sequential model.
    """
    nodes = layer._inbound_nodes
    return _each_once(p for node in nodes for p in node.parent_nodes)


def output_layers(model: keras.Model) -> list[keras.Operation]:
    """Returns whose outputs are outputs of a model, or of a model in it.

    Args:
        model: A built model.
    """
    models = [m for m in all_layers(model) if hasattr(m, "outputs")]
    outputs = [x for m in models for x in m.outputs]
    return [x._keras_history.operation for x in outputs]


def calls_before(layer: keras.layers.Layer) -> list[Node]:
    """Returns the calls that lead to a layer, in the order of computation.

    Each of them reads nothing but the one before it. The first is an input of
    the model, or a call that reads several tensors.

    Args:
        layer: A layer of a Functional or Sequential model.
    """
    found: list = []
    # The first call of a layer: `Sequential.add` calls all layers again.
    nodes = layer._inbound_nodes[:1]
    while nodes and len(nodes[0].parent_nodes) == 1:
        nodes = nodes[0].parent_nodes
        found.insert(0, nodes[0])
    known: dict[int, Tensor] = {}
    return [_called(call_of(node), known) for node in found]


def first_call(layer: keras.layers.Layer) -> Node:
    """Returns the first call of a layer, one without inputs if it has none.

    Args:
        layer: A layer.
    """
    nodes = layer._inbound_nodes
    call = call_of(nodes[0]) if nodes else Call(layer, (), {}, [])
    return _called(call, {})


def _called(call, known) -> Node:
    """Returns a call that Keras has recorded, its tensors being made known."""

    def tensor(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        return known.setdefault(id(x), Tensor(spec_of(x, x.name)))

    args, kwargs, results = tree.map_structure(
        tensor, (call.args, call.kwargs, call.outputs)
    )
    name = call.operation.name
    return Node(call.operation, name, args, kwargs, results)


def _each_once(nodes) -> list[keras.Operation]:
    return list(dict.fromkeys(node.operation for node in nodes))
