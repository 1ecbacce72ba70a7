"""Masks, and dropout that is called for training."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks

TOKENS = np.array([[1, 2, 3, 0, 0], [4, 0, 5, 1, 2], [0, 0, 3, 2, 1]])


def text(*layers_on_top):
    """Returns a model of tokens, of which those that are 0 are masked."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 4, mask_zero=True, name="table")(inputs)
    for layer in layers_on_top:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    "on_top",
    [
        lambda: [layers.LSTM(6)],
        lambda: [layers.GRU(6, return_sequences=True), layers.SimpleRNN(4)],
        lambda: [layers.Bidirectional(layers.LSTM(6))],
        lambda: [
            layers.Dense(6, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.GlobalAveragePooling1D(),
        ],
        lambda: [
            layers.LSTM(6, return_sequences=True),
            layers.GlobalAveragePooling1D(),
        ],
    ],
)
def test_half_of_what_has_a_mask_is_cut(on_top):
    model = text(*on_top())
    small, _ = cut_half(model, inputs=TOKENS)
    assert small.get_layer("table").output_dim == 2


def test_units_behind_masking_are_cut():
    inputs = keras.Input((5, 3))
    x = layers.LSTM(6, name="lstm")(layers.Masking()(inputs))
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    lstm = model.get_layer("lstm")
    for variable in lstm.weights:
        value = to_numpy(variable)
        keep = np.tile(np.arange(6) != 2, 4)
        variable.assign(value * keep)
    small, _ = ks.shrink(model, 0)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    x[:, 3:] = 0
    assert_same_outputs(model, small, inputs=x)
    assert small.get_layer("lstm").units == 5


def test_a_mask_keeps_a_constant_other_than_zero():
    model = scramble(text(layers.SimpleRNN(6, name="rnn")), dead=0)
    layer = model.get_layer("rnn")
    for variable in (layer.cell.kernel, layer.cell.recurrent_kernel):
        value = to_numpy(variable).copy()
        value[:, 2] = 0
        if value.shape[0] == 6:
            value[2] = 0
        variable.assign(value)
    small, _ = ks.shrink(model, 0, verify=False)
    assert small.get_layer("rnn").units == 6


@pytest.mark.parametrize("kind", [layers.Dropout, layers.GaussianDropout])
def test_zeros_go_through_dropout_that_is_called_for_training(kind):
    x = inputs = keras.Input((4,))
    x = layers.Dense(6, "sigmoid", name="first")(x)
    x = layers.Dense(6, "relu", name="second")(x)
    x = kind(0.5)(x, training=True)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    second = model.get_layer("second")
    alive = np.array([1, 0, 1, 0, 1, 1])
    second.kernel.assign(to_numpy(second.kernel) * alive)
    # Channel 1 is 0, channel 3 a constant that is not.
    second.bias.assign(np.array([0.1, 0, 0.1, 0.5, 0.1, 0.1]))
    small, _ = ks.shrink(model, 0, verify=False)
    assert small.get_layer("second").units == 5


def test_noise_that_is_called_for_training_stays_whole():
    x = inputs = keras.Input((4,))
    x = layers.GaussianNoise(0.5)(layers.Dense(6)(x), training=True)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert "training=True" in str(ks.structures(model))
