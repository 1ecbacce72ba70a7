"""Layers that are called several times are cut once for all calls."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.structures.selection import random_half


def siamese():
    """Returns a model that subtracts what one tower makes of two images."""
    x = inner = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    tower = keras.Model(inner, layers.Conv2D(6, 3, name="head")(x))
    pair = [keras.Input((9, 9, 3)), keras.Input((9, 9, 3))]
    x = layers.Subtract()([tower(x) for x in pair])
    return keras.Model(pair, layers.Dense(2)(layers.Flatten()(x)))


def pyramid():
    """Returns one detection head on three levels."""
    inputs = keras.Input((16, 16, 3))
    down = [layers.Conv2D(n, 3, 2, "same", name=f"c{n}") for n in (5, 6, 7)]
    lateral = [layers.Conv2D(8, 1, name=f"lateral{i}") for i in range(3)]
    head = [
        layers.Conv2D(6, 3, padding="same", name="head"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.Dropout(0.2, name="drop"),
        layers.Conv2D(4, 1, name="boxes"),
    ]
    levels, x = [], inputs
    for one in down:
        x = one(x)
        levels.append(x)
    outputs = []
    for level, one in zip(levels, lateral, strict=True):
        x = one(level)
        for part in head:
            x = part(x)
        outputs.append(x)
    return keras.Model(inputs, outputs)


def attention():
    """Returns a block with CBAM's channel attention, one MLP for two."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    mlp = [
        layers.Dense(4, activation="relu", name="reduce"),
        layers.Dense(8, name="expand"),
    ]
    pooled = [layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D]
    both = []
    for pooling in pooled:
        y = pooling(keepdims=True)(x)
        for part in mlp:
            y = part(y)
        both.append(y)
    gate = layers.Activation("sigmoid")(layers.Add()(both))
    x = layers.Multiply()([x, gate])
    x = layers.Conv2D(2, 3, name="last")(x)
    return keras.Model(inputs, x)


def normalized():
    """Returns a model with one batch normalization on two tensors."""
    inputs = keras.Input((6,))
    norm = layers.BatchNormalization(name="norm")
    x = norm(layers.Dense(7, name="first")(inputs))
    x = layers.ReLU()(x)
    x = norm(layers.Dense(7, name="second")(x))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def looping():
    """Returns a model with a layer that reads its own outputs."""
    inputs = keras.Input((6,))
    x = layers.Dense(7, name="first")(inputs)
    step = layers.Dense(7, activation="tanh", name="step")
    for _ in range(3):
        x = step(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def scaled():
    """Returns a model that shares slopes and a depthwise convolution."""
    inputs = keras.Input((8, 8, 3))
    parts = [
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
        layers.PReLU(shared_axes=(1, 2), name="slopes"),
    ]
    sides = []
    for i in range(2):
        x = layers.Conv2D(4, 1, name=f"conv{i}")(inputs)
        for part in parts:
            x = part(x)
        sides.append(x)
    x = layers.Concatenate()(sides)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))


def words():
    """Returns a model that reads two texts by one table."""
    pair = [keras.Input((5,), dtype="int32"), keras.Input((7,), dtype="int32")]
    table = layers.Embedding(11, 6, name="table")
    conv = layers.SeparableConv1D(5, 3, activation="relu", name="conv")
    pooled = [layers.GlobalMaxPooling1D()(conv(table(x))) for x in pair]
    x = layers.Concatenate()(pooled)
    return keras.Model(pair, layers.Dense(2, name="last")(x))


MODELS = {
    "siamese": (siamese, 2),
    "pyramid": (pyramid, 5),
    "attention": (attention, 2),
    "normalized": (normalized, 1),
    "looping": (looping, 1),
    "scaled": (scaled, 1),
    "words": (words, 2),
}


def given(model, seed=0):
    rng = np.random.default_rng(seed)
    found = [
        rng.integers(0, 11, (2, *x.shape[1:]))
        if x.dtype == "int32"
        else rng.normal(size=(2, *x.shape[1:])).astype(x.dtype)
        for x in model.inputs
    ]
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("name", MODELS)
def test_structures_run_through_all_calls(name):
    make, families = MODELS[name]
    model = scramble(make(), dead=0)
    found = ks.structures(model)
    assert len(found.counts) == families
    assert found.cost().parameters == model.count_params()
    assert found.cost().macs == ks.count_macs(model).macs
    dead = random_half(found, np.random.default_rng(1))
    found.zero(dead)
    small, report = ks.shrink(model, 0, inputs=given(model))
    assert report.whole == report.kept == ()
    assert_same_outputs(model, small, inputs=given(model, 1))
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters == report.parameters_after
    assert ks.count_macs(small).macs == cost.macs == report.macs_after
    assert len(small.weights) == len(model.weights)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_dead_the_outputs_stay(name, seed):
    model = scramble(MODELS[name][0](), dead=0.6, seed=seed)
    small, report = ks.shrink(model, 0, inputs=given(model))
    assert_same_outputs(model, small, inputs=given(model, 1))
    assert small.count_params() == report.parameters_after


