"""A model as a flat list of calls, with the models inside it unfolded.

Keras's own graph is read here and nowhere else, as parts of it are private.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras import tree

from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.utils.validation import require, require_built


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor that one call returns and others read.

    Attributes:
        spec: Its shape and dtype, the batch axis first.
        axes: The axes that its channels run over, in ascending order: one, the
            last unless set otherwise, or several. The channels of several
            axes are counted with the last one running fastest.
        optional: Whether it is an input that may be left out.
    """

    spec: keras.KerasTensor
    axes: tuple[int, ...] = (-1,)
    optional: bool = False

    def __post_init__(self):
        self.axes = tuple(sorted(a % max(self.rank, 1) for a in self.axes))

    @property
    def axis(self) -> int | None:
        """The axis of its channels, `None` where they run over several."""
        return self.axes[0] if len(self.axes) == 1 else None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape, `None` where a size is not known."""
        return tuple(self.spec.shape)

    @property
    def rank(self) -> int:
        """The number of axes, that of the batch included."""
        return len(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of its channel axes; 1 where it is unknown or no axis."""
        return tuple(
            (self.shape[a] or 1) if self.rank > 1 else 1 for a in self.axes
        )

    @property
    def channels(self) -> int:
        """The number of channels."""
        return math.prod(self.sizes)

    def by_channel(self, values):
        """Returns an array of its shape as `(positions, channels)`.

        Args:
            values: The array.
        """
        places = range(-len(self.axes), 0)
        moved = np.moveaxis(np.asarray(values), self.axes, tuple(places))
        return moved.reshape(-1, self.channels)


@dataclasses.dataclass(eq=False)
class Node:
    """One call of a layer or of another operation.

    Attributes:
        operation: The layer or operation.
        path: Its name after those of the models it is in, `outer/inner`.
        args: Its positional arguments, with a `Tensor` for every tensor.
        kwargs: Its keyword arguments likewise.
        results: What it returns, a `Tensor` or a structure of them.
        calls: How often the operation is called in the whole model.
        inner: What is inside the call and has channels of its own, such as
            the heads of an attention; set with the rule of the call.
    """

    operation: keras.Operation
    path: str
    args: tuple
    kwargs: dict
    results: object
    calls: int = 1
    inner: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def made(self) -> list[Tensor]:
        """The tensors it returns, then those inside the call."""
        return [*self.outputs, *self.inner]

    @property
    def type(self) -> str:
        """The name of the operation's class."""
        return type(self.operation).__name__

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return tensors((self.args, self.kwargs))

    @property
    def outputs(self) -> list[Tensor]:
        """The tensors it returns."""
        return tensors(self.results)

    def call(self, operation: Callable, values: dict[Tensor, object]):
        """Calls an operation as this one was called.

        Args:
            operation: The layer or operation to call.
            values: What to pass in the place of each tensor.
        """
        args, kwargs = fill((self.args, self.kwargs), values)
        return operation(*args, **kwargs)


