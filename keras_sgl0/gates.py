"""Gated models: what their gates leave, and the same model without them."""

import keras
import numpy as np
from keras import layers, ops

from keras_sgl0.copying import all_layers, from_config, refresh
from keras_sgl0.layers import ExpectedL0, HardConcrete, gated_by
from keras_sgl0.reports import GateReport, GatesOfLayer
from keras_sgl0.validation import InputError, require, require_built

# What keeps channels apart, so that a closed gate stays closed behind it.
_CHANNELWISE = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.Flatten,
)


def gates(model: keras.Model) -> list[HardConcrete]:
    """Returns the gate layers of a model, those of nested models too.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model is not built or has no gates.
    """
    require_built(model)
    found = [
        layer for layer in all_layers(model) if isinstance(layer, HardConcrete)
    ]
    require(found, "model", "a model with `HardConcrete` gates", model)
    return found


def ruled_by(gate: HardConcrete) -> keras.layers.Layer:
    """Returns the layer that a gate rules, else the gate itself.

    Args:
        gate: A gate layer of a model.
    """
    gated = gated_by(gate)
    return gate if gated is None else gated.layer


def gated_layer(gate: HardConcrete) -> str:
    """Returns the name of the layer that a gate rules, else the gate's own.

    Args:
        gate: A gate layer of a model.
    """
    return ruled_by(gate).name


def gate_group_size(gate: HardConcrete) -> int:
    """Returns the number of parameters that one gate of a layer rules.

    That of its `ExpectedL0`, else what the model's graph says (`gated_by`).

    Args:
        gate: A gate layer of a model.

    Raises:
        ValueError: If the graph does not say it.
    """
    if isinstance(gate.regularizer, ExpectedL0):
        return gate.regularizer.group_size
    gated = gated_by(gate)
    if gated is None:
        raise InputError(
            f"It is not clear which weights the gates `{gate.name}` rule. Put "
            "them directly behind a convolution or before a dense layer, or "
            "give them an `ExpectedL0` with their `group_size`."
        )
    return gated.group_size


def gate_report(model: keras.Model) -> GateReport:
    """Returns which gates of a model are open, layer by layer.

    A gate counts as open if it is not 0 at test time and if the channel it
    gates comes through the gates before it: of LeNet's 800 dense inputs only
    those count whose feature map is there.

    Args:
        model: A built model with gates.

    Returns:
        A `GateReport`; its `architecture` reads like the papers' 20-21-34-407.

    Raises:
        ValueError: If the model is not built or has no gates, or if it is not
            clear which weights a gate rules.

    Example:
        >>> gate_report(model).architecture
        '20-21-34-407'
    """
    return GateReport(
        tuple(
            GatesOfLayer(
                name=gated_layer(gate),
                gates=gate.log_alpha.shape[0],
                open=int(np.count_nonzero(_open(gate))),
                expected_open=float(ops.sum(gate.probability_active())),
                group_size=gate_group_size(gate),
            )
            for gate in gates(model)
        )
    )


def fold_gates(model: keras.Model) -> keras.Model:
    """Returns an equal model without gates: they are in its weights.

    Test-time gates are multiplied into the kernel (and bias) of the
    convolution before them, or into the rows of the dense kernel behind them.
    Where neither is possible a stock `Rescaling` layer takes their place. So
    a closed gate becomes a group of exact zeros, and every tool that looks
    for zeros sees it. The result is not compiled, has no layer of this package
    and shares no weights with `model`, which is not changed; but a layer that
    cannot be made from its config, such as `Lambda`, is in both models.

    Args:
        model: A built Functional or Sequential model, or one nested of them.

    Raises:
        ValueError: If the model is not built, has no gates or is a subclassed
            model, or if a gate can only become a `Rescaling` and Keras is set
            to channels first.

    Example:
        >>> plain = fold_gates(model)
        >>> print(sparsity_report(plain))
    """
    all_gates = gates(model)
    results = _results(model)
    foldable = {}
    for gate in all_gates:
        gated = gated_by(gate)
        if gated is not None and gated.can_fold and _copy(gated.layer):
            ungated = gate if gated.axis == 0 else gated.layer
            if id(ungated) not in results:
                foldable[id(gate)] = gated
    clones = []
    result = _without_gates(model, foldable, clones)
    for layer, clone in clones:
        clone.set_weights(layer.get_weights())
        refresh(clone)
    copies = {id(layer): clone for layer, clone in clones}
    for gate in all_gates:
        if id(gate) in foldable:
            gated = foldable[id(gate)]
            _scale(copies[id(gated.layer)], gated, _test_gates(gate))
    return result


