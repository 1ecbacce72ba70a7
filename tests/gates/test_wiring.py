"""Which weights a gate rules."""

import keras
import pytest
from gated_models import (
    MODELS,
    by_add,
    gate_is_read_twice,
    nested,
)
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates
from keras_sgl0.gates.wiring import gated_by


def test_which_weights_a_gate_rules():
    for build in (by_add, MODELS["sequential"][0]):
        model = build(ks.HardConcrete)
        maps, inputs = (gated_by(gate) for gate in gates(model))
        assert (maps.axis, maps.biases, maps.group_size) == (-1, True, 19)
        assert (inputs.axis, inputs.biases, inputs.group_size) == (0, False, 3)
        assert isinstance(maps.layer, layers.Conv2D)
        assert inputs.layer is model.layers[-1]
    found = gated_by(gates(MODELS["no_bias"][0](ks.HardConcrete))[0])
    assert (found.biases, found.group_size) == (False, 18)


def test_gates_in_unclear_places():
    unclear = [
        ks.HardConcrete(),  # not called
        gates(MODELS["gate_alone"][0](ks.HardConcrete))[0],
        gates(MODELS["two_gates_in_a_row"][0](ks.HardConcrete))[1],
        gates(gate_is_read_twice(ks.HardConcrete))[0],
        gates(nested(ks.HardConcrete))[0],
    ]
    assert [gated_by(gate) for gate in unclear] == 5 * [None]
    with pytest.raises(ValueError, match="not clear which weights the gates"):
        ks.gate_report(MODELS["gate_alone"][0](ks.HardConcrete))


def test_a_convolution_of_channels_first_is_not_ruled():
    first = layers.Conv2D(4, 3, data_format="channels_first")
    gate = ks.HardConcrete()
    gate(first(keras.Input((2, 6, 6))))
    assert gated_by(gate) is None
