"""The rules of layers that shift, scale and move channels."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scramble, to_numpy
from keras import layers, ops
from test_kernel_rules import rule_of

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.rules import Opaque

MEAN = {"moving_mean": "follower", "moving_variance": "follower"}
RENORM = dict.fromkeys(
    ("moving_stddev", "renorm_mean", "renorm_stddev"), "follower"
)


@pytest.mark.parametrize(
    ("layer", "roles"),
    [
        (
            layers.BatchNormalization(),
            {"gamma": "member", "beta": "member"} | MEAN,
        ),
        (
            layers.BatchNormalization(scale=False),
            {"beta": "member"} | MEAN | {"moving_mean": "statistic"},
        ),
        (layers.BatchNormalization(center=False), {"gamma": "member"} | MEAN),
        (
            layers.GroupNormalization(groups=-1),
            {"gamma": "member", "beta": "member"},
        ),
        (layers.GroupNormalization(groups=3, scale=False), {"beta": "member"}),
        (
            layers.BatchNormalization(renorm=True),
            {"gamma": "member", "beta": "member"} | MEAN | RENORM,
        ),
        (layers.Rescaling(2.0), {}),
    ],
)
def test_what_goes_with_a_channel(layer, roles):
    rule = rule_of(layer, (4, 4, 3))
    slices = rule.slices()
    assert {part.variable: part.role for part in slices} == roles
    for part in slices:
        assert part.axis == 0
        assert part.channels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (layers.GroupNormalization(groups=-1), (4, 3), None),
        (layers.GroupNormalization(groups=-1), (3,), "depends on others"),
        (layers.GroupNormalization(groups=1), (4, 3), "depends on others"),
        (layers.GroupNormalization(groups=2), (4, 4), None),
        (layers.GroupNormalization(2, axis=1), (2, 4), "not normalize chan"),
        (layers.BatchNormalization(axis=1), (4, 3), "not normalize channels"),
        (layers.BatchNormalization(axis=2), (4, 3), None),
        (layers.Softmax(), (3,), "depends on others"),
        (layers.Rescaling([1.0, 2.0, 3.0]), (4, 3), None),
        (layers.Rescaling([2.0]), (4, 3), None),
        (layers.Rescaling(np.ones((4, 3))), (4, 3), "broadcasts an array"),
        (layers.Rescaling(1.0, np.ones((4, 1))), (4, 3), "broadcasts an arr"),
        (layers.Normalization(mean=0.0, variance=1.0), (4, 3), None),
        (layers.Normalization(1, np.zeros(4), np.ones(4)), (4, 3), "channels"),
        (layers.Permute((2, 1)), (4, 3), None),
        (layers.RepeatVector(4), (3,), None),
        (layers.Reshape((2, 6)), (4, 3), None),
        (layers.Reshape((-1, 6)), (4, 3), None),
        (layers.Reshape((3, 4)), (4, 3), "mixes channels and positions"),
        (layers.Reshape((-1, 3)), (None, 3), None),
        (layers.Flatten(), (4, 3), None),
        (layers.Flatten(), (None, 3), "mixes channels and positions"),
    ],
)
def test_what_the_rules_cover(layer, shape, reason):
    rule = rule_of(layer, shape)
    assert isinstance(rule, Opaque) == (reason is not None)
    if reason is not None:
        assert reason in rule.why_inputs_stay


def constants(layer, given, shape=(4, 4, 3)):
    """Returns what a layer makes of constants, and what it does to arrays."""
    rule = rule_of(layer, shape)
    scramble(keras.Sequential([keras.Input(shape), layer]), dead=0)
    given = np.array(given, float)
    found = rule.constants([given])
    filled = np.broadcast_to(np.nan_to_num(given), (1, *shape))
    return found, to_numpy(layer(filled.astype("float32"))), rule


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(),
        layers.BatchNormalization(scale=False, epsilon=0.1),
        layers.GroupNormalization(groups=-1),
        layers.GroupNormalization(groups=-1, center=False),
        layers.Rescaling([2.0, -1.0, 3.0], [0.5, 1.0, -2.0]),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.Normalization(mean=[1.0, 2, 3], variance=[2.0, 3, 4]),
        layers.Normalization(mean=0.5, variance=2.0, invert=True),
        layers.Reshape((2, 24)),
        layers.Permute((2, 1, 3)),
        layers.PReLU(shared_axes=(1, 2)),
    ],
)
def test_constants_are_what_the_layer_computes(layer):
    found, outputs, _ = constants(layer, [0.5, -1.5, 2.0])
    flat = outputs.reshape(-1, outputs.shape[-1])
    np.testing.assert_allclose(flat - found, 0, atol=1e-5)
    unknown, *_ = constants(layer, [0.5, np.nan, 2.0])
    number = len(found) // 3
    which = np.tile([False, True, False], number)
    np.testing.assert_array_equal(np.isnan(unknown), which)


def test_a_slope_of_zero_leaves_the_offset():
    layer = layers.BatchNormalization()
    rule = rule_of(layer, (3,))
    layer.gamma.assign([1.0, 0.0, 2.0])
    layer.beta.assign([0.5, 0.25, 0.0])
    found = rule.constants([np.full(3, np.nan)])
    np.testing.assert_array_equal(found, [np.nan, 0.25, np.nan])
    rule = rule_of(layers.Rescaling([1.0, 0.0, 2.0], 0.5), (3,))
    found = rule.constants([np.full(3, np.nan)])
    np.testing.assert_array_equal(found, [np.nan, 0.5, np.nan])
    (read,) = rule.reads(np.array([True, True, False]), [np.full(3, np.nan)])
    assert read.tolist() == [True, False, False]


KEPT = np.array([True, False, True])


@pytest.mark.parametrize(
    ("layer", "config", "weights"),
    [
        (
            layers.GroupNormalization(groups=-1),
            {"groups": 2},
            ["gamma", "beta"],
        ),
        (layers.GroupNormalization(3, scale=False), {"groups": 2}, ["beta"]),
        (layers.Rescaling(2.0, 1.0), {}, []),
        (
            layers.Rescaling([2.0, 3.0, 4.0], 1.0),
            {"scale": [2.0, 4.0]},
            [],
        ),
        (
            layers.Normalization(mean=[1.0, 2, 3], variance=[2.0, 3, 4]),
            {"mean": [1.0, 3.0], "variance": [2.0, 4.0]},
            [],
        ),
        (layers.Reshape((16, 3)), {"target_shape": [16, 2]}, []),
        (layers.Reshape((4, -1)), {}, []),
        (layers.Reshape((2, 8, -1)), {}, []),
        (layers.Permute((2, 1, 3)), {}, []),
    ],
)
def test_what_is_left_of_a_layer(layer, config, weights):
    _, _, rule = constants(layer, [0.0, 0.0, 0.0])
    kept = np.resize(KEPT, rule.node.outputs[0].channels)
    found = rule.rewrite([KEPT], kept, [np.full(3, np.nan)])
    assert found.config == config
    assert list(found.weights) == weights
    for name, values in found.weights.items():
        own = to_numpy(getattr(layer, name))[KEPT]
        np.testing.assert_allclose(values, own, rtol=1e-6)


def test_channels_of_a_reshape():
    rule = rule_of(layers.Reshape((2, 6)), (4, 3))
    inward, outward = rule.ties()
    assert inward.tolist() == [0, 1, 2]
    assert outward.tolist() == [0, 1, 2, 0, 1, 2]
    assert rule.axes() == (2,)
    rule = rule_of(layers.Reshape((4, 3)), (2, 6))
    inward, outward = rule.ties()
    assert inward.tolist() == [0, 1, 2, 0, 1, 2]
    assert outward.tolist() == [0, 1, 2]
    given = np.array([1.0, 2.0, np.nan, 1.0, 3.0, np.nan])
    found = rule.constants([given])
    np.testing.assert_array_equal(found, [1, np.nan, np.nan])
    assert rule_of(layers.Permute((3, 1, 2)), (4, 5, 3)).axes() == (1,)
    assert rule_of(layers.RepeatVector(2), (3,)).axes() == (2,)


THREE = [[0, 1, 2], [3, 4, 5], [6, 7, 8], list(range(9))]


@pytest.mark.parametrize(
    ("axis", "ties", "found"),
    [
        (-1, THREE, [1, 2, 0, 1, 3, 0, 1, 2, 0]),
        (1, [[0, 1, 2]] * 4, [1, np.nan, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["layer", "operation"])
def test_channels_side_by_side_or_positions(kind, axis, ties, found):
    inputs = [keras.Input((4, 3)) for _ in range(3)]
    if kind == "layer":
        x = layers.Concatenate(axis)(inputs)
    else:
        x = ops.concatenate(inputs, axis)
    (rule,) = rules(keras.Model(inputs, x))
    assert [own.tolist() for own in rule.ties()] == ties
    given = [np.array([1.0, n, 0.0]) for n in (2, 3, 2)]
    np.testing.assert_array_equal(rule.constants(given), found)


def test_channels_at_different_axes_are_not_joined():
    x = inputs = keras.Input((3, 3))
    x = layers.Concatenate()([x, layers.Permute((2, 1))(x)])
    *_, rule = rules(keras.Model(inputs, x))
    assert "channels at different axes" in rule.why_inputs_stay


def rules(model):
    """Returns the rules of all calls of a model."""
    liveness = Liveness(trace(model), to_numpy, "keep")
    liveness.forward({})
    return list(liveness.rules.values())


def split(*shapes):
    """Returns a model that reshapes a dense layer's steps, and the labels."""
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="first")(x)
    for shape in shapes:
        x = layers.Activation("relu")(layers.Reshape(shape)(x))
    x = layers.Dense(3, name="last")(x)
    model = scramble(keras.Model(inputs, x), 0)
    found = ks.structures(model)
    return model, found


