"""What is left of networks with slices, views and moves of their channels."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_outputs
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.gates.dependence import Dependence
from keras_sgl0.structures.selection import random_half

DTYPES = ["float32"] + ["float64"] * (BACKEND == "tensorflow")
RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=8).astype("float32")
GRID = RNG.normal(size=(6, 6, 1)).astype("float32")


def conv(x, filters, size=1, activation="relu"):
    options = {"padding": "same", "activation": activation}
    return layers.Conv2D(filters, size, **options)(x)


def dense(x, units, activation="relu"):
    return layers.Dense(units, activation)(x)


def built(network, shape):
    """Returns a model with random weights, of which none is zero."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(shape, dtype=keras.config.dtype_policy().name)
    x = network(x)
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    rng = np.random.default_rng(0)
    for v in model.weights:
        value = rng.normal(size=v.shape)
        v.assign(abs(value) + 0.5 if "variance" in v.path else value)
    return model


def cut_half(model, tolerance=1e-5):
    """Cuts half of every family; returns the families and what is left."""
    found = ks.structures(model)
    dead = random_half(found, np.random.default_rng(1))
    found.zero(dead)
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small, tolerance)
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters
    assert ks.count_macs(small).macs == cost.macs == report.macs_after
    return found, small, report


def excite(spread):
    """Returns a squeeze-and-excite block on dense layers."""

    def network(x):
        x = conv(x, 8, 3)
        s = dense(layers.GlobalAveragePooling2D()(x), 4)
        s = dense(s, 8, "sigmoid")
        return layers.GlobalMaxPooling2D()(x * spread(s))

    return network


def split_stage(halves):
    """Returns a stage with a split, as in YOLO's C2f."""

    def network(x):
        a, b = halves(conv(x, 8))
        c = conv(b, 4, 3)
        b = b + conv(c, 4, 3)
        return conv(layers.Concatenate()([a, b, c]), 6)

    return network


def shuffle(x):
    x = conv(x, 12)
    x = ops.reshape(x, (-1, 6, 6, 3, 4))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    return conv(ops.reshape(x, (-1, 6, 6, 12)), 6)


def gated_by_slices(x):
    x = dense(x, 12, None)
    return dense(x[..., :6] * ops.sigmoid(x[..., 6:]), 4)


def gated_by_split(x):
    a, b = ops.split(dense(x, 12, None), 2, axis=-1)
    return dense(a * ops.silu(b), 4)


def three_parts(x):
    a, b, c = ops.split(dense(x, 12), [2, 8], axis=-1)
    return layers.Concatenate()([dense(y, 3) for y in (a, b, c)])


def patches(x):
    x = ops.reshape(conv(x, 6), (-1, 3, 2, 3, 2, 6))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return dense(ops.reshape(x, (-1, 9, 24)), 5)


def windows(x):
    x = conv(x, 6)
    y = ops.reshape(x, (-1, 2, 3, 2, 3, 6))
    y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
    y = dense(ops.reshape(y, (-1, 9, 6)), 6)
    y = ops.reshape(y, (-1, 2, 2, 3, 3, 6))
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 6, 6, 6))
    return conv(ops.roll(x + y, (-1, -1), axis=(1, 2)), 4)


def projected(parts):
    """Returns a product of queries and keys from one layer."""

    def network(x):
        x = ops.reshape(dense(x, 24, None), (-1, 6, 3, 2, 4))
        q, k, v = parts(x)
        y = ops.transpose(q * k + v, (0, 2, 1, 3))
        y = ops.transpose(y, (0, 2, 1, 3))
        return dense(ops.reshape(y, (-1, 6, 8)), 4)

    return network


def padded_shortcut(x):
    x = conv(x, 4)
    y = ops.pad(x, [[0, 0], [0, 0], [0, 0], [2, 2]]) + conv(x, 8)
    return conv(ops.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]), 6)


