"""Copies a model call by call, with changes on the way."""

import dataclasses
import itertools
import operator
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sgl0.network.configs import for_other_sizes
from keras_sgl0.network.copying import from_config, refresh, shared_weights
from keras_sgl0.network.graph import Graph, Node, Tensor, fill, tensors
from keras_sgl0.network.views import maker_name, mark_as_dense
from keras_sgl0.structures.slices import Rewrite, Zeros, variable_of


class NotCopied(Exception):  # noqa: N818
    """A layer that must change cannot be made anew.

    Args:
        node: A call of the layer.
        reason: Why.
    """

    def __init__(
        self, node: Node, reason: str = "it cannot be made from its config"
    ):
        super().__init__(node.path)
        self.node = node
        self.reason = reason


class FlatCopy:
    """A copy of a model in which the models in it are unfolded.

    A layer without weights is copied once for each of its calls. A layer that
    cannot be made from its config, or that shares weights with another one, is
    in both models. The outputs keep
    their names. What a subclass overrides is different in the copy.

    Args:
        graph: The calls of the model.
        name: The name of the new model.

    Attributes:
        model: The copy. It is not compiled.
        layers: For each call the layer or operation of the copy.
        made: The tensors of the copy, by those of the model.
        shared: The calls whose layers are in both models.

    Raises:
        NotCopied: If a layer that must change has no usable config.

    Example:
        >>> FlatCopy(trace(model), "copy").model
    """

    def __init__(self, graph: Graph, name: str):
        self._tied = shared_weights(graph)
        self._copies: dict[int, tuple[keras.Operation, Zeros | None]] = {}
        self._owners: dict[str, keras.Operation] = {}
        self._names = {x.spec.name for x in tensors(graph.inputs)}
        # Names of layers in inner models give way to these.
        outer = {n.path for n in graph.nodes} | set(graph.output_names)
        self._outer = outer - self._names
        self.layers: dict[Node, keras.Operation] = {}
        self.shared: list[Node] = []
        self.made: dict[Tensor, Any]
        self.made = made = {
            x: _input(x, x.spec.name) for x in tensors(graph.inputs)
        }
        for node in graph.nodes:
            results = keras.tree.flatten(self._call(node, made))
            made.update(zip(node.outputs, results, strict=True))
            for y in node.outputs:
                if not y.spec.sparse:
                    mark_as_dense(made[y])
        self.model = keras.Model(
            fill(graph.inputs, made), self._outputs(graph, made), name=name
        )

    def change(self, node: Node) -> Rewrite | None:
        """Returns how the layer of a call changes, `None` if it does not.

        A layer with weights is asked for at its first call only.

        Args:
            node: The call.
        """
        return None

    def config(self, config: dict) -> dict:
        """Returns the config to copy a layer by.

        Args:
            config: That of the layer.
        """
        return config

    def value(self, variable):
        """Returns the value that the copy of a variable gets.

        Args:
            variable: A variable of a layer that does not change.
        """
        # A copy: on JAX training gives the memory of an array away.
        return ops.convert_to_numpy(variable)

    def given(self, node: Node, made: dict[Tensor, Any]) -> dict[Tensor, Any]:
        """Returns what the layer of a call is called on.

        Args:
            node: The call.
            made: The tensors of the copy, by those of the model.
        """
        return made

    def set_weights(
        self, node: Node, new: keras.Operation, change: Rewrite | None
    ):
        """Gives a copy its weights.

        Args:
            node: The first call of the layer.
            new: The copy of the layer.
            change: How it changes, `None` if it does not.
        """
        if change is not None:
            for attribute, value in change.weights.items():
                variable_of(new, attribute).assign(value)
            return
        for a, b in weight_pairs(node.operation, new):
            # A weight of a block becomes a table of rows.
            b.assign(ops.reshape(self.value(a), b.shape))
        refresh(new)

    def unused(self, *names: str) -> str:
        """Returns the first name that is free, the last one numbered if none.

        Args:
            *names: The names to choose from.
        """
        taken = self._names | self._outer
        numbered = (f"{names[-1]}_{i}" for i in itertools.count(1))
        candidates = itertools.chain(names, numbered)
        return next(n for n in candidates if n not in taken)

    def _outputs(self, graph, made):
        """Returns the outputs, under the names they have in the model."""
        own = {x: x.spec.name for x in tensors(graph.inputs)}
        for node, layer in self.layers.items():
            own.update(dict.fromkeys(node.outputs, layer.name))
        pairs = zip(tensors(graph.outputs), graph.output_names, strict=True)
        results = []
        for y, name in pairs:
            result = made[y]
            # Two outputs of one inner model have one name: no layer has it.
            if name != own.get(y) and graph.output_names.count(name) == 1:
                dtype = keras.backend.standardize_dtype(y.spec.dtype)
                result = keras.layers.Identity(name=name, dtype=dtype)(result)
            results.append(result)
        return keras.tree.pack_sequence_as(graph.outputs, results)

    def _call(self, node, made):
        """Makes the new layer of a call, calls it and sets its weights."""
        made = self.given(node, made)
        has_weights = bool(getattr(node.operation, "weights", ()))
        if has_weights and id(node.operation) in self._copies:
            layer, zeros = self._copies[id(node.operation)]
            self.layers[node] = layer
            if zeros is not None:
                return self._filled_call(node, layer, made, zeros)
            return self._shared_call(node, layer, made)
        change = self.change(node)
        if change is not None and change.skipped:
            return made[node.inputs[0]]
        zeros = change.zeros if change else None
        try:
            if node in self._tied:
                raise ValueError(self._tied[node])
            layer = self._copy(node, change)
            if zeros is not None:
                results = self._filled_call(node, layer, made, zeros)
            else:
                results = _with(node, change).call(layer, made)
            self.set_weights(node, layer, change)
        except Exception as error:
            # The config of a user's layer may raise anything. As long as the
            # layer need not change, both models can have it.
            if change is not None:
                raise NotCopied(node) from error
            layer = node.operation
            results = self._shared_call(node, layer, made)
            self.shared.append(node)
        self._copies[id(node.operation)] = layer, zeros
        self.layers[node] = layer
        self._names.add(layer.name)
        self._owners.setdefault(layer.name, layer)
        return results

    def _shared_call(self, node, layer, made):
        """Calls a layer that was called before or is in both models.

        If another layer has its name, that is inside a model of its own.
        """
        if self._owners.get(layer.name, layer) is layer:
            return node.call(layer, made)
        inner = {x: _input(x, None) for x in node.inputs}
        name = self.unused(node.path.replace("/", "_"))
        self._names.add(name)
        model = keras.Model(
            [*inner.values()], node.call(layer, inner), name=name
        )
        return model([made[x] for x in inner])

    def _filled_call(self, node, layer, made, zeros: Zeros):
        """Calls a layer with zeros for the channels that are cut."""
        x = made[node.inputs[0]]
        widths = [(0, 0)] * len(x.shape)
        widths[zeros.axis] = (0, zeros.number)
        filled = self._named(ops.pad, x, widths)
        y = node.call(layer, {**made, node.inputs[0]: filled})
        if not zeros.removed:
            return y
        stay = slice(None, x.shape[zeros.axis])
        key = (*(slice(None) for _ in range(zeros.axis)), stay)
        return self._named(operator.getitem, y, key)

    def _named(self, function: Callable, *args):
        """Calls an operation under a name that no other one has.

        Keras numbers operations without a look at the model.
        """
        taken = self._names | self._outer
        while True:
            y = function(*args)
            name = maker_name(y)
            if name not in taken:
                self._names.add(name)
                return y

    def _copy(self, node, change):
        """Returns a copy of a layer, its weights not yet set."""
        name = {"name": self._name(node)}

        def changed(config):
            if change is not None:
                config = for_other_sizes(config) | change.config
            return self.config(config | name)

        return from_config(node, changed)

    def _name(self, node):
        """Returns a name for the layer of a call that no other layer has."""
        name, path = node.operation.name, node.path.replace("/", "_")
        if name == node.path and name not in self._names:
            return name
        return self.unused(name, path)


def weight_pairs(old: keras.Operation, new: keras.Operation) -> list[tuple]:
    """Returns the weights of a layer, each with that of its copy.

    Args:
        old: A layer or another operation.
        new: An unchanged copy of it.
    """
    olds, news = getattr(old, "weights", ()), getattr(new, "weights", ())
    return list(zip(olds, news, strict=True))


def _with(node: Node, change: Rewrite | None) -> Node:
    """Returns a call with the arguments that a change gives it."""
    if change is None or change.arguments is None:
        return node
    args, kwargs = change.arguments
    return dataclasses.replace(node, args=args, kwargs=kwargs)


def _input(x: Tensor, name: str | None):
    """Returns an input of the shape and dtype of a tensor."""
    return keras.Input(
        batch_shape=x.shape,
        dtype=x.spec.dtype,
        sparse=x.spec.sparse,
        optional=x.optional,
        name=name,
    )
