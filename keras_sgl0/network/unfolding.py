"""Finds the calls of a model, with the models and blocks in it unfolded."""

import inspect
import itertools

import keras
from keras import tree

from keras_sgl0.network.calls import calls_behind
from keras_sgl0.network.configs import has_own_config
from keras_sgl0.network.examples import entries_of_outputs
from keras_sgl0.network.graph import Graph, Node, Tensor, fill, tensors
from keras_sgl0.network.guards import NotTraced, unchanged, uncounted_names
from keras_sgl0.network.input_shapes import given_shapes
from keras_sgl0.network.own_weights import OwnWeights, sums_all, zero_of
from keras_sgl0.network.specs import mask_of, output_spec, spec_of
from keras_sgl0.network.steps import is_model_by_steps, record_by_steps
from keras_sgl0.network.tracing import is_identity, is_unfolded, record
from keras_sgl0.network.views import called_on_inputs, calls_of, functional_view
from keras_sgl0.utils.validation import require, require_built


def trace(model: keras.Model, input_shapes: object = None) -> Graph:
    """Returns the calls a model makes.

    The models in it are unfolded, and the layers that a user has made of other
    layers (`network.tracing`). What cannot be is one call, and says why.

    Args:
        model: A built model.
        input_shapes: The sizes of one example where the model leaves them
            open: a shape, for several inputs a list, or a dictionary by name.

    Raises:
        ValueError: If the model is not built, or is subclassed and its inputs
            or calls are not known, or `input_shapes` do not fit its inputs.
    """
    view = functional(model)
    layers = {
        id(layer.output): layer
        for layer in view.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    given = tree.flatten(view.input)
    names = [layers[id(x)].name if id(x) in layers else x.name for x in given]
    shapes = given_shapes(dict(zip(names, given, strict=True)), input_shapes)
    flat = [
        Tensor(
            spec_of(x, name, shapes.get(name)),
            optional=bool(id(x) in layers and layers[id(x)].optional),
        )
        for name, x in zip(names, given, strict=True)
    ]
    inputs = tree.pack_sequence_as(view.input, flat)
    walk = _Walk(model, flat)
    with uncounted_names():
        outputs = walk.through(view, flat)
    whole = next((n for n in walk.nodes if n.operation is model), None)
    require(
        whole is None,
        "model",
        "a Sequential or Functional model, or a subclassed one whose `call` "
        "can be followed",
        f"{model}, where {whole.reason}" if whole else model,
    )
    names = list(view.output_names)
    if view is not model and set(names) == {model.name}:
        # Keras names the outputs of a subclassed model by the model alone.
        makers = {y: n.operation.name for n in walk.nodes for y in n.outputs}
        names = [makers.get(y, y.spec.name) for y in tensors(outputs)]
    graph = Graph(inputs, outputs, walk.nodes, names)
    for calls in graph.by_operation().values():
        for node in calls:
            node.calls = len(calls)
    return graph


def functional(model: keras.Model, name: str = "model") -> keras.Model:
    """Returns a model as a Functional one, which shows its inputs and outputs.

    Args:
        model: A built model.
        name: The name of the argument that it is.

    Raises:
        ValueError: If the model is not built, or is subclassed and its inputs
            are not known.
    """
    require_built(model, name)
    view = functional_view(model)
    if view is None:
        view = called_on_inputs(model, name, _token_inputs)
    return view


class _Walk:
    """Goes through the calls of a model and unfolds what it can.

    Args:
        model: The model.
        inputs: Its inputs.

    Attributes:
        nodes: The calls so far.
    """

    def __init__(self, model: keras.Model, inputs: list[Tensor]):
        self._model = model
        self.nodes: list[Node] = []
        self._owners: dict[str, keras.Operation] = {}
        self._weights: dict[int, OwnWeights] = {}
        self._zeros: set[Tensor] = set()
        self._made_zero: Tensor | None = None
        # Keras takes a product with a constant for sparse.
        self._sparse = any(x.spec.sparse for x in inputs)
        # Inputs to compute what depends on none from.
        self._dense = [x for x in inputs if not x.spec.sparse | x.optional]

    def through(self, model, inputs, prefix="", training=None):
        """Goes through a Functional model and returns its outputs."""
        known = dict(zip(map(id, model.inputs), inputs, strict=True))
        self._follow(calls_of(model), known, prefix, training)
        return tree.map_structure(lambda y: known[id(y)], model._outputs_struct)

    def _follow(self, calls, known, prefix, training):
        """Goes through calls and adds what they return to what is known."""
        for call in calls:
            if any(id(x) not in known for x in call.inputs):
                continue  # Keras does the same: it leads to no output
            results = self._call(call, known, prefix, training)
            pairs = zip(call.outputs, tree.flatten(results), strict=True)
            known.update((id(y), result) for y, result in pairs)

    def _call(self, call, known, prefix, training):
        """Returns what a call returns, as tensors."""
        operation = call.operation
        args, kwargs = tree.map_structure(
            lambda x: known[id(x)] if isinstance(x, keras.KerasTensor) else x,
            (call.args, call.kwargs),
        )
        own = kwargs.get("training")
        mode = training if own is None else own
        path = self._path(prefix + operation.name, operation)
        inner = functional_view(operation)
        if inner is not None and _fits(inner, args, kwargs):
            flat = tree.flatten(args[0])
            return self.through(inner, flat, path + "/", mode)
        if is_identity(operation) and not has_own_config(operation):
            return args[0]  # it could not be saved, and is not needed
        reason = ""
        if inner is not None:
            reason = "it is called on other inputs than it was made for"
        if is_unfolded(operation) or is_model_by_steps(operation):
            try:
                return self._unfold(call, known, path, mode)
            except NotTraced as error:
                reason = str(error)
        is_noise = bool(reason) and self._is_noise(call, known)
        if training is not None and own is None and has_mode(operation):
            kwargs = {**kwargs, "training": training}
        read = tensors((args, kwargs))
        unbatched = bool(read) and all(x.unbatched for x in read)
        # How a block whose weights were seen as layers is copied.
        unbatched |= sums_all(operation) and read[0] in self._zeros
        specs = {x: x.spec for x in read}
        spec_args, spec_kwargs = fill((args, kwargs), specs)
        with unchanged(operation):
            spec = output_spec(operation, *spec_args, **spec_kwargs)
        entries = entries_of_outputs(operation, args, kwargs)
        results = tree.map_structure(
            lambda s: Tensor(
                spec_of(s, sparse=s.sparse and self._sparse),
                unbatched=unbatched,
                entries=entries,
            ),
            spec,
        )
        masked = any(mask_of(x) is not None for x in call.inputs)
        node = Node(
            operation,
            path,
            args,
            kwargs,
            results,
            "" if is_noise else reason,
            is_noise,
            masked=masked,
        )
        self.nodes.append(node)
        if node.type == "ZerosLike":
            self._zeros.update(node.outputs)
        return results

    def _unfold(self, call, known, path, training):
        """Goes through the calls in a layer and returns its outputs."""
        kwargs = {k: v for k, v in call.kwargs.items() if k != "training"}
        inner: dict[int, Tensor] = {}
        made: dict[int, keras.KerasTensor] = {}

        def symbol(x):
            if not isinstance(x, keras.KerasTensor):
                return x
            if id(x) not in made:
                tensor = known[id(x)]
                if tensor.optional:
                    raise NotTraced("an input of it may be left out")
                made[id(x)] = new = spec_of(tensor.spec)
                inner[id(new)] = tensor
                mask = mask_of(x)
                if mask is not None:
                    self._follow(calls_behind(mask, known), known, "", None)
                    new._keras_mask = symbol(mask)
            return made[id(x)]

        args, kwargs = tree.map_structure(symbol, (call.args, kwargs))
        if is_model_by_steps(call.operation):
            recording = record_by_steps(call.operation, args, kwargs)
            self._follow(recording.calls, inner, path + "/", training)
            return inner[id(recording.outputs)]
        weights = self._own_weights(call.operation)
        recording = record(call.operation, args, kwargs, training, weights)
        if weights is not None:
            read = (x for call in recording.calls for x in call.inputs)
            if any(x is weights.zero for x in read):
                inner[id(weights.zero)] = self._zero()
        prefix = "" if call.operation is self._model else path + "/"
        self._follow(recording.calls, inner, prefix, training)
        return tree.map_structure(lambda y: inner[id(y)], recording.outputs)

    def _is_noise(self, call, known) -> bool:
        """Returns whether a block returns what it is given, at inference."""
        block = call.operation
        weights = getattr(block, "weights", ())
        # The state of a generator of random numbers is one of integers.
        if any(keras.backend.is_float_dtype(v.dtype) for v in weights):
            return False
        if not is_unfolded(block) or len(call.inputs) != 1:
            return False
        x = known[id(call.inputs[0])].spec
        is_float = keras.backend.is_float_dtype(x.dtype)
        # Of the dtype that Keras would cast it to, which is no other change.
        dtype = block.compute_dtype if is_float else x.dtype
        x = keras.KerasTensor(x.shape, dtype)
        args, kwargs = tree.map_structure(
            lambda y: x if isinstance(y, keras.KerasTensor) else y,
            (call.args, call.kwargs),
        )
        kwargs.pop("training", None)
        try:
            recording = record(block, args, kwargs, training=False)
        except NotTraced:
            return False
        return recording.outputs is x

    def _own_weights(self, block):
        """Returns the weights of a block, the same for all its calls."""
        if not self._dense:
            return None
        if id(block) not in self._weights:
            self._weights[id(block)] = OwnWeights(block)
        return self._weights[id(block)]

    def _zero(self):
        """Returns a zero, computed once from an input of the model."""
        if self._made_zero is None:
            x = self._dense[0]
            zero = zero_of(x.spec)
            known = {id(x.spec): x}
            self._follow(calls_behind(zero, known), known, "", None)
            self._made_zero = known[id(zero)]
        return self._made_zero

    def _path(self, path, operation):
        """Returns the path of a call; no two operations have the same."""
        numbered = (f"{path}_{i}" for i in itertools.count(1))
        return next(
            name
            for name in itertools.chain([path], numbered)
            if self._owners.setdefault(name, operation) is operation
        )


def _token_inputs(view) -> set[str]:
    """Returns the names of the inputs that are looked up in a table."""
    graph = trace(view)
    return {
        x.spec.name
        for x in tensors(graph.inputs)
        for node in graph.nodes
        if isinstance(node.operation, keras.layers.Embedding)
        and x in node.inputs
    }


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
    # Tokens are no large numbers, and may be of either type.
    integers = {given, wanted} <= {"int32", "int64"}
    return given == wanted or widened or integers


def has_mode(operation: keras.Operation) -> bool:
    """Returns whether a layer is told if it is called for training.

    Args:
        operation: A layer or another operation of a model.
    """
    return (
        isinstance(operation, keras.layers.Layer)
        and "training" in inspect.signature(operation.call).parameters
    )