def pixel_shuffle(x):
    x = conv(ops.nn.depth_to_space(conv(x, 12), 2), 6)
    return conv(ops.nn.space_to_depth(x, 2), 2)


def off_channels(x):
    y = ops.stack([dense(x, 4), dense(x, 4)], axis=2)
    y = ops.roll(ops.flip(y, -1), 1, axis=1)
    y = ops.tile(ops.repeat(y, 2, axis=1), (1, 1, 2, 1))
    y = ops.take(y, [0, 1, 2], axis=1)
    y = ops.moveaxis(ops.swapaxes(y, 1, 3), 1, 3)
    return dense(y, 3)


def interleaved(x):
    y = ops.stack([dense(x, 4), dense(x, 4)], axis=-1)
    return dense(ops.reshape(y, (-1, 6, 8)), 3)


def first_token(x):
    x = dense(x, 6)
    return ops.squeeze(x[:, :1], 1) + ops.expand_dims(x[:, -1], 1)[:, 0]


def excite_by_convolutions(x):
    x = conv(x, 8, 3)
    s = ops.mean(x, axis=(1, 2), keepdims=True)
    return ops.max(x * conv(conv(s, 4), 8, 1, "sigmoid"), axis=(1, 2))


def gated_by_an_operation(x):
    return dense(ops.glu(dense(x, 12, None)), 4)


def statistics(x):
    """Returns what a style network reads: moments of each channel."""
    x = conv(x, 6)
    pair = [ops.mean(x, (1, 2)), ops.std(x, (1, 2)), ops.min(x, (1, 2))]
    return dense(layers.Concatenate()([*pair, ops.sum(x, (1, 2))]), 4)


def pyramid(x):
    fine = conv(x, 6)
    coarse = conv(ops.max_pool(fine, 2), 4)
    wide = layers.Resizing(6, 6, "nearest")(coarse)
    x = conv(layers.Concatenate()([fine, wide]), 4, 3)
    return ops.average_pool(x + ops.image.resize(coarse, (6, 6)), 2)


def u_net(x):
    a = conv(x, 4, 3)
    b = conv(layers.MaxPooling2D()(a), 6, 3)
    up = layers.Conv2DTranspose(4, 2, 2, activation="relu")(b)
    x = conv(layers.Concatenate()([layers.ZeroPadding2D(1)(up), a_pad(a)]), 5)
    return layers.Cropping2D(1)(x)


def a_pad(a):
    return ops.pad(a, [[0, 0], [1, 1], [1, 1], [0, 0]])


def summed(x):
    x = conv(x, 6)
    return conv(x, 4) * ops.sum(x, -1, keepdims=True)


