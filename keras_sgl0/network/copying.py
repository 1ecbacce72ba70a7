"""Copies of layers: what their config says, and what it does not."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.network.configs import config_of, foreign_parts, made_from
from keras_sgl0.network.graph import Graph, Node, Tensor
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.probing import random_inputs

# What sizes become that are not known, one after the other.
_SIZES = (96, 8)


def from_config(
    node: Node, change: Callable = lambda config: config
) -> keras.Operation:
    """Returns a copy of what is called, without the values of its weights.

    A config may leave something out, and a function of the user that is named
    like one of Keras comes back as that one. So where a class or a function is
    not Keras's own, the unchanged copy must have the same outputs on random
    inputs. Nothing has to be registered with Keras.

    Args:
        node: A call of a layer or of another operation.
        change: Takes the config and returns the one to use.

    Raises:
        ValueError: If it has state outside its config, as `StringLookup` has,
            or its config gives another layer. The config of a user's layer
            may raise any other error.
    """
    operation = node.operation
    if any(hasattr(part, "save_assets") for part in all_layers(operation)):
        raise ValueError("Its state is not in its config.")
    if foreign_parts(operation) and not _is_given_back(node):
        raise ValueError("Its config gives another layer.")
    return made_from(operation, change(config_of(operation)))


def with_config(layer: keras.layers.Layer, changes: dict) -> dict:
    """Returns what a layer is made from, with other entries of its config.

    Args:
        layer: The layer.
        changes: The entries that change.
    """
    made = keras.saving.serialize_keras_object(layer)
    made.pop("build_config", None)  # it would be built for the old sizes
    return made | {"config": made["config"] | changes}


def can_be_copied(node: Node) -> bool:
    """Returns whether what is called can be made from its config.

    Args:
        node: A call of a layer or of another operation.
    """
    if not foreign_parts(node.operation):
        return True
    try:
        from_config(node)
    except Exception:  # the config of a user's layer may raise anything
        return False
    return True


def sharing_weights(operations: Iterable[keras.Operation]) -> dict[int, str]:
    """Returns which operations share weights with another one.

    Two layers may have one activation layer with weights. Copies of both by
    their configs would have one each.

    Args:
        operations: The layers and operations of a model.

    Returns:
        The name of the first other one, by the `id` of the operation.
    """
    owners: dict[int, dict[int, keras.Operation]] = {}
    for operation in operations:
        for v in getattr(operation, "weights", ()):
            owners.setdefault(id(v), {})[id(operation)] = operation
    found: dict[int, str] = {}
    for several in owners.values():
        for one in several:
            others = [o.name for key, o in several.items() if key != one]
            if others:
                found.setdefault(one, others[0])
    return found


def shared_weights(graph: Graph) -> dict[Node, str]:
    """Returns the calls of layers that share weights with others, and why.

    Args:
        graph: The calls of a model.
    """
    found = sharing_weights(node.operation for node in graph.nodes)
    return {
        node: f"it shares weights with `{found[id(node.operation)]}`"
        for node in graph.nodes
        if id(node.operation) in found
    }


def not_copied(graph: Graph) -> dict[Node, str]:
    """Returns the calls of layers that cannot be copied, with the reason.

    Args:
        graph: The calls of a model.
    """
    return shared_weights(graph) | {
        node: "it cannot be made from its config"
        for node in graph.nodes
        if not can_be_copied(node)
    }


def refresh(layer: keras.Operation):
    """Updates what a layer computes from its weights once they are set.

    `Normalization` computes its mean and variance from them.

    Args:
        layer: A layer, which may have others in it.
    """
    for part in all_layers(layer):
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()


def _is_given_back(node) -> bool:
    """Returns whether a copy by the config has the same outputs."""
    operation = node.operation
    copy = made_from(operation, config_of(operation))
    # Strides may leave nothing of short inputs, a table be at an end of long.
    for size in _SIZES:
        arguments = _random_arguments(node, size)
        try:
            # Builds it. One of another library may need no build, nor allow it.
            copy(*arguments[0], **arguments[1])
            break
        except Exception:
            if size == _SIZES[-1]:
                raise
    pair = [_outputs(x, operation, *arguments) for x in (operation, copy)]
    expected, received = map(tree.flatten, pair)
    return len(expected) == len(received) and all(
        map(_is_same, expected, received)
    )


def _random_arguments(node, size):
    """Returns arguments of a call, with a size for what is not known."""
    return tree.map_structure(
        lambda x: (
            random_inputs(x.spec, unknown=size) if isinstance(x, Tensor) else x
        ),
        (node.args, node.kwargs),
    )


def _outputs(operation, original, args, kwargs):
    """Returns the outputs of an operation with the weights of another.

    No variable changes, the states of layers and of seeds included.
    """
    if not isinstance(operation, keras.layers.Layer):
        return operation(*args, **kwargs)
    values = {
        id(own): ops.reshape(ops.convert_to_tensor(v), own.shape)
        for own, v in zip(operation.variables, original.variables, strict=True)
    }
    results, _ = operation.stateless_call(
        [values[id(v)] for v in operation.trainable_variables],
        [values[id(v)] for v in operation.non_trainable_variables],
        *args,
        **kwargs,
    )
    return results


def _is_same(expected, received) -> bool:
    """Returns whether two outputs are equal, but for rounding."""
    a, b = (np.asarray(ops.convert_to_numpy(x)) for x in (expected, received))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not keras.backend.is_float_dtype(a.dtype.name):
        return bool((a == b).all())
    a, b = a.astype("float64"), b.astype("float64")
    scale = np.max(np.abs(a), initial=0, where=np.isfinite(a))
    return np.allclose(a, b, rtol=0, atol=1e-6 * scale, equal_nan=True)
