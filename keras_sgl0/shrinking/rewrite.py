"""Builds a new model without the channels that are cut."""

import itertools

import keras

from keras_sgl0.network.copying import from_config, refresh
from keras_sgl0.network.graph import Graph, Node, fill, tensors
from keras_sgl0.structures.liveness import Cuts
from keras_sgl0.structures.rules import Rewrite, Values

_OURS = __name__.split(".")[0]


class NotCopied(Exception):  # noqa: N818
    """A layer that must change cannot be made from its config.

    Args:
        node: A call of the layer.
    """

    def __init__(self, node: Node):
        super().__init__(node.path)
        self.node = node


class Rebuilt:
    """A model without the channels that are cut.

    A layer without weights is copied once for each of its calls. A layer that
    cannot be made from its config is shared by both models.

    Args:
        graph: The calls of the model.
        cuts: What stays of every tensor.
        values: Gives the values of a variable.
        name: The name of the new model.

    Raises:
        NotCopied: If a layer that must change has no usable config.

    Example:
        >>> Rebuilt(graph, cuts, values, "small").model
    """

    def __init__(self, graph: Graph, cuts: Cuts, values: Values, name: str):
        self._cuts = cuts
        self._values = values
        self._copies: dict[int, keras.Operation] = {}
        self._names = {x.spec.name for x in tensors(graph.inputs)}
        # Names of layers in inner models give way to these.
        self._outer = {n.path for n in graph.nodes} - self._names
        self.layers: dict[Node, keras.Operation] = {}
        self.shared: list[Node] = []
        made = {
            x: keras.Input(
                batch_shape=x.shape,
                dtype=x.spec.dtype,
                sparse=x.spec.sparse,
                optional=x.optional,
                name=x.spec.name,
            )
            for x in tensors(graph.inputs)
        }
        for node in graph.nodes:
            results = keras.tree.flatten(self._call(node, made))
            made.update(zip(node.outputs, results, strict=True))
        self.model = keras.Model(
            fill(graph.inputs, made), fill(graph.outputs, made), name=name
        )

    def _call(self, node, made):
        """Makes the new layer of a call, calls it and sets its weights."""
        kept_inputs = [self._cuts.kept_channels[x] for x in node.inputs]
        kept_outputs = [self._cuts.kept_channels[y] for y in node.outputs]
        if all(k.all() for k in (*kept_inputs, *kept_outputs)):
            change = None
        else:
            rule, input_constants = (
                self._cuts.rules[node],
                self._cuts.input_constants[node],
            )
            change = rule.rewrite(kept_inputs, kept_outputs[0], input_constants)
        has_weights = bool(getattr(node.operation, "weights", ()))
        if has_weights and id(node.operation) in self._copies:
            layer = self._copies[id(node.operation)]
            self.layers[node] = layer
            return node.call(layer, made)
        try:
            layer = _copy(node, change, self._unused(node))
            results = node.call(layer, made)
            self._set_weights(node.operation, layer, change)
        except Exception as error:
            # The config of a user's layer may raise anything. As long as the
            # layer need not change, both models can have it.
            if change is not None:
                raise NotCopied(node) from error
            layer = node.operation
            results = node.call(layer, made)
            self.shared.append(node)
        self._copies[id(node.operation)] = self.layers[node] = layer
        self._names.add(layer.name)
        return results

    def _set_weights(self, old, new, change):
        if change is not None and change.weights:
            for attribute, value in change.weights.items():
                getattr(new, attribute).assign(value)
            return
        olds, news = getattr(old, "weights", ()), getattr(new, "weights", ())
        if change is None:
            for a, b in zip(olds, news, strict=True):
                b.assign(self._values(a))
            refresh(new)

    def _unused(self, node):
        """Returns a name for the layer of a call that no other layer has."""
        name, path = node.operation.name, node.path.replace("/", "_")
        numbered = (f"{path}_{i}" for i in itertools.count(1))
        taken = self._names | (self._outer if name != node.path else set())
        names = itertools.chain((name, path), numbered)
        return next(n for n in names if n not in taken)


def _copy(node, change: Rewrite | None, name):
    """Returns a copy of a layer, without the penalties of this package.

    The smaller model then loads where this package is not installed.
    """
    own = (change.config if change else {}) | {"name": name}
    return from_config(
        node.operation, lambda config: _without_ours(config) | own
    )


def _without_ours(config):
    """Returns a config without regularizers and constraints of this package."""
    if isinstance(config, dict):
        return {
            key: None if _is_ours(key, value) else _without_ours(value)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_without_ours(value) for value in config]
    return config


def _is_ours(key, value) -> bool:
    return (
        str(key).endswith(("regularizer", "constraint"))
        and isinstance(value, dict)
        and str(value.get("registered_name")).startswith(f"{_OURS}>")
    )
