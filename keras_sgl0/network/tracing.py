"""What a layer made of other layers calls: its `call` on symbolic tensors.

Keras itself records what happens to a symbolic tensor. So the `call` of a
user's layer, run on such tensors, gives the layers and operations in it, as
long as nothing in it depends on the numbers. The layer is as it was afterwards.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.network.guards import (
    NotTraced,
    Watch,
    in_mode,
    unchanged,
    uncounted_names,
)
from keras_sgl0.network.layer_table import all_layers, parts

# Whose layers have a meaning of their own, which is more than their calls.
_KNOWN = ("keras", __name__.partition(".")[0])
_WHOLE: set[type] = set()


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


class Recording(NamedTuple):
    """What a layer does.

    Args:
        calls: The calls in it, in the order of computation.
        outputs: What it returns, symbolic tensors in any structure.
    """

    calls: list[Call]
    outputs: Any


def keep_whole(*classes: type):
    """Has layers of some classes never unfolded, as there are rules for them.

    Args:
        *classes: Layer classes. A subclass with a `call` of its own is
            another layer.
    """
    _WHOLE.update(classes)


def is_unfolded(operation: keras.Operation) -> bool:
    """Returns whether a layer should be seen as the calls in it.

    That is a layer whose `call` is not one of Keras or this package, and that
    has other layers in it or no weights at all.

    Args:
        operation: A layer or another operation of a model.
    """
    if not isinstance(operation, keras.layers.Layer):
        return False
    for kind in type(operation).__mro__:
        if kind in _WHOLE:
            return False
        if "call" in vars(kind):
            if kind.__module__.partition(".")[0] in _KNOWN:
                return False
            return bool(parts(operation)) or not operation.weights
    return False


def record(
    layer: keras.layers.Layer,
    args: tuple,
    kwargs: dict,
    training: bool | None = None,
) -> Recording:
    """Returns what a layer does when it is called.

    Args:
        layer: A built layer.
        args: The positional arguments, with symbolic tensors that no call has
            made.
        kwargs: The keyword arguments likewise, but for `training`.
        training: The mode that the call is fixed to, `None` if it has that of
            the model. Then no call in the recording has a `training` that
            changes with the mode.

    Raises:
        NotTraced: If the calls depend on numbers or on the mode, or if the
            layer does more than call others.
    """
    if type(layer).__call__ is not keras.layers.Layer.__call__:
        raise NotTraced("it has a `__call__` of its own")
    if layer.quantization_mode is not None:
        raise NotTraced("it is quantized")
    if layer.activity_regularizer is not None:
        raise NotTraced("it has an activity regularizer")
    if training is not None:
        return _record(layer, args, kwargs, training)
    return _in_any_mode(
        _given(args, kwargs),
        _record(layer, args, kwargs, False),
        _record(layer, args, kwargs, True),
    )


def spec_of(
    x: keras.KerasTensor,
    name: str | None = None,
    shape: tuple[int | None, ...] | None = None,
) -> keras.KerasTensor:
    """Returns a symbolic tensor like another one, that no call has made.

    Args:
        x: The other one.
        name: Its name; `None` for one that Keras gives.
        shape: Its shape, `None` for that of the other one.
    """
    shape = x.shape if shape is None else shape
    return keras.KerasTensor(shape, x.dtype, sparse=x.sparse, name=name)


def mask_of(x: keras.KerasTensor) -> keras.KerasTensor | None:
    """Returns the mask that Keras hands on with a tensor, `None` for none.

    Args:
        x: A symbolic tensor.
    """
    return getattr(x, "_keras_mask", None)


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
            raise NotTraced(f"it uses `{operation.name}`, which is not in it")
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


def _record(layer, args, kwargs, training) -> Recording:
    """Returns what a layer does in one mode."""
    known = {id(x) for x in _given(args, kwargs)}
    own = {id(part) for part in all_layers(layer)}
    calls: list[Call] = []
    errors: list[Exception] = []

    def symbolic_call(*args, **kwargs):
        # Keras makes the layer the author of what this returns, so its calls
        # are looked up before that. All that Keras does around a call is done:
        # casts, masks, the mode.
        try:
            outputs = layer.call(*args, **kwargs)
            calls.extend(calls_behind(outputs, known, own))
            for call in calls:
                _require_plain(call)
        except Exception as error:  # it may be anything
            errors.append(error)
            raise
        return outputs

    with unchanged(layer) as changes, in_mode(training):
        object.__setattr__(layer, "symbolic_call", symbolic_call)
        with Watch() as watch, uncounted_names():
            try:
                outputs = layer(*args, **kwargs)
            except Exception as error:
                errors.append(error)
                raise NotTraced(first_line(errors[0])) from error
    if watch.touched:
        name = watch.touched[0].path
        raise NotTraced(f"it uses the number in `{name}` itself")
    if changes:
        raise NotTraced(f"its call sets `{changes[0]}`")
    return Recording(calls, outputs)


def _given(args, kwargs) -> list[keras.KerasTensor]:
    """Returns the symbolic tensors that a layer is given, with their masks."""
    found = tree.flatten((args, kwargs))
    found = [x for x in found if isinstance(x, keras.KerasTensor)]
    masks = [mask_of(x) for x in found]
    return found + [mask for mask in masks if mask is not None]


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


def _require_plain(call: Call):
    """Raises if a call is not one that a Functional model can have."""
    operation = call.operation
    for x in tree.flatten((call.args, call.kwargs)):
        if isinstance(x, keras.Variable):
            raise NotTraced(f"it uses its weight `{x.name}` itself")
        if callable(x) and not isinstance(x, type):
            raise NotTraced(f"`{operation.name}` takes a function")
    if isinstance(operation, keras.layers.Layer):
        return
    given = [operation.get_config()]
    if type(operation).__name__ != "GetItem":
        given += [call.args, call.kwargs]
    if _has_unknown_size(given):
        raise NotTraced(f"`{operation.name}` is given the batch size")


def _has_unknown_size(structure) -> bool:
    """Returns whether a shape has sizes that are not known."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if not isinstance(structure, list | tuple):
        return False
    is_shape = all(n is None or isinstance(n, int) for n in structure)
    if is_shape and any(isinstance(n, int) for n in structure):
        return None in structure
    return any(map(_has_unknown_size, structure))


