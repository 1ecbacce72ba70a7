"""Which kernels make a model's outputs: one channel, one class or value.

A group of such a kernel on its output axis is a whole output of the model. The
walk goes from the outputs back to the kernels, through every call that hands
channels on: activations, softmax, normalization, pooling, sums, reshaping.
"""

from typing import NamedTuple

import keras

from keras_sgl0.network.equations import CONTRACTIONS
from keras_sgl0.network.graph import Node, tensors
from keras_sgl0.network.layer_table import (
    is_projection,
    layouts,
    layouts_of,
    walk_layers,
)
from keras_sgl0.network.unfolding import trace

# What has weights of several axes, or may have, and yet makes no channels.
_CHANNELWISE = (
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


class OutputKernels(NamedTuple):
    """The kernels that make the outputs of a model, by their `id`.

    Args:
        known: Those that do.
        unclear: Those that may, inside a layer or model whose calls cannot be
            looked into.
    """

    known: set[int]
    unclear: set[int]


def output_kernels(model: keras.Model) -> OutputKernels:
    """Returns which kernels make the outputs of a model.

    Models in it are looked into, and layers made of others. Where that is not
    possible nothing is known but the kernels in them; the layers of Keras that
    wrap one other layer, and attention, are known.

    Args:
        model: A built model.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), Dense(8), Dense(3), Softmax()]
        ... )
        >>> output_kernels(model).known == {id(model.layers[1].kernel)}
        True
    """
    try:
        graph = trace(model)
    except Exception:  # it cannot be traced, or the call of a user's layer
        return OutputKernels(set(), set(layouts_of(model)))
    found = OutputKernels(set(), set())
    makers = {y: node for node in graph.nodes for y in node.outputs}
    waiting = tensors(graph.outputs)
    visited: set[Node] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node in visited:
            continue
        visited.add(node)
        own, hands_on = _at(node.operation)
        found.known.update(own.known)
        found.unclear.update(own.unclear)
        if hands_on:
            waiting += node.inputs
    return found


def _at(operation: keras.Operation) -> tuple[OutputKernels, bool]:
    """Returns the kernels that make an operation's outputs.

    And whether its outputs have the channels of its inputs.
    """
    while isinstance(operation, keras.layers.Wrapper):
        operation = operation.layer
    none = OutputKernels(set(), set())
    # They sum over the channels of their inputs. Any other operation without
    # weights is taken to hand channels on, which at worst spares a kernel.
    if type(operation).__name__ in CONTRACTIONS:
        return none, False
    if not isinstance(operation, keras.layers.Layer):
        return none, True
    rows = layouts((operation,))
    if rows:
        # Of a separable convolution the last kernel makes the outputs.
        kernel = getattr(operation, rows[-1].kernel)
        if len(kernel.shape) < 2:  # a vector of a block, added or multiplied
            return none, True
        hands_on = isinstance(operation, _DEPTHWISE)
        return OutputKernels({id(kernel)}, set()), hands_on
    hands_on = not _has_matrix(operation)
    if isinstance(operation, keras.Model):
        return output_kernels(operation), hands_on
    projections = {
        id(line[-1].kernel)
        for line in walk_layers(operation)
        if len(line) == 2
        and is_projection(line)
        and line[-1].name == "attention_output"
    }
    if projections:
        return OutputKernels(projections, set()), False
    return OutputKernels(set(), set(layouts_of(operation))), hands_on


def _has_matrix(layer: keras.layers.Layer) -> bool:
    """Whether a layer of no known type may mix the channels of its inputs."""
    if isinstance(layer, _CHANNELWISE):
        return False
    return any(len(v.shape) > 1 for v in layer.weights)