@dataclasses.dataclass(eq=False)
class Graph:
    """All calls of a model in the order of computation.

    Attributes:
        inputs: The model's inputs, structured as the model wants them.
        outputs: The model's outputs, structured as the model returns them.
        nodes: The calls.
        output_names: The names of the outputs, by which losses are given: a
            model in the model gives its own name to what it makes.
    """

    inputs: object
    outputs: object
    nodes: list[Node]
    output_names: list[str]

    def by_operation(self) -> dict[int, list[Node]]:
        """Returns all calls of each operation, by the operation's `id`."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(id(node.operation), []).append(node)
        return found


def trace(model: keras.Model, input_shapes: object = None) -> Graph:
    """Returns the calls a model makes, those of the models in it included.

    Args:
        model: A built Sequential or Functional model.
        input_shapes: The sizes of one example where the model leaves them
            open: a shape, for several inputs a list, or a dictionary by name.

    Raises:
        ValueError: If the model is not built, or is subclassed, or
            `input_shapes` do not fit its inputs.
    """
    view = functional(model)
    nodes: list[Node] = []
    layers = {
        id(layer.output): layer
        for layer in view.layers
        if isinstance(layer, keras.layers.InputLayer)
    }

    shapes = _shapes(view, layers, input_shapes)

    def tensor(x):
        layer = layers.get(id(x))
        name = layer.name if layer else x.name
        spec = _spec(x, name, shapes.get(id(x)))
        return Tensor(spec, optional=bool(layer and layer.optional))

    inputs = tree.map_structure(tensor, view.input)
    outputs = _run(view, inputs, nodes, "", None)
    graph = Graph(inputs, outputs, nodes, list(view.output_names))
    for calls in graph.by_operation().values():
        for node in calls:
            node.calls = len(calls)
    return graph


def functional(model: keras.Model, name: str = "model") -> keras.Model:
    """Returns a model as a Functional one, which shows its inputs and calls.

    Args:
        model: A built Sequential or Functional model.
        name: The name of the argument that it is.

    Raises:
        ValueError: If the model is not built, or is subclassed.
    """
    require_built(model, name)
    view = _functional(model)
    require(
        view is not None,
        name,
        "a Sequential or Functional model (of a subclassed one, pass the "
        "Functional part, or build `keras.Model(x, model.call(x))` on a "
        "`keras.Input` x)",
        model,
    )
    return view


def tensors(structure) -> list[Tensor]:
    """Returns the tensors in a structure, in order.

    Args:
        structure: Any nesting of lists, tuples and dictionaries.
    """
    return [x for x in tree.flatten(structure) if isinstance(x, Tensor)]


def fill(structure, values: dict[Tensor, object]):
    """Returns a structure with other values in the place of its tensors.

    Args:
        structure: Any nesting of lists, tuples and dictionaries.
        values: One value for each tensor.
    """
    return tree.map_structure(
        lambda x: values[x] if isinstance(x, Tensor) else x, structure
    )


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

    def tensor(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        return known.setdefault(id(x), Tensor(_spec(x, x.name)))

    return [
        Node(
            operation=node.operation,
            path=node.operation.name,
            args=tree.map_structure(tensor, node.arguments.args),
            kwargs=tree.map_structure(tensor, node.arguments.kwargs),
            results=tree.map_structure(tensor, node.outputs),
        )
        for node in found
    ]


def _each_once(nodes) -> list[keras.Operation]:
    return list(dict.fromkeys(node.operation for node in nodes))


def _functional(model):
    """Returns a model as a Functional one, `None` where it is not like one."""
    call = getattr(type(model), "call", None)
    owner = getattr(call, "__qualname__", "")
    if owner == "Sequential.call" and model.built:
        try:
            return keras.Model(model.inputs[0], model.outputs[0])
        except (AttributeError, ValueError):
            # Without a known input shape it has no calls to show.
            return None
    return model if owner == "Functional.call" else None


def _spec(x, name=None, shape=None) -> keras.KerasTensor:
    shape = x.shape if shape is None else shape
    return keras.KerasTensor(shape, x.dtype, sparse=x.sparse, name=name)


def _shapes(view, layers, given) -> dict[int, tuple[int | None, ...]]:
    """Returns the shapes of inputs whose sizes are given, by their `id`."""
    if given is None:
        return {}
    inputs = tree.flatten(view.input)
    names = [layers[id(x)].name if id(x) in layers else x.name for x in inputs]
    if isinstance(given, Mapping):
        pairs = [(x, given.get(n)) for x, n in zip(inputs, names, strict=True)]
        fits = set(given) <= set(names)
    else:
        several = len(inputs) > 1 or isinstance(given, list)
        every = list(given) if several else [given]
        fits = len(every) == len(inputs)
        pairs = list(zip(inputs, every, strict=fits))
    known = [(x, shape) for x, shape in pairs if shape is not None]
    require(
        fits and all(_fits_sizes(shape, x.shape[1:]) for x, shape in known),
        "input_shapes",
        "the sizes of one example for each input: "
        + ", ".join(
            f"{n} {x.shape[1:]}" for n, x in zip(names, inputs, strict=True)
        ),
        given,
    )
    return {id(x): (x.shape[0], *shape) for x, shape in known}


def _fits_sizes(shape, sizes) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) == len(sizes)
        and all(
            isinstance(n, int) and n > 0 and known in (None, n)
            for n, known in zip(shape, sizes, strict=True)
        )
    )


def _run(model, inputs, nodes, prefix, training):
    """Appends the calls of a model to `nodes` and returns its outputs."""

    def call(operation, *args, **kwargs):
        path = prefix + operation.name
        inner = _functional(operation)
        if inner is not None and _fits(inner, args, kwargs):
            mode = kwargs.get("training")
            mode = training if mode is None else mode
            return _run(inner, args[0], nodes, path + "/", mode)
        own = kwargs.get("training")
        if training is not None and own is None and _has_mode(operation):
            kwargs = {**kwargs, "training": training}
        known = {x: x.spec for x in tensors((args, kwargs))}
        spec_args, spec_kwargs = fill((args, kwargs), known)
        specs = operation.compute_output_spec(*spec_args, **spec_kwargs)
        results = tree.map_structure(lambda s: Tensor(_spec(s)), specs)
        nodes.append(Node(operation, path, args, kwargs, results))
        return results

    # Private: Keras has no public walk over a model's calls.
    return model._run_through_graph(inputs, call_fn=call)


def _fits(model, args, kwargs) -> bool:
    """Whether a call hands a model just what its own inputs are like."""
    # For a structure of inputs Keras hands on one of masks that are `None`.
    given = {
        name
        for name, value in kwargs.items()
        if any(x is not None for x in tree.flatten(value))
    }
    if len(args) != 1 or given - {"training"}:
        return False
    if isinstance(args[0], dict) != isinstance(model.input, dict):
        return False
    given, own = tree.flatten(args[0]), tree.flatten(model.input)
    return len(given) == len(own) and all(
        isinstance(x, Tensor)
        and x.rank == len(y.shape)
        and _is_exact(x.spec.dtype, y.dtype)
        for x, y in zip(given, own, strict=True)
    )


def _is_exact(given, wanted) -> bool:
    """Whether a conversion that unfolding leaves out changes no number."""
    widened = wanted == "float32" and given in ("float16", "bfloat16")
    return given == wanted or widened


def _has_mode(operation) -> bool:
    return (
        isinstance(operation, keras.layers.Layer)
        and "training" in inspect.signature(operation.call).parameters
    )
