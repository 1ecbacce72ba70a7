"""Layer normalization turned into RMS normalization."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_outputs, scramble
from keras import layers, ops
from test_shrink_mixing import given, half, stream

import keras_sgl0 as ks


def transformer(attention=layers.MultiHeadAttention, **norm):
    """Returns a pre-norm transformer that classifies images."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 4, 4, name="patches")(inputs)
    x = layers.Reshape((4, 12), name="tokens")(x)
    x = 2.0 * x
    for i in range(2):
        y = layers.LayerNormalization(name=f"norm_a{i}", **norm)(x)
        if attention is layers.MultiHeadAttention:
            y = attention(3, 4, name=f"attention{i}")(y, y)
        else:
            y = attention(4, 4, 2, name=f"attention{i}")(y, y)
        x = layers.Add(name=f"add_a{i}")([x, y])
        y = layers.LayerNormalization(name=f"norm_b{i}", **norm)(x)
        y = layers.EinsumDense("btc,cd->btd", (4, 20), "gelu", bias_axes="d")(y)
        y = layers.Dense(12, name=f"down{i}")(y)
        x = layers.Dropout(0.1, name=f"drop{i}")(y) + x
    x = layers.LayerNormalization(name="norm", **norm)(x)
    x = layers.GlobalAveragePooling1D(name="pooled")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


MODELS = {
    "transformer": transformer,
    "groups": lambda: transformer(layers.GroupQueryAttention),
    "plain": lambda: transformer(center=False, scale=False, epsilon=0.1),
    "mixer": lambda: stream(layers.LayerNormalization),
    "words": lambda: stream(layers.LayerNormalization, tokens=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_outputs_stay_and_the_width_is_a_family(name):
    model = scramble(MODELS[name](), dead=0)
    before = ks.structures(model).report()
    equal = ks.to_rms_normalization(model)
    assert not any(
        isinstance(x, layers.LayerNormalization) for x in equal.layers
    )
    assert_same_outputs(model, equal, inputs=given(model))
    assert equal.output_names == model.output_names
    found = ks.structures(equal)
    (fixed,) = found.fixed
    assert fixed.layer == "head"
    # Layer normalizations keep their size, whatever is left of the width.
    assert found.report().smallest_parameters < before.smallest_parameters
    assert found.mixed.sum() == {12, 8}.intersection(found.counts).pop()
    scramble(equal, dead=0)
    dead = half(found)
    found.zero(dead)
    small, report = ks.shrink(equal, 0, inputs=given(model))
    assert report.whole == report.kept == ()
    assert_same_outputs(equal, small, inputs=given(model, 1))
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters
    assert ks.count_macs(small).macs == cost.macs


@pytest.mark.skipif(BACKEND != "tensorflow", reason="has float64")
def test_it_is_exact():
    keras.config.set_dtype_policy("float64")
    try:
        model = scramble(stream(layers.LayerNormalization), dead=0)
        equal = ks.to_rms_normalization(model)
        assert_same_outputs(model, equal, 1e-12, inputs=given(model))
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_normalization_that_makes_an_output_keeps_its_name():
    inputs = keras.Input((6,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(5)(inputs))
    model = scramble(keras.Model(inputs, x), dead=0)
    equal = ks.to_rms_normalization(model)
    assert equal.output_names == ["norm"]
    assert_same_outputs(model, equal)


def test_a_layer_that_is_called_twice_stays_one():
    pair = [keras.Input((6,)), keras.Input((6,))]
    parts = [layers.Dense(5), layers.LayerNormalization(), layers.Dense(3)]
    outputs = pair
    for part in parts:
        outputs = [part(x) for x in outputs]
    model = scramble(keras.Model(pair, outputs), dead=0)
    equal = ks.to_rms_normalization(model)
    assert len(equal.layers) == 2 + 4
    assert_same_outputs(model, equal)


def refused(make, shape=(6,)):
    inputs = keras.Input(shape)
    with pytest.raises(ValueError, match="argument `model`") as caught:
        ks.to_rms_normalization(keras.Model(inputs, make(inputs)))
    return str(caught.value)


def test_what_is_not_linear_is_named():
    norm = layers.LayerNormalization

    def active(x):
        x = layers.Dense(5, "relu", name="active")(x)
        return layers.Dense(3)(norm(name="norm")(x))

    assert "`norm` reads `active`, which is not linear" in refused(active)

    def post(x):
        x = norm(name="first")(layers.Dense(5)(x))
        x = layers.Add()([x, layers.Dense(5)(x)])
        return layers.Dense(3)(norm(name="second")(x))

    assert "`second` reads what `first` normalizes: post-norm" in refused(post)

    def read(x):
        x = layers.Dense(5)(x)
        y = layers.Dense(5, name="other")(x)
        return layers.Dense(3)(norm(name="norm")(x) + y)

    assert "`norm` reads what `other` reads, too" in refused(read)

    def output(x):
        x = layers.Dense(5)(x)
        return [x, layers.Dense(3)(norm(name="norm")(x))]

    assert "`norm` reads an output of the model" in refused(output)

    def first(x):
        return layers.Dense(3)(norm(name="norm")(x))

    assert "an input of the model" in refused(first)

    def shifted(x):
        x = layers.Dense(5)(x) + 0.5
        return layers.Dense(3)(norm(name="norm")(x))

    assert "`norm` reads `add" in refused(shifted)

    def elsewhere(x):
        dense = layers.Dense(6, name="dense")
        x = dense(x)
        return layers.Dense(3)(norm(name="norm")(dense(x)))

    assert "`dense` is called elsewhere, too" in refused(elsewhere)

    def twice(x):
        dense = layers.Dense(6, name="dense")
        return [
            layers.Dense(3)(norm(name="norm")(dense(x))),
            layers.Dense(3)(ops.relu(dense(2.0 * x))),
        ]

    assert "`dense` is called elsewhere, too" in refused(twice)
    groups = "`norm` reads `conv`, which is not linear"
    assert groups in refused(
        lambda x: layers.Conv1D(3, 1)(
            norm(name="norm")(layers.Conv1D(4, 1, groups=2, name="conv")(x))
        ),
        (5, 4),
    )
    assert "does not normalize channels" in refused(
        lambda x: norm(axis=1, name="norm")(layers.Dense(4)(x)), (5, 4)
    )
    assert "a model with a `LayerNormalization`" in refused(layers.Dense(3))


def test_a_mask_is_refused():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True, name="table")(inputs)
    x = layers.LayerNormalization()(x)
    with pytest.raises(ValueError, match="`table` makes a mask"):
        ks.to_rms_normalization(keras.Model(inputs, x))


def test_writers_are_centred():
    model = scramble(stream(layers.LayerNormalization, tokens=True), dead=0)
    equal = ks.to_rms_normalization(model)
    for name in ("table", "mixed0", "down1"):
        for value in equal.get_layer(name).get_weights():
            np.testing.assert_allclose(value.mean(-1), 0, atol=1e-6)
