"""The gates of a model, and what each of them rules."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.wiring import gated_by
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.utils.validation import InputError, require, require_built


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
    _require_gate(gate)
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

    Its own `group_size`, else what the model's graph says (`gated_by`).

    Args:
        gate: A gate layer of a model.

    Raises:
        ValueError: If the graph does not say it.
    """
    _require_gate(gate)
    if gate.group_size is not None:
        return gate.group_size
    gated = gated_by(gate)
    if gated is None:
        raise InputError(
            f"It is not clear which weights the gates `{gate.name}` rule. Put "
            "them directly behind a convolution or before a dense layer, or "
            "construct them with their `group_size`."
        )
    return gated.group_size


def test_values(gate: HardConcrete) -> np.ndarray:
    """Returns the values that the gates of a layer have at test time.

    Args:
        gate: A gate layer of a model.
    """
    return ops.convert_to_numpy(gate.test_gates())


def _require_gate(gate):
    is_gate = isinstance(gate, HardConcrete)
    require(is_gate, "gate", "a `HardConcrete` layer", gate)
