"""Wide residual networks: the papers' counts, their layout, penalties, gates.

The large one is built once and only counted.
"""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scale_all, scramble, to_numpy

import keras_sgl0 as ks
from keras_sgl0.models import WideResNet

CONV1 = [f"stage{stage}_block1_conv1" for stage in (1, 2, 3)]


def small(**arguments):
    """Returns a WRN-10 with 4, 8 and 16 maps for 8x8 images."""
    keras.utils.set_random_seed(0)
    return WideResNet((8, 8, 3), 5, depth=10, width=0.25, **arguments)


def size(variable):
    return int(np.prod(variable.shape))


@pytest.fixture(scope="module")
def large():
    return WideResNet(kernel_regularizer=ks.SGL0(1e-6, axis="auto"))


def test_wrn_28_10_has_the_papers_size(large):
    report = ks.sparsity_report(large)
    assert report.kernel_weights == 36_461_232
    assert report.parameters == 36_479_194
    assert report.neurons == 10_736
    # For 100 classes only the last layer differs.
    (fc,) = (k for k in report.kernels if k.name == "fc/kernel")
    assert fc.shape == (640, 10)
    assert report.kernel_weights + 640 * 90 == 36_518_832
    assert report.parameters + 641 * 90 == 36_536_884


def test_wrn_28_10_has_the_papers_regularised_weights(large):
    regularised = [
        v
        for v in large.trainable_variables
        if isinstance(v.regularizer, ks.SGL0)
    ]
    assert len(regularised) == 12
    assert sum(map(size, regularised)) == 16_842_240
    assert sum(k.shape[-1] for k in regularised) == 4_480


def test_wrn_28_10_has_the_multiply_adds_of_a_hand_count(large):
    first = 32 * 32 * 9 * 3 * 16
    stages = 0
    for maps, before, side, side_before in (
        (160, 16, 32, 32),
        (320, 160, 16, 32),
        (640, 320, 8, 16),
    ):
        conv1 = 9 * before * maps * side_before**2  # at full size
        shortcut = before * maps * side**2
        stages += conv1 + shortcut + 7 * 9 * maps**2 * side**2
    assert first + stages + 6400 == 5_951_117_568
    assert ks.count_macs(large).macs == first + stages + 6400


def test_maps_and_strides_of_a_small_one():
    model = small()
    found = {
        layer.name: (layer.filters, layer.strides[0], layer.output.shape[1])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert found == {
        "conv": (16, 1, 8),
        "stage1_block1_shortcut": (4, 1, 8),
        "stage1_block1_conv1": (4, 1, 8),
        "stage1_block1_conv2": (4, 1, 8),
        "stage2_block1_shortcut": (8, 2, 4),
        "stage2_block1_conv1": (8, 1, 8),
        "stage2_block1_conv2": (8, 2, 4),
        "stage3_block1_shortcut": (16, 2, 2),
        "stage3_block1_conv1": (16, 1, 4),
        "stage3_block1_conv2": (16, 2, 2),
    }
    biased = [w.path for w in model.weights if w.name == "bias"]
    assert biased == ["fc/bias"]
    assert model.name == "wrn_10_0.25"


@pytest.mark.parametrize(
    ("depth", "width", "shortcuts"), [(16, 1, 2), (16, 2, 3), (10, 1.5, 3)]
)
def test_there_are_shortcuts_where_the_maps_change(depth, width, shortcuts):
    model = WideResNet((5, 7, 1), 3, depth=depth, width=width)
    names = [layer.name for layer in model.layers]
    assert sum("shortcut" in name for name in names) == shortcuts
    assert sum("_conv1" in name for name in names) == (depth - 4) // 2
    outputs = to_numpy(model(np.ones((2, 5, 7, 1), "float32")))
    assert outputs.shape == (2, 3)


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_it_computes_what_the_authors_layout_computes():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    model = WideResNet((12, 12, 3), 4, depth=16, width=0.5)
    scramble(model, dead=0.2)
    weights = {
        w.path: torch.from_numpy(to_numpy(w).copy()) for w in model.weights
    }

    def conv(x, name, stride=1):
        kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        padding = kernel.shape[-1] // 2
        return f.conv2d(x, kernel, stride=stride, padding=padding)

    def rectified(x, name):
        keys = ("moving_mean", "moving_variance", "gamma", "beta")
        return f.relu(
            f.batch_norm(x, *(weights[f"{name}/{key}"] for key in keys))
        )

    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    images = images.astype("float32")
    x = conv(torch.from_numpy(images).permute(0, 3, 1, 2), "conv")
    for stage in (1, 2, 3):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = rectified(x, f"{name}_bn1")
            if block == 1:
                x = conv(y, f"{name}_shortcut", stride)
            y = rectified(conv(y, f"{name}_conv1"), f"{name}_bn2")
            x = x + conv(y, f"{name}_conv2", stride)
    x = f.avg_pool2d(rectified(x, "bn"), 3).flatten(1)
    expected = (x @ weights["fc/kernel"] + weights["fc/bias"]).numpy()
    outputs = to_numpy(model(images))
    assert abs(outputs - expected).max() < 1e-5 * abs(expected).max()


def test_it_starts_as_the_authors_start_it():
    model = WideResNet((8, 8, 3), 200, depth=10, width=2)
    for name, fan_in in (("stage3_block1_conv2", 9 * 128), ("fc", 128)):
        kernel = to_numpy(model.get_layer(name).kernel)
        assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
        assert abs(kernel).max() > 3 * kernel.std()
    bias = to_numpy(model.get_layer("fc").bias)
    assert bias.std() == pytest.approx(0.01, rel=0.3)


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


def test_there_need_be_no_decay():
    assert small(weight_decay=0).losses == []


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [
        ({}, [0.3] * 3),
        ({"dropout": 0.1}, [0.1] * 3),
        ({"dropout": 0}, []),
        ({"gate": lambda *_: ks.HardConcrete()}, []),
        ({"gate": lambda *_: ks.HardConcrete(), "dropout": 0.2}, [0.2] * 3),
    ],
)
def test_dropout_is_before_conv2_unless_gates_are_there(arguments, rates):
    model = small(**arguments)
    found = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert [layer.rate for layer in found] == rates
    for layer in found:
        (node,) = layer._outbound_nodes
        after = node.operation
        if isinstance(after, keras.layers.ZeroPadding2D):
            after = after._outbound_nodes[0].operation
        assert after.name.endswith("_conv2")


