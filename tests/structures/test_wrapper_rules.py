"""The rule of `TimeDistributed`, which is that of the layer in it."""

import keras
import pytest
from helpers import cut_half, scramble
from keras import layers

import keras_sgl0 as ks


def film(*layers_of_steps, shape=(3, 6, 6, 2)):
    """Returns a model that calls layers at each step, then an LSTM."""
    x = inputs = keras.Input(shape)
    for layer in layers_of_steps:
        x = layers.TimeDistributed(layer)(x)
    if len(x.shape) > 3:
        x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.LSTM(4, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([layers.Dense(6, "relu"), layers.Dense(4)], (3, 5)),
        ([layers.Conv2D(6, 3, activation="relu")], (3, 6, 6, 2)),
        (
            [
                layers.Conv2D(6, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(2),
                layers.SeparableConv2D(4, 2),
                layers.GlobalAveragePooling2D(),
            ],
            (3, 6, 6, 2),
        ),
        (
            [
                layers.DepthwiseConv2D(2, depth_multiplier=2),
                layers.Conv2D(4, 1),
            ],
            (3, 6, 6, 2),
        ),
        ([layers.Dense(5), layers.GRU(4)], (3, 4, 2)),
        (
            [layers.Dense(5), layers.Bidirectional(layers.GRU(4))],
            (3, 4, 2),
        ),
    ],
)
def test_half_of_what_is_made_at_each_step_is_cut(steps, shape):
    model = film(*steps, shape=shape)
    cut_half(model)


def test_the_layer_inside_is_smaller():
    layer = layers.TimeDistributed(layers.Conv2D(6, 3), name="each")
    x = inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.GlobalMaxPooling2D())(layer(x))
    model = keras.Model(inputs, layers.LSTM(2)(x))
    small, _ = cut_half(model)
    assert small.get_layer("each").layer.filters == 3
    found = ks.structures(model)
    assert found.made_by(0) == ("each",)
    scramble(model, dead=0)
    deleted, _ = ks.delete_channels(model, {"each": [0, 4]})
    assert deleted.get_layer("each").layer.filters == 4


def test_a_constant_of_each_step_is_folded():
    first = layers.TimeDistributed(layers.Dense(6, "sigmoid"), name="first")
    x = inputs = keras.Input((3, 5))
    x = layers.TimeDistributed(layers.Dense(4, use_bias=False))(first(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    scramble(model, dead=0)
    kernel = first.layer.kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * [1, 0, 1, 0, 1, 1])
    small, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-5
    assert small.get_layer("first").layer.units == 4


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            keras.Sequential([keras.Input((5,)), layers.Dense(4)]),
            "the type of its layer is not known",
        ),
        (layers.Softmax(), "depends on others"),
        (layers.Conv1D(4, 1, groups=2), ""),
    ],
)
def test_what_the_layer_does_not_allow_stays_whole(layer, reason):
    shape = (3, 4, 5) if isinstance(layer, layers.Conv1D) else (3, 5)
    x = inputs = keras.Input(shape)
    x = layers.Dense(4 if len(shape) == 3 else 5, name="first")(x)
    x = layers.TimeDistributed(layer)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    _, report = ks.shrink(scramble(model), 0)
    assert report.relative_difference < 1e-5
    assert not reason or any(reason in e.note for e in report.whole)


def test_channels_that_are_the_steps_stay():
    x = inputs = keras.Input((4, 5))
    x = layers.Permute((2, 1))(layers.Dense(6, name="first")(x))
    x = layers.TimeDistributed(layers.Dense(3))(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert "its channels are its steps" in str(ks.structures(model))
