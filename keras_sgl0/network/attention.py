"""What an attention layer is made of: its inputs and its projections.

Keras keeps the projections in private attributes, so they are named here.
"""

import inspect

import keras

from keras_sgl0.network.graph import Node, Tensor, tensors

_PROJECTIONS = {
    "query": "_query_dense",
    "key": "_key_dense",
    "value": "_value_dense",
    "gate": "_gate_dense",
    "output": "_output_dense",
}
_IN = ("query", "key", "value", "gate")


def projections(layer: keras.layers.Layer) -> dict[str, str]:
    """Returns the attributes that hold the projections of an attention.

    Args:
        layer: A built `MultiHeadAttention` or `GroupQueryAttention`.

    Returns:
        The attributes by `"query"`, `"key"`, `"value"`, `"output"`, and
        `"gate"` if there is one.
    """
    return {k: v for k, v in _PROJECTIONS.items() if hasattr(layer, v)}


def projected(node: Node) -> dict[str, Tensor]:
    """Returns what each projection of the inputs of an attention reads.

    Args:
        node: A call of an attention layer.

    Returns:
        The inputs by the name of the projection. What is no `Tensor`, but an
        array, is left out.
    """
    layer = node.operation
    call = inspect.signature(layer.call).bind(*node.args, **node.kwargs)
    given = call.arguments
    if given.get("key") is None:
        given["key"] = given["value"]
    named = {k: given["query" if k == "gate" else k] for k in _IN}
    own = projections(layer)
    return {k: x for k, y in named.items() if k in own for x in tensors(y)}
