"""What a layer made of other layers calls: its `call` on symbolic tensors.

Keras itself records what happens to a symbolic tensor. So the `call` of a
user's layer, run on such tensors, gives the layers and operations in it, as
long as nothing in it depends on the numbers. The layer is as it was afterwards.
"""

import contextlib
import functools
from collections.abc import Callable

import keras
from keras import tree

from keras_sgl0.network.agreement import Agreement, Recording
from keras_sgl0.network.calls import Call, calls_behind
from keras_sgl0.network.configs import (
    class_names,
    has_config,
    has_own_config,
)
from keras_sgl0.network.guards import (
    CallFailed,
    NotTraced,
    Watch,
    in_mode,
    unchanged,
    uncounted_names,
)
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.leniency import as_on_tensors
from keras_sgl0.network.own_weights import OwnWeights, is_array
from keras_sgl0.network.specs import (
    KNOWN,
    is_told_by_call,
    mask_of,
    output_spec,
    spec_of,
)
from keras_sgl0.network.weight_products import as_layers

_WHOLE: set[type | str] = set()
# How what Keras puts around the error of a call begins.
_AROUND = ("Exception encountered", "Could not automatically infer")
_MODES = (False, True)
# Large and without a common factor, so that no size is theirs by accident.
_BATCHES = (83, 89)
# For a layer whose examples are windows of images: so many in an image.
_WINDOWS = 2**6 * 3**2 * 5 * 7


def keep_whole(*classes: type | str):
    """Has layers of some classes never unfolded, as there are rules for them.

    Args:
        *classes: Layer classes, or such names of them as `class_names` gives.
            A subclass with a `call` of its own is another layer.
    """
    _WHOLE.update(classes)


def is_unfolded(operation: keras.Operation) -> bool:
    """Returns whether a layer should be seen as the calls in it.

    That is a layer whose `call` is not one of Keras or this package and which
    has no rule; and `Lambda`, whose function is not Keras's.

    Args:
        operation: A layer or another operation of a model.
    """
    if not isinstance(operation, keras.layers.Layer):
        return False
    if type(operation) is keras.layers.Lambda:
        return True
    for kind in type(operation).__mro__:
        if not _WHOLE.isdisjoint([kind, *class_names(kind)]):
            return False
        if "call" in vars(kind):
            return kind.__module__.partition(".")[0] not in KNOWN
    return False


