"""Convolutions and normalizations in groups of channels."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks


def bottleneck(groups, inner, outputs=None, **options):
    """Returns a block with a grouped convolution, and a layer behind it."""
    x = inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(inner, 1, use_bias=False, name="reduce")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(
        outputs or inner, 3, groups=groups, name="grouped", **options
    )(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(4, 1, name="expand")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("groups", "inner", "outputs", "counts"),
    [
        (8, 16, 16, [8, 4]),  # whole groups, as in ResNeXt
        (6, 6, 12, [6, 4]),  # depthwise, with a multiplier of 2
        (2, 12, 12, [6, 6, 4]),  # equal groups, as in RegNet
        (2, 4, 8, [2, 4, 4]),
    ],
)
def test_half_of_the_groups_or_of_each_is_cut(groups, inner, outputs, counts):
    model = bottleneck(groups, inner, outputs, padding="same")
    assert ks.structures(model).counts.tolist() == counts
    small, _ = cut_half(model)
    grouped = small.get_layer("grouped")
    whole = len(counts) == 2
    assert grouped.groups == (groups // 2 if whole else groups)
    assert grouped.filters == outputs // 2
    assert small.get_layer("reduce").filters == inner // 2


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [2, 4])
def test_every_rank(rank, groups):
    x = inputs = keras.Input((*[4] * rank, 3))
    conv = getattr(layers, f"Conv{rank}D")
    x = conv(8, 1, activation="relu")(x)
    x = conv(8, 2, groups=groups, use_bias=False)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    cut_half(model)


def alive(model, name, flags, axis=-1):
    """Sets slices of a kernel to zero, and their biases."""
    layer = model.get_layer(name)
    shape = [1] * len(layer.kernel.shape)
    shape[axis] = -1
    own = np.reshape(flags, shape)
    layer.kernel.assign(to_numpy(layer.kernel) * own)
    if axis == -1 and layer.bias is not None:
        layer.bias.assign(to_numpy(layer.bias) * flags)


@pytest.mark.parametrize("groups", [2, 4])
def test_constants_are_folded_into_groups(groups):
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, activation="sigmoid", name="first")(x)
    x = layers.Conv2D(8, 2, groups=groups, use_bias=False, name="grouped")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    # Inputs 1 and 5: a place in both of two groups.
    flags = np.arange(8) % 4 != 1
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * flags)
    if groups == 4:
        # Groups 1 and 3 are dead.
        flags = np.arange(8) % 4 < 2
        first.kernel.assign(to_numpy(first.kernel) * flags)
        alive(model, "grouped", flags)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("first").filters == (6 if groups == 2 else 4)
    assert small.get_layer("grouped").use_bias is (groups == 2)


def test_a_group_stays_if_one_of_its_channels_does():
    model = scramble(bottleneck(4, 8), dead=0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.ones(8))
    alive(model, "grouped", [1, 1, 0, 1, 1, 1, 1, 1])
    small, report = ks.shrink(model, 0)
    assert small.get_layer("grouped").groups == 4
    assert "tied" in report.kept[0].reason
    # What nobody reads is dead as well.
    alive(model, "expand", [1, 1, 0, 0, 1, 1, 1, 1], axis=-2)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("grouped").groups == 3
    assert small.get_layer("reduce").filters == 6


def test_a_shuffle_of_groups():
    """Grouped 1x1 convolutions with their channels shuffled in between."""
    x = inputs = keras.Input((4, 4, 6))
    x = layers.Conv2D(12, 1, groups=2, activation="relu")(x)
    x = layers.Reshape((4, 4, 2, 6))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    x = layers.Reshape((4, 4, 12))(x)
    x = layers.Conv2D(8, 1, groups=2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    _, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-5


def test_gates_on_groups():
    model = scramble(bottleneck(8, 16), dead=0)
    gated = ks.add_gates(model, droprate=0.5, seed=0)
    rng = np.random.default_rng(0)
    for layer in gated.layers:
        if isinstance(layer, ks.HardConcrete):
            layer.log_alpha.assign(
                3 * rng.choice([-1, 1], layer.log_alpha.shape)
            )
    small, _ = ks.shrink(gated, 0)
    assert_same_outputs(gated, small)
    assert small.get_layer("grouped").groups < 8


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize("rank", [1, 3])
def test_whole_groups_of_a_normalization_are_cut(rank, options):
    x = inputs = keras.Input((*[4] * (rank - 1), 3))
    kind = layers.Dense if rank == 1 else layers.Conv2D
    arguments = (12,) if rank == 1 else (12, 2)
    x = kind(*arguments, name="first")(x)
    x = layers.GroupNormalization(groups=4, name="norm", **options)(x)
    x = layers.Activation("relu")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert ks.structures(model).counts.tolist() == [4]
    small, _ = cut_half(model)
    assert small.get_layer("norm").groups == 2


def test_constants_of_a_normalization_in_groups():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 2, name="first")(x)
    x = layers.GroupNormalization(groups=4, name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(x))
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    norm = model.get_layer("norm")
    norm.gamma.assign(np.array([1, 1, 1, 1, 0, 0, 0, 1]))
    # Group 0: two constants; group 1: one; group 2: no slopes; 3: one slope.
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * [0, 0, 0, 1, 1, 1, 1, 1])
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("norm").groups == 2
    assert small.get_layer("first").filters == 4
