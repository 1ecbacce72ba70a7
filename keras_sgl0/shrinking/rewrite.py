"""Builds a new model without the channels that are cut."""

import numpy as np

from keras_sgl0.network.graph import Graph, Node
from keras_sgl0.structures.flat_copy import FlatCopy, NotCopied
from keras_sgl0.structures.liveness import Cuts
from keras_sgl0.structures.rules import Values
from keras_sgl0.structures.slices import Rewrite

_OURS = __name__.split(".")[0]


class Rebuilt(FlatCopy):
    """A model without the channels that are cut.

    Its layers have no penalties of this package, so that it loads where the
    package is not installed.

    Args:
        graph: The calls of the model.
        cuts: What stays of every tensor.
        values: Gives the values of a variable.
        name: The name of the new model.

    Raises:
        NotCopied: If a layer that must change has no usable config, or its
            calls differ in how it should change.

    Example:
        >>> Rebuilt(graph, cuts, values, "small").model
    """

    def __init__(self, graph: Graph, cuts: Cuts, values: Values, name: str):
        self._cuts = cuts
        self._values = values
        self._calls = graph.by_operation()
        super().__init__(graph, name)

    def change(self, node: Node) -> Rewrite | None:
        """Returns the layer without the channels that are cut."""
        cuts, calls = self._cuts, [node]
        if getattr(node.operation, "weights", ()):
            calls = self._calls[id(node.operation)]
        kept = cuts.kept_channels
        if all(kept[x].all() for n in calls for x in (*n.inputs, *n.made)):
            return None
        first, *others = (
            cuts.rules[n].cut(kept, cuts.input_constants[n]) for n in calls
        )
        if not all(_is_same(first, other) for other in others):
            raise NotCopied(node, "its calls leave different parts of it")
        return first

    def config(self, config: dict) -> dict:
        """Returns the config without the penalties of this package."""
        return _without_ours(config)

    def value(self, variable):
        """Returns the values, with zeros for what counts as zero."""
        return self._values(variable)


def _is_same(one: Rewrite, other: Rewrite) -> bool:
    """Returns whether two calls want the same of their layer."""
    return (
        one.config == other.config
        and (one.zeros, one.skipped) == (other.zeros, other.skipped)
        and one.arguments is other.arguments is None
        and one.weights.keys() == other.weights.keys()
        and all(
            np.array_equal(value, other.weights[name])
            for name, value in one.weights.items()
        )
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