IMAGE, STEPS = (6, 6, 3), (6, 3)
NETWORKS = {
    "excite by a slice": (excite(lambda s: s[:, None, None, :]), IMAGE, [8, 4]),
    "excite by a view": (
        excite(lambda s: ops.reshape(s, (-1, 1, 1, 8))),
        IMAGE,
        [8, 4],
    ),
    "excite by a layer": (excite(layers.Reshape((1, 1, 8))), IMAGE, [8, 4]),
    "excite by new axes": (
        excite(lambda s: ops.expand_dims(s, (1, 2))),
        IMAGE,
        [8, 4],
    ),
    "split": (split_stage(lambda x: ops.split(x, 2, -1)), IMAGE, [4, 4, 4, 6]),
    "split by slices": (
        split_stage(lambda x: (x[..., :4], x[..., 4:])),
        IMAGE,
        [4, 4, 4, 6],
    ),
    "shuffle": (shuffle, IMAGE, [4, 6]),
    "gated by slices": (gated_by_slices, STEPS, [6, 4]),
    "gated by a split": (gated_by_split, STEPS, [6, 4]),
    "three parts": (three_parts, STEPS, [2, 6, 4, 3, 3, 3]),
    "patches": (patches, IMAGE, [6, 5]),
    "windows": (windows, IMAGE, [6, 4]),
    "projected, unstacked": (
        projected(lambda x: ops.unstack(x, 3, axis=2)),
        STEPS,
        [4, 4],
    ),
    "projected, by index": (
        projected(lambda x: [x[:, :, i] for i in range(3)]),
        STEPS,
        [4, 4],
    ),
    "padded shortcut": (padded_shortcut, IMAGE, [4, 4, 6]),
    "pixel shuffle": (pixel_shuffle, IMAGE, [3, 6, 2]),
    "off channels": (off_channels, STEPS, [4, 3]),
    "interleaved": (interleaved, STEPS, [4, 3]),
    "first token": (first_token, STEPS, [6]),
    "excite by convolutions": (excite_by_convolutions, IMAGE, [8, 4]),
    "gated by an operation": (gated_by_an_operation, STEPS, [6, 4]),
    "statistics": (statistics, IMAGE, [6, 4]),
    "pyramid": (pyramid, IMAGE, [6, 4]),
    "u-net": (u_net, IMAGE, [4, 6, 4, 5]),
    "summed": (summed, IMAGE, [6, 4]),
    "a number a channel": (
        lambda x: conv(conv(x, 8) * VECTOR + VECTOR, 4),
        IMAGE,
        [8, 4],
    ),
    "a number a position": (
        lambda x: conv(ops.maximum(conv(x, 8) * GRID, 0.0), 4),
        IMAGE,
        [8, 4],
    ),
}


# JAX compiles each operation of each of them.
NAMES = list(NETWORKS)[:: 5 if BACKEND == "jax" else 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_cut(name, dtype):
    network, shape, counts = NETWORKS[name]
    keras.config.set_dtype_policy(dtype)
    try:
        model = built(network, shape)
    finally:
        keras.config.set_dtype_policy("float32")
    tolerance = 1e-9 if dtype == "float64" else 1e-5
    found, _, report = cut_half(model, tolerance)
    assert sorted(found.counts.tolist()) == sorted(counts)
    assert [entry.layer for entry in found.fixed] == ["last"]
    assert report.whole == report.kept == ()


@pytest.mark.parametrize(
    "name",
    ["split", "split by slices", "padded shortcut", "projected, by index"],
)
def test_every_channel_has_its_gate(name):
    network, shape, counts = NETWORKS[name]
    model = ks.add_gates(built(network, shape))
    found = Dependence(model)
    # One gate a structure, wherever it is, and none for what is in none.
    assert sorted(map(len, found.sets)) == [0] + [1] * sum(counts)
    for gate in found.gates:
        number = gate.log_alpha.shape[0]
        gate.log_alpha.assign(np.resize([10.0, -10.0], number))
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert_same_outputs(model, ks.fold_gates(model))
    kept = ks.structures(small).counts
    assert sorted(kept.tolist()) == sorted(-(-n // 2) for n in counts)


def test_what_counts_its_channels_is_given_zeros():
    def network(x):
        x = conv(x, 6, 3)
        pair = [ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)]
        return conv(x * conv(layers.Concatenate()(pair), 1, 3), 4)

    found, small, report = cut_half(built(network, IMAGE))
    assert found.counts.tolist() == [6, 4]
    assert small.layers[1].filters == 3
    assert not report.whole


def test_a_constant_that_is_summed_stays():
    def network(x):
        return conv(x, 4) * ops.sum(conv(x, 6, 1, "sigmoid"), -1, True)

    model = built(network, IMAGE)
    found = ks.structures(model)
    reasons = {entry.channels: entry.reason for entry in found.fixed}
    assert "its constant, not zero, counts in `sum" in reasons[6]
    (maker,) = (y for y in model.layers if getattr(y, "filters", 0) == 6)
    alive = np.array([False, True, True, False, True, True])
    maker.kernel.assign(ops.where(alive, maker.kernel, 0.0))
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer(maker.name).filters == 6
    (kept,) = report.kept
    assert kept.channels == (0, 3) and "counts in `sum" in kept.reason
