"""ResNet-20 without dead channels: those of a block, and those of a stream."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scale_all, scramble, to_numpy

import keras_sgl0 as ks
from keras_sgl0.models import ResNet

pytestmark = pytest.mark.tensorflow  # JAX compiles every layer for minutes


def streams(model):
    """Returns the layers that write each stage's residual stream."""
    names = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    found = {}
    for stage in (1, 2, 3):
        found[stage] = ["conv"] if stage == 1 else []
        found[stage] += [
            name
            for name in names
            if name.startswith(f"stage{stage}_")
            and name.endswith(("_conv2", "_shortcut"))
        ]
    return found


def norm_of(name):
    """Returns the name of the batch normalization behind a convolution."""
    if name.endswith("_shortcut"):
        return f"{name}_bn"
    return name.replace("conv", "bn")


def kill(model, name, dead):
    """Zeroes channels of a convolution and of its batch normalization."""
    for layer in (model.get_layer(name), model.get_layer(norm_of(name))):
        for variable in layer.trainable_variables:
            variable.assign(to_numpy(variable) * ~dead)


def some(rng, channels, number):
    dead = np.zeros(channels, bool)
    dead[rng.choice(channels, number, replace=False)] = True
    return dead


@pytest.mark.parametrize("seed", range(2))
def test_a_random_half_of_everything_leaves_the_half_as_wide_network(seed):
    rng = np.random.default_rng(seed)
    model = scale_all(scramble(ResNet(), dead=0, seed=seed))
    for name in model.prunable_layers:
        filters = model.get_layer(name).filters
        kill(model, name, some(rng, filters, filters // 2))
    for names in streams(model).values():
        filters = model.get_layer(names[0]).filters
        dead = some(rng, filters, filters // 2)
        for name in names:
            kill(model, name, dead)
    small, report = ks.shrink(model, 0)
    half = ResNet(width=0.5)
    assert small.count_params() == half.count_params()
    assert report.macs_after == ks.count_macs(half).macs
    assert report.relative_difference < 1e-5
    assert_same_outputs(model, small)


@pytest.mark.parametrize("seed", range(2))
def test_dead_channels_of_single_kernels_leave_the_same_outputs(seed):
    """In a stream they stay, tied to what other layers write there."""
    model = scramble(ResNet((16, 16, 3)), dead=0.5, seed=seed)
    small, report = ks.shrink(model, 0)
    assert small.count_params() < model.count_params()
    assert report.relative_difference < 1e-5
    assert_same_outputs(model, small)
    for names in streams(model).values():
        (kept,) = {small.get_layer(name).filters for name in names}
        assert kept <= model.get_layer(names[0]).filters


def test_blocks_without_any_channel_left_keep_one():
    model = scramble(ResNet((16, 16, 3), depth=8), dead=0)
    for name in model.prunable_layers:
        kill(model, name, np.ones(model.get_layer(name).filters, bool))
    small, report = ks.shrink(model, 0)
    assert set(report.dead_branches) >= {*model.prunable_layers}
    kept = [small.get_layer(name).filters for name in model.prunable_layers]
    assert kept == [1, 1, 1]
    assert_same_outputs(model, small)


def test_a_shrunk_one_trains_and_shrinks_again():
    rng = np.random.default_rng(0)
    model = scramble(ResNet((8, 8, 3), 3, depth=8, width=0.5), dead=0)
    for name in model.prunable_layers:
        kill(model, name, some(rng, model.get_layer(name).filters, 3))
    small, _ = ks.shrink(model, 0)
    small.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    images = rng.random((16, 8, 8, 3), "float32")
    small.fit(images, rng.integers(0, 3, 16), verbose=0)
    kill(small, "stage3_block1_conv1", some(rng, 29, 4))
    smaller, _ = ks.shrink(small, 0)
    assert smaller.get_layer("stage3_block1_conv1").filters == 25
    assert_same_outputs(small, smaller)