def _in_any_mode(inputs, test: Recording, train: Recording) -> Recording:
    """Returns what a layer does in both modes, if that is the same."""
    numbers = {id(x): i for i, x in enumerate(inputs)}
    different = NotTraced("what it does depends on `training`")
    if len(test.calls) != len(train.calls):
        raise different
    calls = []
    for a, b in zip(test.calls, train.calls, strict=True):
        if not _is_same_operation(a.operation, b.operation):
            raise different
        kwargs, others = a.kwargs, b.kwargs
        modes = (kwargs.get("training", False), others.get("training", True))
        if modes == (False, True):
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
            others = {k: v for k, v in others.items() if k != "training"}
        if not _is_same((a.args, kwargs), (b.args, others), numbers):
            raise different
        for x, y in zip(a.outputs, b.outputs, strict=True):
            numbers[id(x)] = numbers[id(y)] = len(numbers)
        calls.append(a._replace(kwargs=kwargs))
    if not _is_same(test.outputs, train.outputs, numbers):
        raise different
    return Recording(calls, test.outputs)


def _is_same_operation(a, b) -> bool:
    if isinstance(a, keras.layers.Layer) or a is b:
        return a is b
    return type(a) is type(b) and a.get_config() == b.get_config()


def _is_same(a, b, numbers) -> bool:
    """Returns whether arguments are equal, tensors of one number being so."""
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(_is_same(a[k], b[k], numbers) for k in a)
        )
    if isinstance(a, list | tuple):
        return (
            isinstance(b, list | tuple)
            and len(a) == len(b)
            and all(_is_same(x, y, numbers) for x, y in zip(a, b, strict=True))
        )
    if isinstance(a, keras.KerasTensor):
        return id(a) in numbers and numbers.get(id(b)) == numbers[id(a)]
    if keras.ops.is_tensor(a) or isinstance(a, np.ndarray):
        a, b = (ops.convert_to_numpy(x) for x in (a, b))
        return np.array_equal(a, b)
    return bool(a == b)


def first_line(error: Exception) -> str:
    """Returns what an error says, without what Keras puts around it.

    Args:
        error: The error.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    told = [x for x in lines if x and not x.startswith("Exception encountered")]
    line = told[0] if told else type(error).__name__
    return line.replace("\x1b[1m", "").replace("\x1b[0m", "")