def test_channels_that_are_split_and_joined_stay_themselves():
    model, found = split((5, 2, 3), (5, 6))
    (middle,) = (
        node.outputs[0]
        for node in found.discovery.graph.nodes
        if node.outputs[0].shape == (None, 5, 2, 3) and node.type == "Reshape"
    )
    assert middle.axes == (2, 3)
    # Nothing says along which axis they go: along the last.
    assert found.counts.tolist() == [3]
    dead = np.array([False, True, False])
    found.zero(dead)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units == 4
    assert report.relative_difference < 1e-6
    assert small.count_params() == found.cost(~dead).parameters


def test_an_axis_of_size_one_is_no_channel_axis():
    _, found = split((5, 1, 6))
    middle = found.discovery.graph.nodes[1].outputs[0]
    assert (middle.axes, found.counts.tolist()) == ((3,), [6])


def test_a_channel_that_is_spread_over_an_array_stays():
    inputs = keras.Input((4,))
    x = layers.Dense(1, name="first")(layers.Dense(3)(inputs))
    x = x * np.arange(1.0, 4.0, dtype="float32")[None]
    found = ks.structures(keras.Model(inputs, layers.Dense(2)(x)))
    reasons = {entry.layer: entry.reason for entry in found.fixed}
    assert found.size == 3
    assert "broadcasts its input over an array" in reasons["first"]