def _results(model):
    """Returns the ids of the layers whose outputs are a model's outputs."""
    models = [m for m in all_layers(model) if hasattr(m, "outputs")]
    outputs = [tensor for m in models for tensor in m.outputs]
    return {id(tensor._keras_history.operation) for tensor in outputs}


def _has_gates(operation):
    return any(isinstance(x, HardConcrete) for x in all_layers(operation))


def _scale(layer, gated, values):
    kernel = ops.convert_to_numpy(layer.kernel)
    if gated.axis == 0:
        layer.kernel.assign(kernel * values[:, None])
    else:
        layer.kernel.assign(kernel * values)
    if gated.biases:
        layer.bias.assign(ops.convert_to_numpy(layer.bias) * values)


def _without_gates(model, foldable, clones):
    def clone(layer):
        is_gate = isinstance(layer, HardConcrete)
        if is_gate and id(layer) not in foldable:
            copy = _rescaling(layer)
        elif not is_gate and _has_gates(layer):
            return _without_gates(layer, foldable, clones)
        elif (copy := _copy(layer)) is None:
            return layer
        if not is_gate and isinstance(layer, layers.Layer):
            clones.append((layer, copy))
        return copy

    def call(layer, *args, **kwargs):
        is_gate = isinstance(layer, HardConcrete)
        return args[0] if is_gate else layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        kept = [clone(p) for p in model.layers if id(p) not in foldable]
        return keras.Sequential(
            [*map(_input, model.inputs), *kept], name=model.name
        )
    require(
        hasattr(model, "operations"),
        "model",
        "a Functional or Sequential model; of a subclassed one fold the "
        "Functional parts it is made of",
        model,
    )
    copy = keras.models.clone_model(
        model, clone_function=clone, call_function=call
    )
    # Anew, since a clone of a compiled model is compiled.
    return keras.Model(copy.input, copy.output, name=model.name)


def _rescaling(gate):
    """Returns a stock layer that does what a gate does at test time."""
    if keras.config.image_data_format() == "channels_first":
        raise InputError(
            f"The gates `{gate.name}` cannot be folded into the layers around "
            "them, and `Rescaling`, which would take their place, scales "
            "another axis while keras.config.image_data_format() is "
            "'channels_first'. Set 'channels_last' to fold."
        )
    return layers.Rescaling(
        _test_gates(gate), name=gate.name, dtype=gate.dtype_policy
    )


def _copy(layer):
    """Returns a new layer like another, `None` where that cannot be made."""
    try:
        return from_config(layer)
    except Exception:  # whatever a config of others leads to
        return None


def _input(tensor):
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=tensor.name,
    )


def _test_gates(gate):
    return ops.convert_to_numpy(gate.test_gates())


def _open(gate):
    """Returns which gates are open and not behind a closed one."""
    here = _test_gates(gate) > 0
    nodes = gate._inbound_nodes[:1]
    while nodes and len(nodes[0].parent_nodes) == 1:
        node = nodes[0].parent_nodes[0]
        if isinstance(node.operation, HardConcrete):
            before = _open(node.operation)
            return here & np.tile(before, len(here) // len(before))
        if not isinstance(node.operation, _CHANNELWISE):
            break
        nodes = [node]
    return here
