"""An equal model without gates."""

import keras
import numpy as np
from keras import layers, ops

from keras_sgl0.gates.dependence import Dependence
from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import gates, test_values
from keras_sgl0.gates.shared import GateChannels, Gated, Gates, is_shared
from keras_sgl0.gates.wiring import gated_by
from keras_sgl0.groups import other_axes
from keras_sgl0.network.copying import (
    from_config,
    refresh,
    sharing_weights,
)
from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.network.layer_table import all_layers, walk_layers
from keras_sgl0.network.neighbours import first_call, output_layers
from keras_sgl0.network.unfolding import trace
from keras_sgl0.network.views import functional_view
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.slices import Slices
from keras_sgl0.utils.validation import InputError, require


def fold_gates(model: keras.Model) -> keras.Model:
    """Returns an equal model with the gates folded into its weights.

    Test-time gates are multiplied into the kernel (and bias) of the
    convolution before them, or into the rows of the dense kernel behind them.
    Where neither is possible a stock `Rescaling` layer takes their place.
    Gates on structures (`add_gates`) are multiplied into the kernels that read
    the structures; where they are 0, the members of the structure, which make
    its channel, become zero too. So a closed gate becomes a group of exact
    zeros, and every tool that looks for zeros sees it.

    The result is not compiled, has no layer of this package and shares no
    weights with `model`, which is not changed; but a layer that cannot be made
    from its config, such as a `Lambda` that calls TensorFlow, is in both
    models.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model is not built, has no gates or cannot be
            traced, if a gate can only become a `Rescaling` and Keras is set to
            channels first, or if something other than a kernel reads channels
            times their gates on structures.

    Example:
        >>> plain = fold_gates(model)
        >>> print(sparsity_report(plain))
    """
    every = gates(model)
    if not _shows_its_gates(model):
        model = FlatCopy(trace(model), model.name).model
        every = gates(model)
    own = [gate for gate in every if not is_shared(gate)]
    scales = _scales(model) if len(own) < len(every) else []
    results = {id(layer) for layer in output_layers(model)}
    tied = sharing_weights(_copied_whole(model))
    foldable = {}
    for gate in own:
        gated = gated_by(gate)
        if gated is not None and gated.can_fold and _copy(gated.layer, tied):
            ungated = gate if gated.axis == 0 else gated.layer
            if id(ungated) not in results:
                foldable[id(gate)] = gated
    rescaled = {id(gate) for gate in own} - foldable.keys()
    clones: list[tuple[layers.Layer, layers.Layer]] = []
    result = _without_gates(model, rescaled, tied, clones)
    for layer, clone in clones:
        clone.set_weights(layer.get_weights())
        refresh(clone)
    copies = {id(layer): clone for layer, clone in clones}
    for gate in own:
        if id(gate) in foldable:
            gated = foldable[id(gate)]
            _scale(copies[id(gated.layer)], gated, test_values(gate))
    variables = {
        id(v): copy
        for layer, clone in clones
        for v, copy in zip(layer.weights, clone.weights, strict=True)
    }
    for variable, scale in scales:
        copy = variables[id(variable)]
        copy.assign(ops.convert_to_numpy(copy) * scale)
    return result


def _scales(model: keras.Model) -> list[tuple[keras.Variable, np.ndarray]]:
    """Returns what variables are multiplied by to fold gates on structures."""
    found = Dependence(model)
    scales = list(_of_readers(found))
    closed: set[int] = set()
    for gate, first in zip(found.gates, found.first, strict=True):
        if is_shared(gate):
            zeros = np.flatnonzero(test_values(gate) == 0)
            closed.update((first + zeros).tolist())
    stays = np.array([not own & closed for own in found.sets])
    for entry in found.variables:
        for sliced in entry.along("member", "statistic"):
            scale = stays[sliced.structures]
            scales.append(_along(sliced.axis, entry.variable, scale))
    return scales


