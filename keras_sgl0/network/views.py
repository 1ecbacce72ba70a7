"""Models as Functional ones, which show their inputs."""

from collections.abc import Callable

import keras
from keras import tree

from keras_sgl0.network.calls import Call, call_of
from keras_sgl0.network.guards import uncounted_names
from keras_sgl0.network.tracing import first_line, is_unfolded
from keras_sgl0.utils.validation import InputError, require


def functional_view(model: keras.Operation) -> keras.Model | None:
    """Returns a model as a Functional one, `None` where it is not like one.

    Args:
        model: A layer, a model or another operation.
    """
    call = getattr(type(model), "call", None)
    owner = getattr(call, "__qualname__", "")
    if owner == "Sequential.call" and model.built:
        try:
            return keras.Model(model.inputs[0], model.outputs[0])
        except (AttributeError, ValueError):
            # Without a known input shape it has no calls to show.
            return None
    return model if owner == "Functional.call" else None


def calls_of(view: keras.Model) -> list[Call]:
    """Returns the calls of a Functional model in the order of computation.

    Some may lead to no output.

    Args:
        view: The model.
    """
    # Private: Keras has no public walk over a model's calls.
    levels = sorted(view._nodes_by_depth.items(), reverse=True)
    nodes = [node for _, level in levels for node in level]
    return [call_of(node) for node in nodes if not node.is_input]


def maker_name(x: keras.KerasTensor) -> str:
    """Returns the name of the layer or operation that has made a tensor.

    Args:
        x: A symbolic tensor that a call has returned.
    """
    return x._keras_history.operation.name  # Private: there is no other way.


def mark_as_dense(x: keras.KerasTensor):
    """Has a symbolic tensor count as one that is not sparse.

    Keras takes a product with a constant for sparse. A layer whose `call` has
    to tell the shape of its output may not know such tensors.

    Args:
        x: The symbolic tensor.
    """
    x._sparse = False  # Private: its property has no setter.


def called_on_inputs(
    model: keras.Model,
    name: str,
    tokens: Callable[[keras.Model], set[str]],
) -> keras.Model:
    """Returns a Functional model whose only call is that of a subclassed one.

    The shapes of the inputs are those that the model was built for, the batch
    size left open. Inputs are numbers, or integers where they are tokens.

    Args:
        model: A built subclassed model.
        name: The name of the argument that it is.
        tokens: Takes such a model and returns the names of the inputs that
            are looked up in a table.

    Raises:
        ValueError: If its inputs are not known or it cannot be called on them.
    """
    require(
        is_unfolded(model),
        name,
        "a model whose inputs are known",
        f"{model}; call it on data, or make it with `keras.Input`",
    )
    found = _call_so_far(model)
    if found is None:
        found = _call(model, name, set())
        integers = tokens(found)
        if integers:
            model._inbound_nodes.pop()
            found = _call(model, name, integers)
    return found


def _call_so_far(model):
    """Returns the first call of a model that was on inputs, if there is one."""
    for node in model._inbound_nodes:
        before = [p.operation for p in node.parent_nodes]
        arguments = node.arguments
        if (
            all(isinstance(p, keras.layers.InputLayer) for p in before)
            and len(arguments.args) == 1
            and len(arguments.keras_tensors) == len(before)
        ):
            spec = model.compute_output_spec(*arguments.args)
            outputs = tree.pack_sequence_as(spec, node.outputs)
            return keras.Model(arguments.args[0], outputs)
    return None


def _call(model, name, integers):
    """Calls a model on inputs of the shapes that it was built for."""
    # A Functional model with a `call` of its own has symbolic inputs already.
    inputs = getattr(model, "input", None)
    advice = (
        "a Sequential or Functional model, or a subclassed one that was built "
        "by a call on data, all of it in one argument"
    )
    if inputs is None:
        shapes = (model.get_build_config() or {}).get("input_shape")
        require(shapes is not None, name, advice, model)
        inputs = _inputs(_in_plain_structures(shapes), model, integers)
    try:
        with uncounted_names():
            return keras.Model(inputs, model(inputs))
    except Exception as error:  # the `call` of a user may raise anything
        raise InputError(
            f"Invalid value for argument `{name}`. Expected {advice}: "
            f"{first_line(error)}. Received: {name}={model}"
        ) from error


def _inputs(shapes, model, integers):
    """Returns inputs of given shapes, some of them of integers."""
    inputs = [
        keras.Input(
            shape.sizes,
            name=(label := "_".join(map(str, path)) or "input"),
            dtype="int32" if label in integers else model.input_dtype,
        )
        for path, shape in tree.flatten_with_path(shapes)
    ]
    return tree.pack_sequence_as(shapes, inputs)


def _in_plain_structures(shapes):
    """Returns shapes as leaves, in lists and dictionaries that none tracks."""
    if isinstance(shapes, dict):
        return {k: _in_plain_structures(v) for k, v in shapes.items()}
    if all(n is None or isinstance(n, int) for n in shapes):
        return _Shape(shapes)
    return [_in_plain_structures(v) for v in shapes]


class _Shape:
    """The shape of an input, as one leaf of a structure."""

    def __init__(self, shape):
        self.sizes = tuple(shape[1:])
