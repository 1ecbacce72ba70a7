"""The rules of operations that take means, pool and resize."""

import keras
import numpy as np
import pytest
from helpers import cut_half, to_numpy
from keras import layers, ops
from test_moving_rules import rule_of

import keras_sgl0 as ks
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.structures.slices import Zeros

COVERED = [
    (lambda x: ops.mean(x, 1), (4, 3), (1,)),
    (lambda x: ops.mean(x, (1, -2), True), (4, 5, 3), (3,)),
    (lambda x: ops.max(x, 1), (4, 3), (1,)),
    (lambda x: ops.min(x, [1]), (4, 3), (1,)),
    (lambda x: ops.amax(x, 1), (4, 3), (1,)),
    (lambda x: ops.sum(x, 1), (4, 3), (1,)),
    (lambda x: ops.var(x, 1), (4, 3), (1,)),
    (lambda x: ops.std(x, 1, True), (4, 3), (2,)),
    (lambda x: ops.median(x, 1), (4, 3), (1,)),
    # Keras on JAX fails without strides.
    (lambda x: ops.max_pool(x, 2, 2), (4, 4, 3), (3,)),
    (lambda x: ops.average_pool(x, 3, 1, "same"), (4, 4, 3), (3,)),
    (lambda x: ops.image.resize(x, (3, 7)), (4, 4, 3), (3,)),
    (layers.Resizing(3, 7, "nearest"), (4, 4, 3), (3,)),
    (layers.Resizing(2, 7, crop_to_aspect_ratio=True), (4, 4, 3), (3,)),
]


@pytest.mark.parametrize(("call", "shape", "axes"), COVERED)
def test_a_constant_is_what_the_operation_makes_of_it(call, shape, axes):
    rule = rule_of(call, shape)
    assert rule.axes() == axes
    given = np.array([1.5, 0.0, -2.0])
    filled = np.broadcast_to(given, (2, *shape)).astype("float32")
    rows = rule.node.outputs[0].by_channel(
        to_numpy(call(ops.convert_to_tensor(filled)))
    )
    found = rule.constants([given])
    np.testing.assert_allclose(rows - found, 0, atol=1e-5)
    assert np.isnan(rule.constants([np.full(3, np.nan)])).all()
    assert [own.tolist() for own in rule.ties()] == [[0, 1, 2]] * 2
    (read,) = rule.reads(np.array([True, False, True]), [given])
    assert read.tolist() == [True, False, True]
    kept = np.array([True, False, True])
    assert rule.rewrite([kept], kept, [given]).config == {}


OPAQUE = [
    (lambda x: ops.mean(x), (4, 3), "over all examples"),
    (lambda x: ops.max(x, (0, 1)), (4, 3), "over all examples"),
    (lambda x: ops.max(x, 1, initial=1.0), (4, 3), "an initial value"),
    (lambda x: ops.glu(x, 1), (4, 3), "its halves are no channels"),
    (layers.Resizing(3, 7, pad_to_aspect_ratio=True), (4, 4, 3), "it pads"),
    (
        lambda x: ops.image.resize(x, (3, 7), data_format="channels_first"),
        (3, 4, 4),
        "not where those of its input are",
    ),
    (lambda x: ops.softmax(x), (4, 3), "depends on others"),
    (lambda x: ops.norm(x, axis=(1, 2)), (4, 4, 3), "norm of a matrix"),
    (lambda x: ops.norm(x, -np.inf, axis=-1), (4, 3), "count in its norm"),
    (lambda x: ops.normalize(x, -1, -1), (4, 3), "counts in its norm"),
    (lambda x: ops.normalize(x, 1), (4, 3), "does not normalize channels"),
    (lambda x: ops.prod(x, -1), (4, 3), "over channels"),
    (lambda x: ops.logsumexp(x, (1, 2)), (4, 3), "over channels"),
    (lambda x: ops.median(x), (4, 3), "over all examples"),
    (lambda x: ops.cumsum(x, -1), (4, 3), "depends on others"),
    (lambda x: ops.sort(x, 0), (4, 3), "depends on others"),
    (lambda x: ops.cumprod(x), (4, 3), "depends on others"),
]


@pytest.mark.parametrize(("call", "shape", "reason"), OPAQUE)
def test_what_stays_whole(call, shape, reason):
    # The axis is the last: nothing before the call says another one.
    rule = rule_of(lambda x: call(layers.ReLU()(x)), shape)
    assert isinstance(rule, Opaque)
    assert reason in rule.why_inputs_stay


def test_interpolations_that_only_keep_zero():
    given = np.array([1.5, 0.0, np.nan])
    for options in ({"interpolation": "bicubic"}, {"antialias": True}):
        rule = rule_of(layers.Resizing(3, 7, **options), (4, 4, 3))
        found = rule.constants([given])
        np.testing.assert_array_equal(found, [np.nan, 0, np.nan])


