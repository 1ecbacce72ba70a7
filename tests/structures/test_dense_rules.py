"""Kernels along an axis that is not that of the channels."""

import keras
import numpy as np
import pytest
from helpers import cut_half, scale_all, scramble
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.structures.selection import random_half


def mixer(tokens=4, width=6, hidden=8, activation="gelu"):
    """Returns an MLP-Mixer of one block."""
    x = inputs = keras.Input((tokens, 5))
    x = layers.Dense(width, name="stem")(x)
    y = layers.Permute((2, 1))(x)
    y = layers.Dense(hidden, activation=activation, name="along")(y)
    y = layers.Permute((2, 1))(layers.Dense(tokens, name="back")(y))
    x = x + y
    y = layers.Dense(hidden, activation=activation, name="across")(x)
    x = x + layers.Dense(width, name="return")(y)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def test_the_hidden_units_of_both_kinds_are_cut():
    model = mixer()
    found = ks.structures(model)
    makers = [found.made_by(f) for f in range(len(found.counts))]
    assert makers == [("along",), ("across",)]
    assert "`along` mixes positions" in str(found)
    scramble(model, dead=0)
    dead = random_half(found, np.random.default_rng(0))
    found.zero(dead)
    small, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-6
    assert small.count_params() == found.cost(~dead).parameters
    assert ks.count_macs(small).macs == found.cost(~dead).macs
    units = {n: small.get_layer(n).units for n in ("along", "across", "stem")}
    assert units == {"along": 4, "across": 4, "stem": 6}


def test_units_that_are_constant_are_folded_into_the_next_layer():
    model = scale_all(scramble(mixer(activation="relu"), dead=0))
    along = model.get_layer("along")
    kernel, bias = along.get_weights()
    kernel[:, [0, 3]] = 0
    bias[[0, 3]] = [0.5, -0.5]
    kernel[:, 5] = 0
    along.set_weights([kernel, bias])
    back = model.get_layer("back")
    kernel, bias = back.get_weights()
    kernel[[1, 2]] = 0
    back.set_weights([kernel, bias])
    small, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-6
    assert small.get_layer("along").units == 8 - 5


@pytest.mark.parametrize("zero", [0, 1])
def test_a_dead_channel_stays_where_positions_are_mixed(zero):
    model = scale_all(scramble(mixer(), dead=0))
    for w in model.get_layer("stem").weights:
        value = ops.convert_to_numpy(w).copy()
        value[..., zero] = 0
        w.assign(value)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("stem").units == 6
    assert report.relative_difference < 1e-6


def test_channels_over_several_axes():
    x = inputs = keras.Input((5,))
    x = layers.Dense(12, name="made")(x)
    x = layers.Reshape((3, 4))(x)
    x = layers.Dense(8, activation="relu", name="along")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    small, dead = cut_half(model)
    assert dead.sum() > 0
    assert small.get_layer("along").units < 8


def test_its_softmax_needs_all_outputs():
    x = inputs = keras.Input((4, 5))
    x = layers.Permute((2, 1))(layers.Dense(6, name="stem")(x))
    x = layers.Dense(8, activation="softmax", name="along")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert len(ks.structures(model)) == 0
    scramble(model, dead=0)
    kernel, bias = model.get_layer("along").get_weights()
    kernel[:, :4] = 0
    model.get_layer("along").set_weights([kernel, bias])
    small, report = ks.shrink(model, 0)
    assert small.get_layer("along").units == 8
    assert np.isclose(report.relative_difference, 0, atol=1e-6)


def test_a_convolution_over_a_picture_without_channels():
    x = inputs = keras.Input((8, 9))
    x = layers.Reshape((8, 9, 1))(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="one")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    small, _ = cut_half(model)
    assert small.get_layer("one").filters == 3


def test_a_convolution_along_the_channels_keeps_its_input_whole():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="first")(x)
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Conv1D(4, 3, padding="same", name="along")(s[..., None])
    s = layers.Conv1D(1, 1, activation="sigmoid", name="gate")(s)
    x = x * layers.Reshape((1, 1, 6))(s)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    small, _ = cut_half(model)
    sizes = {n: small.get_layer(n).filters for n in ("first", "along", "gate")}
    assert sizes == {"first": 6, "along": 2, "gate": 1}
    assert "`along` mixes positions" in str(ks.structures(model))