def weighed(multiply, activation="relu"):
    """Returns a model that weighs its positions by dense outputs."""
    inputs = keras.Input((5, 4))
    x = layers.Dense(8, activation, name="first")(inputs)
    factors = layers.Dense(5, name="factors")(layers.Flatten()(inputs))
    x = multiply(x, layers.Reshape((5, 1))(factors))
    outputs = layers.Dense(2, name="last")(layers.GlobalMaxPooling1D()(x))
    return scramble(keras.Model(inputs, outputs), dead=0)


@pytest.mark.parametrize(
    "multiply",
    [
        lambda x, y: x * y,
        lambda x, y: layers.Multiply()([y, x]),
        lambda x, y: x / (y + 99.0),
    ],
)
def test_a_factor_for_each_position_does_not_keep_channels(multiply):
    model = weighed(multiply)
    found = ks.structures(model)
    assert found.size == 8
    reasons = {entry.layer: entry.reason for entry in found.fixed}
    assert "broadcasts it" in reasons["factors"]
    found.zero(np.arange(8) < 3)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5 and report.whole == ()
    assert_same_outputs(model, small)


@pytest.mark.parametrize("other", [lambda x: 0.0, lambda x: x * 2.0])
def test_a_choice_between_zeros_is_zero(other):
    def choose(x, y):
        return ops.where(y > 0.0, x, other(x))

    model = weighed(choose)
    found = ks.structures(model)
    found.zero(np.arange(8) < 3)
    small, _ = ks.shrink(model, 0)
    assert found.size == 8 and small.get_layer("first").units == 5
    assert_same_outputs(model, small)


def test_a_known_factor_for_all_positions_is_a_constant():
    model = weighed(lambda x, y: x * y, "sigmoid")
    for layer, bias in (("factors", 2.0), ("first", 0.0)):
        kernel, old = model.get_layer(layer).get_weights()
        kernel[:, :3] = 0
        kernel *= layer == "first"
        model.get_layer(layer).set_weights([kernel, np.full_like(old, bias)])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5
    assert_same_outputs(model, small)


def test_an_outer_product_stays():
    a, b = keras.Input((4,)), keras.Input((4,))
    x = layers.Reshape((6, 1))(layers.Dense(6)(a))
    y = layers.Reshape((1, 3))(layers.Dense(3)(b))
    outputs = layers.Dense(2)(layers.Flatten()(x * y))
    model = scramble(keras.Model([a, b], outputs))
    small, report = ks.shrink(model, 0)
    assert any("different axes" in entry.note for entry in report.whole)
    assert_same_outputs(model, small)