def shared_after(activations, biases, kernel=None):
    """Returns a Dense layer called on two tensors with some dead channels."""
    inputs = keras.Input((6,))
    sides = [
        layers.Dense(6, activation, name=f"side{i}")
        for i, activation in enumerate(activations)
    ]
    shared = layers.Dense(5, "tanh", name="shared")
    x = layers.Concatenate()([shared(side(inputs)) for side in sides])
    model = keras.Model(inputs, layers.Dense(3, name="last")(x))
    scramble(model, dead=0)
    for side, own in zip(sides, biases, strict=True):
        bias, alive = np.ones(6), np.ones(6)
        for channel, value in own.items():
            bias[channel], alive[channel] = value, 0
        side.kernel.assign(to_numpy(side.kernel) * alive)
        side.bias.assign(bias)
    return model


@pytest.mark.parametrize(
    ("biases", "left"),
    [
        ([{0: 0, 1: 0}, {1: 0, 2: 0}], 5),  # dead in both: channel 1
        ([{0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}], 4),
        ([{0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.25}], 5),
        ([{0: 0.5, 1: 0}, {0: 0.5, 1: 0.25}], 5),
    ],
)
def test_a_constant_must_be_the_same_in_all_calls(biases, left):
    model = shared_after(("relu", "relu"), biases)
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("side0").units == left
    assert small.get_layer("side1").units == left
    different = [k for k in report.kept if "another constant" in k.reason]
    dead = set(biases[0]) & set(biases[1])
    assert len(different) == 2 * (left > 6 - len(dead))


def test_a_structure_does_not_die_with_two_constants():
    model = shared_after(("sigmoid", "relu"), [{}, {}])
    found = ks.structures(model)
    reasons = {entry.layer: entry.reason for entry in found.fixed}
    expected = "it is another constant in another call of `shared`"
    assert reasons["side0"] == reasons["side1"] == expected
    model = shared_after(("sigmoid", "sigmoid"), [{}, {}])
    assert set(ks.structures(model).made_by(0)) == {"side0", "side1"}


def test_what_one_call_does_not_read_is_folded_for_the_other():
    inputs = keras.Input((6,))
    sides = [layers.Dense(4, name=f"side{i}") for i in range(2)]
    shared = layers.Dense(3, name="shared")
    lasts = [layers.Dense(2, name=f"last{i}") for i in range(2)]
    model = keras.Model(
        inputs,
        [
            last(shared(side(inputs)))
            for side, last in zip(sides, lasts, strict=True)
        ],
    )
    scramble(model, dead=0)
    # Channel 0 reaches output 0 alone, which only the first call uses.
    kernel = to_numpy(shared.kernel).copy()
    kernel[0, 1:] = 0
    shared.kernel.assign(kernel)
    sides[0].kernel.assign(to_numpy(sides[0].kernel) * [0, 1, 1, 1])
    sides[0].bias.assign([0.5, 0, 0, 0])
    lasts[1].kernel.assign(to_numpy(lasts[1].kernel) * [[0], [1], [1]])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("side0").units == 3
    assert small.get_layer("side1").units == 3
    assert small.get_layer("shared").units == 3
    assert_same_outputs(model, small)


def test_a_call_that_is_not_covered_keeps_the_layer_whole():
    inputs = keras.Input((6,))
    norm = layers.BatchNormalization(name="norm")
    x = norm(layers.Dense(7, name="first")(inputs))
    x = norm(layers.Dense(7, name="second")(x), training=True)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0, verify=False)
    assert small.get_layer("first").units == 7
    assert small.get_layer("second").units == 7
    assert [e.note for e in report.whole] == [
        "it is called with `training=True`"
    ]
    fixed = [e for e in ks.structures(model).fixed if e.layer == "norm"]
    assert len(fixed) == 1


def test_a_layer_is_reported_once():
    x = inputs = keras.Input((6,))
    twice = layers.Dense(6, name="twice")
    model = keras.Model(inputs, layers.Dense(3)(twice(twice(x))))
    scramble(model, dead=0)
    twice.kernel.assign(to_numpy(twice.kernel) * ([0, 0] + [1] * 4))
    twice.bias.assign(np.zeros(6))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("twice").units == 6
    (kept,) = report.kept
    assert (kept.layer, kept.channels) == ("twice", (0, 1))
    assert kept.reason == "an input of the model"
    assert [e.layer for e in ks.structures(model).fixed].count("twice") == 1


def test_gates_act_in_all_calls():
    model = scramble(pyramid(), dead=0)
    gated = ks.add_gates(model, droprate=0.1, seed=0)
    gates = [x for x in gated.layers if isinstance(x, ks.HardConcrete)]
    assert len(gates) == len(ks.structures(model).counts)
    rng = np.random.default_rng(0)
    for gate in gates:
        gate.log_alpha.assign(rng.normal(size=gate.log_alpha.shape))
    folded = ks.fold_gates(gated)
    assert_same_outputs(gated, folded)
    small, report = ks.shrink(gated, 0)
    assert_same_outputs(gated, small)
    opened = np.concatenate([to_numpy(g.test_gates()) != 0 for g in gates])
    found = ks.structures(model)
    assert small.count_params() == found.cost(opened).parameters
    assert report.macs_after == found.cost(opened).macs
