"""ResNets for small images: counts, layout, penalties, gates, shrinking."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scale_all, scramble, to_numpy

import keras_sgl0 as ks
from keras_sgl0.models import ResNet

CONV1 = [f"stage{stage}_block1_conv1" for stage in (1, 2, 3)]


def small(**arguments):
    """Returns a ResNet-8 with 4, 8 and 16 maps for 8x8 images."""
    keras.utils.set_random_seed(0)
    return ResNet((8, 8, 3), 5, depth=8, width=0.25, **arguments)


def counts(blocks, maps, classes=10):
    """Returns parameters and multiply-adds of a network for 32x32x3 images.

    Counted by hand: kernels, two vectors of each batch normalization, biases.
    """
    parameters = 27 * maps[0] + 2 * maps[0]
    macs = 27 * maps[0] * 32**2
    before = maps[0]
    for wide, side in zip(maps, (32, 16, 8), strict=True):
        if side < 32:
            parameters += before * wide + 2 * wide
            macs += before * wide * side**2
        for block in range(blocks):
            reads = wide if block else before
            kernels = 9 * wide * (reads + wide)
            parameters += kernels + 4 * wide
            macs += kernels * side**2
        before = wide
    return parameters + (maps[2] + 1) * classes, macs + maps[2] * classes


@pytest.mark.parametrize(
    ("depth", "width", "maps"),
    [
        (20, 1, (16, 32, 64)),
        (20, 0.7, (11, 22, 45)),
        (14, 0.01, (1, 1, 1)),
        (8, 1.25, (20, 40, 80)),
    ],
)
def test_parameters_and_multiply_adds_are_those_of_a_hand_count(
    depth, width, maps
):
    model = ResNet(depth=depth, width=width)
    parameters, macs = counts((depth - 2) // 6, maps)
    assert ks.sparsity_report(model).parameters == parameters
    assert ks.count_macs(model).macs == macs
    if (depth, width) == (20, 1):
        assert (parameters, macs) == (272_474, 40_813_184)
        # He et al. count .27 M parameters.
        assert round(parameters / 1e6, 2) == 0.27


def test_maps_and_strides_of_a_small_one():
    model = small()
    found = {
        layer.name: (layer.filters, layer.strides[0], layer.output.shape[1])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert found == {
        "conv": (4, 1, 8),
        "stage1_block1_conv1": (4, 1, 8),
        "stage1_block1_conv2": (4, 1, 8),
        "stage2_block1_conv1": (8, 2, 4),
        "stage2_block1_conv2": (8, 1, 4),
        "stage2_block1_shortcut": (8, 2, 4),
        "stage3_block1_conv1": (16, 2, 2),
        "stage3_block1_conv2": (16, 1, 2),
        "stage3_block1_shortcut": (16, 2, 2),
    }
    biased = [w.path for w in model.weights if w.name == "bias"]
    assert biased == ["fc/bias"]
    assert model.name == "resnet_8_0.25"


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (20, 3), (56, 9)])
def test_the_depth_counts_the_layers_with_kernels(depth, blocks):
    model = ResNet((5, 7, 1), 3, depth=depth, width=0.25)
    names = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    assert len([name for name in names if "shortcut" not in name]) == depth
    assert sum(name.endswith("_conv1") for name in names) == 3 * blocks
    assert sum("shortcut" in name for name in names) == 2
    assert model.output_shape == (None, 3)


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_it_computes_what_the_paper_says():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    model = ResNet((12, 12, 3), 4, depth=14, width=0.5)
    scramble(model, dead=0.2)
    weights = {
        w.path: torch.from_numpy(to_numpy(w).copy()) for w in model.weights
    }

    def conv(x, name, stride=1):
        kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        padding = kernel.shape[-1] // 2
        return f.conv2d(x, kernel, stride=stride, padding=padding)

    def normalized(x, name):
        keys = ("moving_mean", "moving_variance", "gamma", "beta")
        return f.batch_norm(x, *(weights[f"{name}/{key}"] for key in keys))

    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    images = images.astype("float32")
    x = conv(torch.from_numpy(images).permute(0, 3, 1, 2), "conv")
    x = f.relu(normalized(x, "bn"))
    for stage in (1, 2, 3):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = conv(x, f"{name}_conv1", stride)
            y = conv(f.relu(normalized(y, f"{name}_bn1")), f"{name}_conv2")
            y = normalized(y, f"{name}_bn2")
            if stride == 2:
                x = conv(x, f"{name}_shortcut", stride)
                x = normalized(x, f"{name}_shortcut_bn")
            x = f.relu(x + y)
    x = x.mean((2, 3))
    expected = (x @ weights["fc/kernel"] + weights["fc/bias"]).numpy()
    outputs = to_numpy(model(images))
    assert abs(outputs - expected).max() < 1e-5 * abs(expected).max()


def test_it_starts_as_the_paper_starts_it():
    model = ResNet((8, 8, 3), 200, depth=8, width=2)
    for name, fan_in in (("stage3_block1_conv2", 9 * 128), ("fc", 128)):
        kernel = to_numpy(model.get_layer(name).kernel)
        assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
        assert abs(kernel).max() > 3 * kernel.std()


@pytest.mark.parametrize("penalty", [None, ks.GroupLasso(1.0)])
def test_all_but_what_is_regularised_decays(penalty):
    model = small(kernel_regularizer=penalty, weight_decay=0.02)
    expected = 0
    for variable in model.trainable_variables:
        if penalty and variable.path.split("/")[0] in CONV1:
            assert variable.regularizer is penalty
            expected += float(penalty(variable))
        else:
            assert type(variable.regularizer) is keras.regularizers.L2
            expected += 0.01 * (to_numpy(variable) ** 2).sum()
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_the_decay_is_that_of_the_paper_and_may_be_left_out():
    kernel = small().get_layer("conv").kernel
    assert kernel.regularizer.l2 == pytest.approx(1e-4 / 2)
    assert small(weight_decay=0).losses == []


def test_the_gate_function_gets_layers_and_group_sizes():
    asked = {}

    def gate(layer, group_size):
        asked[layer] = group_size
        return ks.HardConcrete(0.75, name=f"{layer}_gate")

    plain, model = small(), small(gate=gate)
    assert asked == dict(zip(CONV1, (9 * 4, 9 * 4, 9 * 8), strict=True))
    gates = ks.gates.gates(model)
    assert [ks.gates.gated_layer(g) for g in gates] == CONV1
    assert [ks.gates.gate_group_size(g) for g in gates] == [*asked.values()]
    for name in CONV1:
        assert model.get_layer(name).kernel.regularizer is None
        before, after = (
            to_numpy(m.get_layer(name).kernel) for m in (plain, model)
        )
        # The mean square has a relative standard error of sqrt(2 / size).
        ratio = (after**2).mean() / (before**2).mean() / 4**2
        assert abs(np.log(ratio)) < 12 * (2 / before.size) ** 0.5


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_gates_fold_and_closed_ones_are_cut():
    gated = small(gate=lambda *_: ks.HardConcrete())
    scale_all(scramble(gated, dead=0))
    closed = {CONV1[0]: [1], CONV1[1]: [0, 5, 6], CONV1[2]: range(2, 12)}
    for gate in ks.gates.gates(gated):
        layer = ks.gates.gated_layer(gate)
        log_alpha = np.full(gate.log_alpha.shape, 1.0)
        log_alpha[list(closed[layer])] = -3
        gate.log_alpha.assign(log_alpha)
        # What is left of a closed map is cut if ReLU stops it.
        norm = gated.get_layer(layer.replace("conv1", "bn1"))
        norm.beta.assign(np.where(log_alpha < 0, -5.0, 1.0))
    assert_same_outputs(gated, ks.fold_gates(gated))
    cut, report = ks.shrink(gated)
    assert report.relative_difference < 1e-5
    filters = [cut.get_layer(name).filters for name in CONV1]
    assert filters == [3, 5, 6]
    assert ks.gate_report(gated).architecture == "3-5-6"


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_it_survives_saving(tmp_path):
    model = small(
        kernel_regularizer=ks.SGL0(1e-3), gate=lambda *_: ks.HardConcrete()
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_outputs(model, loaded)
    for name in CONV1:
        assert isinstance(loaded.get_layer(name).kernel_regularizer, ks.SGL0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": (32, 32)}, "input_shape"),
        ({"input_shape": (3, 32, 3)}, "input_shape"),
        ({"input_shape": None}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0}, "width"),
        ({"width": "1"}, "width"),
        ({"width": float("nan")}, "width"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        *(({"depth": depth}, "depth") for depth in (2, 7, 18, 20.0, "20")),
    ],
)
def test_bad_arguments_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ResNet(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ResNet(depth=18)
    assert str(caught.value) == (
        "Invalid value for argument `depth`. Expected 6n + 2: 8, 14, 20, 26, "
        ".... Received: depth=18"
    )
