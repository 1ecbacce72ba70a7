"""The calls that Keras has recorded on the way to symbolic tensors."""

from collections.abc import Collection
from typing import Any, NamedTuple

import keras
from keras import tree

from keras_sgl0.network.guards import NotTraced

_INPUT = keras.layers.InputLayer


class Call(NamedTuple):
    """One call of a layer or operation.

    Args:
        operation: The layer or operation.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        outputs: The symbolic tensors it returns, a flat list.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: list[keras.KerasTensor]

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The symbolic tensors among its arguments."""
        flat = tree.flatten((self.args, self.kwargs))
        return [x for x in flat if isinstance(x, keras.KerasTensor)]


def calls_behind(
    outputs: object,
    known: Collection[int],
    own: Collection[int] | None = None,
) -> list[Call]:
    """Returns the calls that lead from known tensors to others.

    Args:
        outputs: Symbolic tensors in any structure.
        known: The known tensors, by their `id`.
        own: The layers that may be called, by their `id`; `None` for any.

    Raises:
        NotTraced: If there is a call that is not known all about.
    """
    found: dict[int, Any] = {}
    stack = [(_node(y, known), False) for y in reversed(tree.flatten(outputs))]
    while stack:
        node, is_complete = stack.pop()
        if node is None or id(node) in found:
            continue
        if is_complete:
            found[id(node)] = node
            continue
        operation = node.operation
        is_layer = isinstance(operation, keras.layers.Layer)
        if is_layer and own is not None and id(operation) not in own:
            # One without weights may be made in the call itself.
            if operation.variables or isinstance(operation, _INPUT):
                raise NotTraced(f"it uses `{operation.name}`, not in it")
        stack.append((node, True))
        before = [_node(x, known) for x in node.input_tensors]
        stack += [(parent, False) for parent in reversed(before)]
    return [call_of(node) for node in found.values()]


def call_of(node) -> Call:
    """Returns a call that Keras has recorded.

    Args:
        node: Keras's own node.
    """
    arguments = node.arguments
    return Call(
        node.operation, arguments.args, dict(arguments.kwargs), node.outputs
    )


def _node(x, known):
    """Returns which call has made a tensor, `None` for a known tensor."""
    if not isinstance(x, keras.KerasTensor):
        raise NotTraced("it returns what is no tensor")
    if id(x) in known:
        return None
    history = getattr(x, "_keras_history", None)
    if history is None or history.operation is None:
        raise NotTraced("it uses a tensor of another call")
    return history.operation._inbound_nodes[history.node_index]