def record(
    layer: keras.layers.Layer,
    args: tuple,
    kwargs: dict,
    training: bool | None = None,
    weights: OwnWeights | None = None,
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
        weights: The weights of the layer that count as layers in it. Their
            `zero` comes last in what the recording is given. Without, the
            layer may have none of its own.

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
    modes = _MODES if training is None else (training, training)
    own = weights if weights is not None and weights.layers else None
    try:
        recording = _recorded(layer, args, kwargs, modes, weights)
        return as_layers(recording, own) if own else recording
    except CallFailed:
        if own is None:
            raise
        # It may do with a weight what can be done with no tensor.
        return _recorded(layer, args, kwargs, modes, None)


def _recorded(layer, args, kwargs, modes, weights) -> Recording:
    """Returns what a layer does, with any batch size or with some."""
    try:
        return _in_both(layer, args, kwargs, modes, (None, None), weights)
    except NotTraced as error:
        given = _given(args, kwargs)
        if all(x.shape[:1] != (None,) for x in given) or any(
            mask_of(x) is not None for x in given
        ):
            raise
        # It may ask for the batch size, which has to be a number then.
        reason = str(error)
    try:
        try:
            return _in_both(layer, args, kwargs, modes, _BATCHES, weights)
        except CallFailed:
            # There may have to be whole images. What the layer does with other
            # numbers of examples is not of interest, as it fails.
            batches = tuple(_WINDOWS * batch for batch in _BATCHES)
            return _in_both(layer, args, kwargs, modes, batches, weights)
    except NotTraced as error:
        if any(None in x.shape[1:] for x in given):
            reason = f"{reason} (sizes of its inputs are not known)"
        else:
            reason = str(error)
        raise type(error)(reason) from error


def _in_both(layer, args, kwargs, modes, batches, weights) -> Recording:
    """Returns what a layer does in two modes and with two batch sizes."""
    if modes[0] == modes[1] and batches[0] == batches[1]:
        return _record(layer, args, kwargs, modes[0], weights)
    first, second = (
        _record(
            layer,
            _with_batch(args, batch),
            _with_batch(kwargs, batch),
            mode,
            weights,
        )
        for mode, batch in zip(modes, batches, strict=True)
    )
    given = _given(args, kwargs, weights)
    return Agreement(given, first, second).recording


def _with_batch(arguments, batch):
    """Returns arguments whose symbolic tensors have a known batch size."""
    made: dict[int, keras.KerasTensor] = {}

    def sized(x):
        if batch is None or not isinstance(x, keras.KerasTensor):
            return x
        if x.shape[:1] != (None,):
            return x
        if id(x) not in made:
            made[id(x)] = spec_of(x, shape=(batch, *x.shape[1:]))
        return made[id(x)]

    return tree.map_structure(sized, arguments)


def is_identity(operation: keras.Operation) -> bool:
    """Returns whether an operation does nothing.

    Args:
        operation: A layer or another operation of a model.
    """
    return type(operation) is keras.layers.Identity


def _record(layer, args, kwargs, training, weights) -> Recording:
    """Returns what a layer does in one mode."""
    given = _given(args, kwargs, weights)
    known = {id(x) for x in given}
    own = {id(part) for part in all_layers(layer)}
    own |= {id(x) for x in (weights.layers if weights else ())}
    saved = has_own_config(layer)
    calls: list[Call] = []
    errors: list[Exception] = []

    def symbolic_call(*args, **kwargs):
        # Keras makes the layer the author of what this returns, so its calls
        # are looked up before that. All that Keras does around a call is done:
        # casts, masks, the mode.
        symbols = weights.as_symbols if weights else contextlib.nullcontext
        try:
            with symbols():
                outputs = layer.call(*args, **kwargs)
            calls.extend(calls_behind(outputs, known, own))
            for call in calls:
                _require_plain(call, saved)
        except Exception as error:  # it may be anything
            errors.append(error)
            raise
        return outputs

    watch = Watch()
    with unchanged(layer) as changes, in_mode(training):
        for part in all_layers(layer):
            if weights is not None and part is not layer and part.variables:
                _call_on_symbols(part, weights, watch)
            told: Callable = output_spec
            if is_unfolded(part):
                told = _spec_by_symbols
            elif not is_told_by_call(part):
                continue
            told = functools.partial(told, part)
            object.__setattr__(part, "symbolic_call", told)
        object.__setattr__(layer, "symbolic_call", symbolic_call)
        with watch, uncounted_names(), as_on_tensors():
            try:
                outputs = layer(*args, **kwargs)
            except Exception as error:
                errors.append(error)
                kind = NotTraced
                if not isinstance(errors[0], NotTraced):
                    kind = CallFailed
                raise kind(first_line(errors[0])) from error
    if watch.touched:
        name = watch.touched[0].path
        raise NotTraced(f"it uses its weight `{name}` itself")
    if changes:
        raise NotTraced(f"its call sets `{changes[0]}`")
    return Recording(given, calls, outputs)


def _call_on_symbols(part, weights: OwnWeights, watch: Watch):
    """Has a layer that is called on arrays alone called on symbols for them."""
    call = part.call

    def on_symbols(*args, **kwargs):
        given = tree.flatten((args, kwargs))
        if not watch.is_innermost or not any(map(is_array, given)):
            return call(*args, **kwargs)
        if any(isinstance(x, keras.KerasTensor) for x in given):
            return call(*args, **kwargs)
        symbols = tree.map_structure(weights.of_array, (args, kwargs))
        return part(*symbols[0], **symbols[1])

    object.__setattr__(part, "call", on_symbols)


def _spec_by_symbols(layer, *args, **kwargs):
    """Returns what a call of a block returns, from the calls in it.

    That is much faster than to run it on tensors of the backend.
    """
    try:
        with Watch():
            outputs = layer.call(*args, **kwargs)
        return tree.map_structure(spec_of, outputs)
    except Exception:  # it cannot be traced
        return output_spec(layer, *args, **kwargs)


def _given(args, kwargs, weights=None) -> list[keras.KerasTensor]:
    """Returns the symbolic tensors that a layer is given, with their masks.

    The zero of its weights comes last.
    """
    found = tree.flatten((args, kwargs))
    found = [x for x in found if isinstance(x, keras.KerasTensor)]
    masks = [mask_of(x) for x in found]
    found += [mask for mask in masks if mask is not None]
    return found if weights is None else [*found, weights.zero]


def _require_plain(call: Call, saved: bool):
    """Raises if a call is not one that a Functional model can have.

    Args:
        call: The call.
        saved: Whether it must have a config.
    """
    operation = call.operation
    for x in tree.flatten((call.args, call.kwargs)):
        if isinstance(x, keras.Variable):
            raise NotTraced(f"it uses its weight `{x.name}` itself")
        if callable(x) and not isinstance(x, type):
            raise NotTraced(f"`{operation.name}` takes a function")
    if isinstance(operation, keras.layers.Layer):
        needed = saved and not (
            is_unfolded(operation) or is_identity(operation)
        )
        if needed and not has_config(operation):
            raise NotTraced(f"`{operation.name}` in it has no config")
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


def first_line(error: Exception) -> str:
    """Returns what an error says, without what Keras puts around it.

    Args:
        error: The error.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [x.replace("\x1b[1m", "").replace("\x1b[0m", "") for x in lines]
    told = [x for x in lines if x and not x.startswith(_AROUND)]
    return told[0] if told else type(error).__name__