def test_the_gate_function_gets_layers_and_group_sizes():
    asked = {}

    def gate(layer, group_size):
        asked[layer] = group_size
        return ks.HardConcrete(name=f"{layer}_gate")

    model = small(gate=gate)
    assert asked == dict(zip(CONV1, (9 * 16, 9 * 4, 9 * 8), strict=True))
    gates = ks.gates.gates(model)
    assert [ks.gates.gated_layer(g) for g in gates] == CONV1
    assert [ks.gates.gate_group_size(g) for g in gates] == [*asked.values()]
    assert [g.log_alpha.shape for g in gates] == [(4,), (8,), (16,)]
    for name in CONV1:
        assert model.get_layer(name).kernel.regularizer is None


def test_what_is_behind_gates_starts_larger():
    plain = small()
    gated = small(gate=lambda *_: ks.HardConcrete(0.75))
    kernels = [w.path for w in plain.weights if w.name == "kernel"]
    for name in (path.removesuffix("/kernel") for path in kernels):
        before, after = (
            to_numpy(model.get_layer(name).kernel) for model in (plain, gated)
        )
        scale = 4 if name in CONV1 else 1
        # The mean square has a relative standard error of sqrt(2 / size).
        ratio = (after**2).mean() / (before**2).mean() / scale**2
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
        norm = gated.get_layer(layer.replace("conv1", "bn2"))
        shift = np.where(log_alpha < 0, -5.0, 1.0)
        norm.beta.assign(shift)
    folded = ks.fold_gates(gated)
    assert_same_outputs(gated, folded)
    assert not any(isinstance(x, ks.HardConcrete) for x in folded.layers)
    cut, report = ks.shrink(gated)
    assert_same_outputs(gated, cut)
    assert report.relative_difference < 1e-5
    filters = [cut.get_layer(name).filters for name in CONV1]
    assert filters == [3, 5, 6]
    assert ks.gate_report(gated).architecture == "3-5-6"


@pytest.mark.tensorflow  # JAX compiles every layer for minutes
def test_dead_neurons_of_a_wrn_16_1_are_cut():
    model = WideResNet((8, 8, 3), depth=16, width=1)
    scale_all(scramble(model, dead=0))
    names = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2)]
    saved = 0
    for number, name in enumerate(names):
        conv = model.get_layer(f"{name}_conv1")
        norm = model.get_layer(f"{name}_bn2")
        dead = np.arange(conv.filters) % 3 == number % 3
        conv.kernel.assign(to_numpy(conv.kernel) * ~dead)
        norm.beta.assign(np.where(dead, -5, to_numpy(norm.beta)))
        # Its kernel, four vectors of batch norm and the rows that read it.
        taps = size(conv.kernel) // conv.filters
        saved += dead.sum() * (taps + 4 + 9 * conv.filters)
    cut, report = ks.shrink(model, 0)
    assert model.count_params() - cut.count_params() == saved
    assert report.macs_after < report.macs
    assert_same_outputs(model, cut)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": (32, 32)}, "input_shape"),
        ({"input_shape": (3, 32, 3)}, "input_shape"),
        ({"input_shape": None}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0}, "width"),
        ({"width": 0.1}, "width"),
        ({"width": "10"}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        *(({"depth": depth}, "depth") for depth in (4, 12, 27, 28.0, "28")),
    ],
)
def test_bad_arguments_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        WideResNet(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        WideResNet(depth=27)
    assert str(caught.value) == (
        "Invalid value for argument `depth`. Expected 6n + 4: 10, 16, 22, 28, "
        ".... Received: depth=27"
    )


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