def _of_readers(found: Dependence):
    """Yields the kernels that read channels times gates, with the gates."""
    values: dict[Tensor, np.ndarray] = {}
    gated: dict[Tensor, Gated] = {}
    for node in found.graph.nodes:
        rule = found.rules[node]
        if isinstance(rule, Gates):
            values[node.outputs[0]] = test_values(node.operation)
        elif isinstance(rule, Gated):
            gated[node.outputs[0]] = rule
    # By variable, as a layer that is called several times has it once.
    reads: dict[int, list[tuple[Node, Slices, np.ndarray]]] = {}
    for node in found.graph.nodes:
        for x in gated.keys() & set(node.inputs):
            _, *vectors = gated[x].node.inputs
            scale = gated[x].from_gates([values[z] for z in vectors], 1.0)
            reading = [
                own
                for own in found.rules[node].slices()
                if own.role == "reader" and own.channels_of(node) is x
            ]
            if not reading:
                raise InputError(
                    f"The gates of `{gated[x].node.path}` cannot be folded, as "
                    f"`{node.path}` reads what they gate and is no kernel."
                )
            # Of kernels one after the other, one is enough: the layer is
            # linear in each.
            apart = found.rules[node].kernels_apart
            for own in reading if apart else reading[:1]:
                variable = own.of(node.operation)
                reads.setdefault(id(variable), []).append((node, own, scale))
    for calls in reads.values():
        node, own, scale = calls[0]
        same = all(np.array_equal(scale, other) for *_, other in calls)
        if len(calls) < node.calls or not same:
            raise InputError(
                f"The gates before `{node.path}` cannot be folded, as they are "
                "not the same in all its calls."
            )
        variable = own.of(node.operation)
        yield variable, own.along(scale, len(variable.shape))


def _along(axis, variable, scale):
    """Returns a variable with the factors along one of its axes."""
    others = other_axes(variable.shape, axis)
    return variable, np.expand_dims(scale, others)


def _has_gates(operation):
    return any(isinstance(x, HardConcrete) for x in all_layers(operation))


def _shows_its_gates(model) -> bool:
    """Whether all gates are in Functional and Sequential models alone."""
    return all(
        functional_view(owner) is not None
        for line in walk_layers(model)
        if isinstance(line[-1], HardConcrete)
        for owner in line[:-1]
    )


def _scale(layer, gated, values):
    kernel = ops.convert_to_numpy(layer.kernel)
    if gated.axis == 0:
        layer.kernel.assign(kernel * values[:, None])
    else:
        layer.kernel.assign(kernel * values)
    if gated.biases:
        layer.bias.assign(ops.convert_to_numpy(layer.bias) * values)


def _without_gates(model, rescaled, tied, clones):
    def clone(layer):
        is_gate = isinstance(layer, HardConcrete)
        if id(layer) in rescaled:
            copy = _rescaling(layer)
        elif not is_gate and _has_gates(layer):
            return _without_gates(layer, rescaled, tied, clones)
        elif (copy := _copy(layer, tied)) is None:
            return layer
        if not is_gate and isinstance(layer, layers.Layer):
            clones.append((layer, copy))
        return copy

    def call(layer, *args, **kwargs):
        if isinstance(layer, GateChannels):
            return args[0][0]
        is_gate = isinstance(layer, HardConcrete)
        return args[0] if is_gate else layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        kept = [
            clone(layer)
            for layer in model.layers
            if not isinstance(layer, HardConcrete) or id(layer) in rescaled
        ]
        return keras.Sequential(
            [*map(_input, model.inputs), *kept], name=model.name
        )
    require(
        hasattr(model, "operations"),
        "model",
        "a model whose gates are not inside a layer that stays whole",
        model,
    )
    copy = keras.models.clone_model(
        model, clone_function=clone, call_function=call
    )
    # A clone of a compiled model is compiled, a new model is not.
    return keras.Model(copy.input, copy.output, name=model.name)


def _rescaling(gate):
    """Returns a Keras layer that does what a gate does at test time."""
    if keras.config.image_data_format() == "channels_first":
        raise InputError(
            f"The gates `{gate.name}` cannot be folded into the layers around "
            "them, and `Rescaling`, which would take their place, scales "
            "another axis while keras.config.image_data_format() is "
            "'channels_first'. Set 'channels_last' to fold."
        )
    return layers.Rescaling(
        test_values(gate), name=gate.name, dtype=gate.dtype_policy
    )


def _copied_whole(model):
    """Yields the layers that are copied as one, of models without gates too."""
    for layer in getattr(model, "layers", ()):
        if _has_gates(layer) and not isinstance(layer, HardConcrete):
            yield from _copied_whole(layer)
        else:
            yield layer


def _copy(layer, tied):
    """Returns a new layer like another, `None` where that cannot be made."""
    if id(layer) in tied:
        return None
    try:
        copy = from_config(first_call(layer))
    except Exception:  # the config of a user's layer may raise anything
        return None
    # A model whose layers share weights has more of them as a copy.
    more = isinstance(copy, keras.Model) and len(copy.weights) > len(
        layer.weights
    )
    return None if more else copy


def _input(tensor):
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=tensor.name,
    )