def test_a_sum_over_channels_reads_them_and_can_do_without_zeros():
    rule = rule_of(lambda x: ops.sum(x, -1, True), (4, 3))
    assert rule.axes() == (2,)
    assert rule.ties() is None
    assert rule.zeros_only
    assert "sums over channels" in rule.why_outputs_stay
    assert rule.constants([np.zeros(3)]).tolist() == [0]
    assert np.isnan(rule.constants([np.array([0, 0, 1.0])])).all()
    assert np.isnan(rule.constants([np.array([0, 0, np.nan])])).all()
    for live in (True, False):
        (read,) = rule.reads(np.array([live]), [np.zeros(3)])
        assert read.tolist() == [live] * 3
    kept = np.array([True, False, True])
    assert rule.rewrite([kept], np.ones(1, bool), []).zeros is None
    rule = rule_of(lambda x: ops.sum(x, (1, 2)), (4, 3))
    assert rule.axes() == (0,)
    rule = rule_of(lambda x: ops.sum(x, 1), (None, 3))
    found = rule.constants([np.array([1.0, 0.0, np.nan])])
    np.testing.assert_array_equal(found, [np.nan, 0, np.nan])
    assert not rule.zeros_only
    assert rule.why_outputs_stay == ""


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.mean(x, -1, keepdims=True),
        lambda x: ops.max(x, -1, keepdims=True),
        lambda x: ops.min(x, (1, -1), keepdims=True),
        lambda x: ops.amax(x, -1, keepdims=True),
        lambda x: ops.amin(x, -1, keepdims=True),
        lambda x: ops.var(x, -1, keepdims=True),
        lambda x: ops.std(x, (1, -1), keepdims=True),
    ],
)
def test_a_zero_takes_the_place_of_a_channel_that_counts(call):
    rule = rule_of(call, (4, 3))
    assert rule.zeros_only
    kept = np.array([True, False, True])
    change = rule.rewrite([kept], np.ones(1, bool), [])
    assert change.zeros == Zeros(2, 1, removed=False)
    inputs = keras.Input((4, 5))
    x = layers.Dense(8)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x * call(x)))
    small, dead = cut_half(model)
    assert len(dead) == 8
    again, _ = ks.shrink(small, 0)
    assert len(again.operations) == len(small.operations)


def test_what_is_over_some_of_the_channel_axes_stays():
    def heads(x, call):
        return call(layers.Reshape((4, 3, 2))(x))

    for call, reason in (
        (lambda x: ops.mean(x, -1), "over some of the channel axes"),
        (lambda x: ops.max(x, (2, 3)), "a zero over several axes"),
    ):
        inputs = keras.Input((4, 5))
        y = heads(layers.Dense(6)(inputs), call)
        found = ks.structures(keras.Model(inputs, y))
        assert reason in found.fixed[0].reason


def test_halves_of_a_gated_unit():
    rule = rule_of(ops.glu, (4, 6))
    assert [x.tolist() for x in rule.ties()] == [[0, 1, 2] * 2, [0, 1, 2]]
    nan = np.nan
    found = rule.constants([np.array([2.0, 0.0, nan, 1.0, nan, 0.0])])
    expected = [2 / (1 + np.exp(-1)), 0, nan]
    np.testing.assert_allclose(found, expected)
    (read,) = rule.reads(np.array([True, False, False]), [np.full(6, nan)])
    assert read.tolist() == [True, False, False] * 2


class InstanceNorm(layers.Layer):
    """Normalization by the moments of each feature map."""

    def __init__(self, keepdims):
        super().__init__()
        self.keepdims = keepdims

    def build(self, shape):
        self.gamma = self.add_weight(shape[-1:], name="gamma")
        self.beta = self.add_weight(shape[-1:], name="beta")

    def call(self, x):
        mean, variance = ops.moments(x, [1, 2], keepdims=self.keepdims)
        if not self.keepdims:
            mean, variance = mean[:, None, None], variance[:, None, None]
        return self.gamma * (x - mean) * ops.rsqrt(variance + 0.1) + self.beta


@pytest.mark.parametrize("keepdims", [True, False])
def test_moments_are_cut_with_their_channels(keepdims):
    x = inputs = keras.Input((5, 4, 3))
    x = layers.Conv2D(6, 3, name="conv")(x)
    x = InstanceNorm(keepdims)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert ks.structures(model).made_by(0)[0] == "conv"
    cut_half(model)


@pytest.mark.parametrize(
    ("axes", "reason"), [([0, 1], "over all examples"), ([3], "over channels")]
)
def test_moments_over_channels_or_examples_keep_them(axes, reason):
    x = inputs = keras.Input((5, 4, 3))
    x = layers.Conv2D(6, 3)(x)
    mean, _ = ops.moments(x, axes, keepdims=True)
    model = keras.Model(inputs, layers.Dense(2)(x - mean))
    assert reason in str(ks.structures(model))
