"""Which gates are open, and which are behind a closed one."""

import json

import keras
import numpy as np
import pytest
from gated_models import (
    MODELS,
    Subclassed,
    lenet,
)
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates


def lenet_with_open(conv1, conv2, fc1, fc2):
    model = lenet(ks.HardConcrete)
    for gate, alive in zip(gates(model), (conv1, conv2, fc1, fc2), strict=True):
        log_alpha = np.full(gate.log_alpha.shape, -4.0)
        log_alpha[list(alive)] = 4.0
        gate.log_alpha.assign(log_alpha)
    return model


@pytest.mark.parametrize(
    ("build", "parameters", "sizes"),
    [
        (ks.models.LeNet5Caffe, 430_570, (26, 501, 500, 10)),
        (ks.models.MLP, 266_200, (300, 100, 10)),
    ],
)
def test_the_papers_count_of_gated_parameters(build, parameters, sizes):
    report = ks.gate_report(build(gate=lambda *_: ks.HardConcrete()))
    assert report.parameters == parameters
    assert tuple(g.group_size for g in report.layers) == sizes


def test_the_architecture_intersects_inputs_with_feature_maps():
    # Input i of fc1 belongs to map i % 50; fc2 has inputs of its own.
    inputs = [0, 1, 2, 50, 51, 100, 799]
    report = ks.gate_report(lenet_with_open([3], [0, 2, 7], inputs, range(400)))
    assert report.architecture == "1-3-4-400"
    assert [g.gates for g in report.layers] == [20, 50, 800, 500]
    assert [g.name for g in report.layers] == ["conv1", "conv2", "fc1", "fc2"]
    opened = 1 / (1 + np.exp(-4.0 - 2 / 3 * np.log(11)))
    closed = 1 / (1 + np.exp(4.0 - 2 / 3 * np.log(11)))
    conv2 = report.layers[1]
    expected = 3 * opened + 47 * closed
    assert conv2.expected_open == pytest.approx(expected, rel=1e-5)
    assert conv2.density == pytest.approx(expected / 50, rel=1e-5)


def test_the_report_as_text_and_plain_numbers():
    report = ks.gate_report(lenet_with_open([3], [0, 2, 7], [0], range(400)))
    plain = json.loads(json.dumps(report.to_dict()))
    active = sum(g.expected_open * g.group_size for g in report.layers)
    assert plain["density"] == pytest.approx(active / 430_570)
    assert plain["architecture"] == "1-3-1-400"
    assert plain["layers"][1]["open"] == 3
    assert plain["layers"][1]["group_size"] == 501
    lines = str(report).splitlines()
    assert lines[0].split() == [
        *("gated", "layer", "open", "gates"),
        *("parameters", "each", "expected", "density"),
    ]
    density = f"{report.layers[1].density:.2%}"
    assert lines[3].split() == ["conv2", "3", "/", "50", "501", density]
    assert lines[-1] == (
        f" architecture 1-3-1-400, expected density {report.density:.2%} of "
        "430,570 gated parameters"
    )


def test_a_subclassed_model_is_reported_by_its_group_sizes():
    model = Subclassed()
    model(np.ones((1, 8), "float32"))
    assert ks.gate_report(model).parameters == 24


@pytest.mark.parametrize("function", [ks.fold_gates, ks.gate_report])
def test_models_without_gates_or_weights_are_refused(function):
    for model, expected in (
        (ks.models.MLP((8,)), "a model with `HardConcrete` gates"),
        (Subclassed(), "a built model"),
        ("model", "a built model"),
    ):
        with pytest.raises(ValueError, match=f"`model`. Expected {expected}"):
            function(model)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.gate_report(
            MODELS["gate_alone"][0](lambda: ks.HardConcrete(name="z"))
        )
    assert str(caught.value) == (
        "It is not clear which weights the gates `z` rule. Put them directly "
        "behind a convolution or before a dense layer, or construct them with "
        "their `group_size`."
    )


def test_a_group_size_of_its_own():
    report = ks.gate_report(
        MODELS["gate_alone"][0](lambda: ks.HardConcrete(group_size=7))
    )
    assert [layer.group_size for layer in report.layers] == [7]
    penalty = ks.ExpectedL0(0.1, 5)
    assert ks.HardConcrete(regularizer=penalty).group_size == 5
    with pytest.raises(ValueError, match="Expected that of the regularizer: 5"):
        ks.HardConcrete(regularizer=penalty, group_size=7)


# layers between two gates, how many of the second one's inputs come through
# the first, of whose four feature maps one is closed
BETWEEN = {
    "nothing": ([layers.Flatten], 3 * 16),
    "pooling": ([lambda: layers.MaxPooling2D(2), layers.Flatten], 3 * 4),
    "global": ([layers.GlobalAveragePooling2D], 3),
    "reshaped": ([lambda: layers.Reshape((64,))], 3 * 16),
    "batch_norm": ([layers.BatchNormalization, layers.Flatten], 3 * 16),
    "depthwise": (
        [lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)],
        3 * 2,
    ),
    "convolution": ([lambda: layers.Conv2D(4, 3)], 4),
    "softmax": ([lambda: layers.Activation("softmax"), layers.Flatten], 64),
    "layer_norm": ([layers.LayerNormalization, layers.Flatten], 64),
    "permuted": ([lambda: layers.Permute((3, 1, 2)), layers.Flatten], 48),
}


@pytest.mark.parametrize(("between", "count"), BETWEEN.values(), ids=BETWEEN)
def test_what_is_behind_a_closed_gate(between, count):
    penalty = ks.ExpectedL0(0.1, 3)
    first, second = (ks.HardConcrete(regularizer=penalty) for _ in range(2))
    x = inputs = keras.Input((4, 4, 4))
    for layer in (first, *(make() for make in between), second):
        x = layer(x)
    model = keras.Model(inputs, x)
    first.log_alpha.assign(np.array([4.0, -4.0, 4.0, 4.0]))
    second.log_alpha.assign(np.full(second.log_alpha.shape, 4.0))
    assert [g.open for g in ks.gate_report(model).layers] == [3, count]
