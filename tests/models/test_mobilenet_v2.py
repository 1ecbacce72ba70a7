"""MobileNetV2 for small images: counts, strides, penalties, gates."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scale_all, scramble, to_numpy

import keras_sgl0 as ks
from keras_sgl0.models import MobileNetV2

# Expansion, maps, blocks, and the side that is left of 32 pixels.
TABLE = [
    (1, 16, 1, 32),
    (6, 24, 2, 32),
    (6, 32, 3, 16),
    (6, 64, 4, 8),
    (6, 96, 3, 8),
    (6, 160, 3, 4),
    (6, 320, 1, 4),
]


def small(**arguments):
    keras.utils.set_random_seed(0)
    return MobileNetV2((8, 8, 3), 5, width=0.25, **arguments)


def expansions(model):
    return [x for x in model.layers if x.name.endswith("_expand")]


@pytest.fixture(scope="module")
def full():
    return MobileNetV2()


def test_parameters_and_multiply_adds_are_those_of_a_hand_count(full):
    parameters = 27 * 32 + 2 * 32
    macs = 27 * 32 * 32**2
    before, side_before = 32, 32
    for expansion, maps, blocks, side in TABLE:
        for _ in range(blocks):
            wide = expansion * before
            if expansion > 1:
                parameters += before * wide + 2 * wide
                macs += before * wide * side_before**2
            parameters += 9 * wide + 2 * wide + wide * maps + 2 * maps
            macs += (9 * wide + wide * maps) * side**2
            before, side_before = maps, side
    parameters += 320 * 1280 + 2 * 1280 + 1281 * 10
    macs += 320 * 1280 * 4**2 + 1280 * 10
    report = ks.sparsity_report(full)
    assert report.parameters == parameters == 2_236_682
    assert ks.count_macs(full).macs == macs


def test_it_has_the_kernels_of_the_one_in_keras():
    def shapes(model):
        return [tuple(w.shape) for w in model.weights]

    ours = MobileNetV2(width=0.35)
    theirs = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10
    )
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize(
    ("side", "strided", "left"),
    [
        (8, 1, 4),
        (32, 3, 4),
        (64, 4, 4),
        (224, 5, 7),
    ],
)
def test_small_images_are_halved_less_often(side, strided, left):
    model = MobileNetV2((side, side, 3), width=0.1)
    halving = ["conv", "block2", "block4", "block7", "block14"]
    found = [
        layer.name.removesuffix("_depthwise")
        for layer in model.layers
        if getattr(layer, "strides", (1,))[0] == 2
    ]
    assert found == halving[5 - strided :]
    assert model.get_layer("last").output.shape[1:3] == (left, left)


def test_sums_are_where_nothing_changes(full):
    found = [x.name for x in full.layers if isinstance(x, keras.layers.Add)]
    numbers = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
    assert found == [f"block{number}_add" for number in numbers]


def test_the_penalty_is_on_the_expansions(full):
    penalty = ks.SGL0(1e-6)
    model = small(kernel_regularizer=penalty, weight_decay=0.02)
    assert len(expansions(model)) == len(expansions(full)) == 16
    decayed = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None or layer.name.endswith("_depthwise"):
            assert {w.regularizer for w in layer.weights} <= {None}
        elif layer in expansions(model):
            assert kernel.regularizer is penalty
        else:
            assert kernel.regularizer.l2 == pytest.approx(0.01)
            decayed += 1
    assert decayed == 1 + 17 + 2
    assert all(x.kernel_regularizer.l2 > 0 for x in expansions(full))


def test_depthwise_kernels_start_as_their_nine_weights_want(full):
    kernel = to_numpy(full.get_layer("block15_depthwise").kernel)
    assert kernel.std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    kernel = to_numpy(full.get_layer("block15_project").kernel)
    assert kernel.std() == pytest.approx((2 / 960) ** 0.5, rel=0.05)


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_gates_fold_and_closed_ones_are_cut():
    asked = {}

    def gate(layer, group_size):
        asked[layer] = group_size
        return ks.HardConcrete()

    gated = scramble(small(gate=gate), dead=0)
    assert asked == {x.name: x.kernel.shape[2] for x in expansions(gated)}
    for number, z in enumerate(ks.gates.gates(gated)):
        closed = np.arange(z.log_alpha.shape[0]) % 4 == number % 4
        z.log_alpha.assign(np.where(closed, -3.0, 1.0))
        norm = gated.get_layer(f"{ks.gates.gated_layer(z)}_bn")
        norm.beta.assign(np.where(closed, -5.0, 1.0))
    cut, report = ks.shrink(gated)
    assert report.relative_difference < 1e-5
    for layer in expansions(gated):
        assert cut.get_layer(layer.name).filters <= 0.75 * layer.filters
    assert_same_outputs(gated, cut)


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_dead_expansions_are_cut_with_all_that_hangs_on_them():
    model = scale_all(scramble(small(), dead=0))
    saved = 0
    for layer in expansions(model):
        dead = np.arange(layer.filters) % 3 == 0
        layer.kernel.assign(to_numpy(layer.kernel) * ~dead)
        for name in (layer.name, layer.name.replace("expand", "depthwise")):
            norm = model.get_layer(f"{name}_bn")
            norm.beta.assign(np.where(dead, -9, to_numpy(norm.beta)))
        project = model.get_layer(layer.name.replace("expand", "project"))
        each = layer.kernel.shape[2] + 4 + 9 + 4 + project.filters
        saved += dead.sum() * each
    cut, report = ks.shrink(model, 0)
    assert model.count_params() - cut.count_params() == saved
    assert report.relative_difference < 1e-5
    assert_same_outputs(model, cut)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": (32, 3, 3)}, "input_shape"),
        ({"input_shape": (32.0, 32, 3)}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0}, "width"),
        ({"width": None}, "width"),
        ({"dropout": 1}, "dropout"),
        ({"weight_decay": -1}, "weight_decay"),
    ],
)
def test_bad_arguments_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        MobileNetV2(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        MobileNetV2(width=-1.0)
    assert str(caught.value) == (
        "Invalid value for argument `width`. Expected a finite number greater "
        "than 0. Received: width=-1.0"
    )


def test_dropout_may_be_left_out():
    names = [x.name for x in small(dropout=0).layers]
    assert "dropout" not in names
    assert "dropout" in [x.name for x in small().layers]
