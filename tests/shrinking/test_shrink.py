import itertools
import json

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    QUICK,
    assert_same_outputs,
    layers_of,
    scramble,
    to_numpy,
    two_layers,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from networks import Subclassed, mlp, wide_resnet
from processes import run_code

import keras_sgl0 as ks

# Compiling every shape takes the other backends long.
PROPERTY = settings(
    max_examples=8 if BACKEND == "tensorflow" else 2,
    deadline=None,
    derandomize=True,
)


def kill(layer, outputs=(), inputs=()):
    """Sets output channels and input channels of a kernel to zero."""
    kernel = to_numpy(layer.kernel).copy()
    kernel[..., list(outputs)] = 0
    kernel[..., list(inputs), :] = 0
    layer.kernel.assign(kernel)


def channels(report):
    return {e.layer: e.channels_after for e in report.layers}


@PROPERTY
@given(st.integers(0, 10**6), st.floats(0, 0.97))
def test_an_mlp_loses_what_hand_counting_says(seed, dead):
    model = scramble(mlp(), dead, seed)
    for layer in model.layers[:2]:
        rng = np.random.default_rng(seed)
        unread = rng.random(layer.units) < 0.2
        after = model.layers[model.layers.index(layer) + 1]
        kill(after, inputs=np.flatnonzero(unread))
    small, report = ks.shrink(model, 0)
    sizes = [12]
    first, second, last = (to_numpy(x.kernel) for x in model.layers)
    live = (second != 0)[:, (last != 0).any(1)].any(1)
    sizes.append(((first != 0).any(0) & live).sum())
    sizes.append(((second != 0).any(0) & (last != 0).any(1)).sum())
    assume(all(sizes))  # behind a dead layer nothing is alive
    sizes.append(3)
    assert [x.units for x in small.layers[1:]] == sizes[1:]
    expected = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert small.count_params() == report.parameters_after == expected
    assert_same_outputs(model, small)


@PROPERTY
@given(st.integers(0, 10**6), st.floats(0, 0.8))
def test_lenet_loses_what_hand_counting_says(seed, dead):
    model = scramble(ks.models.LeNet5Caffe(), dead, seed)
    small, report = ks.shrink(model, 0)
    a, b, c, d = (
        np.count_nonzero(kernel.any(tuple(range(kernel.ndim - 1))))
        for kernel in map(to_numpy, ks.sparsity.kernels(model))
    )
    assume(a and b and c and d)  # beside a dead layer nothing is alive
    expected = 26 * a + (25 * a + 1) * b + (16 * b + 1) * c + (c + 1) * 10
    macs = 576 * 25 * a + 64 * 25 * a * b + 16 * b * c + 10 * c
    assert (report.parameters, report.macs) == (431_080, 2_293_000)
    assert (report.parameters_after, report.macs_after) == (expected, macs)
    assert small.count_params() == expected
    assert_same_outputs(model, small)


@pytest.mark.parametrize("seed", range(3 if BACKEND == "tensorflow" else 1))
def test_a_wide_resnet_keeps_its_outputs(seed):
    model = scramble(wide_resnet(), 0.6, seed)
    small, report = ks.shrink(model, 0)
    assert report.parameters_after < report.parameters
    assert report.relative_difference < 1e-5
    assert_same_outputs(model, small)


def test_inner_neurons_of_a_wide_resnet_go_and_its_stream_stays():
    model = wide_resnet()
    kill(model.get_layer("inner_0_0"), outputs=[0, 3, 5])
    kill(model.get_layer("inner_1_1"), outputs=range(10))
    small, report = ks.shrink(model, 0)
    # A kernel of 3x3 before and after, and four vectors of batch norm.
    saved = 3 * (9 * (6 + 8) + 4) + 10 * (9 * (16 + 16) + 4)
    assert model.count_params() - small.count_params() == saved
    assert channels(report)["inner_1_1"] == 6
    assert_same_outputs(model, small)


def test_a_channel_that_meets_a_live_one_stays_with_the_reason():
    model = wide_resnet()
    add = next(x for x in model.layers if isinstance(x, layers.Add))
    kill(model.layers[model.layers.index(add) - 1], outputs=[2])
    small, report = ks.shrink(model, 0)
    assert small.count_params() == model.count_params()
    (kept,) = report.kept
    assert kept.channels == (2,)
    assert kept.reason == f"tied in `{add.name}` to a channel that is alive"


def test_a_stream_is_cut_where_all_agree():
    model = wide_resnet()
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.filters == 16:
            kill(layer, outputs=[1, 4])
    small, report = ks.shrink(model, 0)
    assert {x.filters for x in small.layers if "conv" in x.name} == {6, 8, 14}
    assert channels(report)["inner_1_0"] == 14
    assert_same_outputs(model, small)


def test_what_nobody_reads_goes_back_to_the_inputs():
    model = ks.models.LeNet5Caffe()
    kill(model.get_layer("fc2"), inputs=range(10, 500))
    fc1 = to_numpy(model.get_layer("fc1").kernel).copy()
    rows = fc1.reshape(16, 50, 500)
    rows[:, 7:, :10] = 0
    model.get_layer("fc1").kernel.assign(rows.reshape(800, 500))
    small, report = ks.shrink(model, 0)
    assert channels(report) == {"conv1": 20, "conv2": 7, "fc1": 10, "fc2": 10}
    assert_same_outputs(model, small)


def test_a_dense_model_comes_back_equal():
    model = ks.models.LeNet5Caffe(kernel_regularizer=ks.SGL0(1e-3))
    model.compile("sgd", "mse", **QUICK)
    small, report = ks.shrink(model, 0)
    for a, b in zip(model.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [x.name for x in small.layers] == [x.name for x in model.layers]
    assert report.difference == 0
    assert (report.kept, report.dead_branches) == ((), ())
    assert small.losses == [] and not small.compiled
    assert model.losses


def test_shrinking_thresholds_as_apply_threshold_does():
    rng = np.random.default_rng(0)
    model = two_layers(ks.SGL0(1e-3))
    kernel = rng.choice([1e-6, 4e-5, 1.0], (12, 16)).astype("float32")
    kernel[:, 3] = [2e-5, *[0] * 11]
    model.get_layer("first").kernel.assign(kernel)
    before = [w.copy() for w in model.get_weights()]
    small, report = ks.shrink(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert report.difference > 0
    assert channels(report)["first"] == 15
    ks.apply_threshold(model)
    again, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-6
    for a, b in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_layers_are_cut_and_stay_frozen():
    model = scramble(mlp())
    model.get_layer("first").trainable = False
    small, _ = ks.shrink(model)
    assert small.get_layer("first").units < 16
    assert not small.get_layer("first").trainable
    assert_same_outputs(model, small)


def test_channels_are_rounded_up():
    model = scramble(mlp(), 0.6, seed=1)
    plain, _ = ks.shrink(model, 0)
    small, report = ks.shrink(model, 0, round_to=4)
    for a, b in zip(plain.layers[1:-1], small.layers[1:-1], strict=True):
        assert b.units == min(-(-a.units // 4) * 4, 9 if b.units > 8 else 16)
    assert any("a multiple of 4" in k.reason for k in report.kept)
    assert_same_outputs(model, small)


def test_a_dead_layer_keeps_its_minimum_and_is_named():
    model = mlp()
    kill(model.get_layer("second"), outputs=range(9))
    small, report = ks.shrink(model, 0, minimum=2)
    assert report.dead_branches == ("first", "second")
    assert [x.units for x in small.layers[1:]] == [2, 2, 3]
    assert_same_outputs(model, small)
    with pytest.raises(ValueError) as caught:
        ks.shrink(model, 0, minimum=0)
    assert str(caught.value) == (
        "Invalid value for argument `minimum`. Expected at least 1, as no "
        "channel would stay in `first`, `second`. Received: minimum=0"
    )


def test_a_shrunk_model_trains_with_a_penalty_and_shrinks_again(images):
    model = two_layers(ks.SGL0(1e-3))
    kill(model.get_layer("first"), outputs=range(4))
    small, _ = ks.shrink(model)
    assert ks.regularize(small, ks.SGL0(5e-3)).regularized
    small.compile("sgd", model.loss, **QUICK)
    small.fit(*images, epochs=2, verbose=0, callbacks=[ks.ProximalStep()])
    kill(small.get_layer("first"), outputs=[0])
    smaller, report = ks.shrink(ks.apply_threshold(small))
    assert channels(report)["first"] <= 11
    assert smaller.losses == []
    assert_same_outputs(small, smaller)


def test_the_saved_model_needs_no_package(tmp_path):
    inner = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(8, "relu", kernel_regularizer=ks.SGL0(1e-3)),
        ]
    )
    x = inputs = keras.Input((12,))
    x = layers.Dense(5, kernel_regularizer="l2")(inner(x) * 0.5)
    model = scramble(keras.Model(inputs, x))
    small, _ = ks.shrink(model, 0)
    assert len(small.losses) == 1
    small.save(tmp_path / "small.keras")
    data = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")
    np.save(tmp_path / "inputs.npy", data)
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('small.keras')\n"
        "y = model.predict(np.load('inputs.npy'), verbose=0)\n"
        "assert 'keras_sgl0' not in sys.modules\n"
        "np.save('outputs.npy', y)\n"
    )
    run_code(code, cwd=tmp_path, check=True)
    y = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(y, to_numpy(model(data)), atol=1e-5)


def test_report_as_dict_and_table():
    model = scramble(wide_resnet())
    report = ks.shrink(model, 0)[1]
    content = json.loads(json.dumps(report.to_dict()))
    assert content["parameters"] == model.count_params()
    assert content["layers"][0]["type"] == "Conv2D"
    assert content["kept"][0]["reason"] == report.kept[0].reason
    text = str(report)
    for part in (
        "inner_0_0",
        f"{report.parameters:,} -> {report.parameters_after:,}",
        f"{report.macs:,} -> {report.macs_after:,}",
        f"dead channels stay: {report.kept[0].reason}",
        "largest difference of an output",
    ):
        assert part in text, text
    report = ks.shrink(model, 0, verify=False)[1]
    assert report.difference is report.relative_difference is None
    assert "difference" not in str(report)


def test_given_inputs_are_compared_on():
    model = two_layers(None)
    first = model.get_layer("first")
    first.kernel.assign(np.full((12, 16), 1e-3))
    zeros = np.zeros((3, 12), "float32")
    assert ks.shrink(model, 1e-2, inputs=zeros)[1].difference == 0
    assert ks.shrink(model, 1e-2, inputs=zeros + 1)[1].difference > 1e-3


def test_unknown_sizes_leave_the_multiply_adds_unknown():
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, activation="relu")(x)
    x = layers.Conv2D(4, 3, padding="same")(x)
    model = scramble(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)))
    small, report = ks.shrink(model, 0)
    assert report.macs is report.macs_after is None
    assert "?" in str(report)
    assert_same_outputs(model, small, inputs=np.ones((2, 11, 9, 3), "float32"))


class Mixer(layers.Layer):
    """A layer that computes its kernel."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")

    def call(self, x):
        return x @ ops.tanh(self.kernel)


def test_what_is_not_counted_is_named_in_the_report():
    x = inputs = keras.Input((7, 3))
    x = Mixer(name="mixer")(layers.Bidirectional(layers.LSTM(4))(x))
    x = layers.Dense(6, activation="relu")(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    _, report = ks.shrink(model, 0)
    costs = {entry.layer: entry for entry in report.layers}
    recurrent, mixer = costs["bidirectional"], costs["mixer/matmul"]
    assert recurrent.macs == recurrent.macs_after == 2 * 7 * 4 * 28
    assert recurrent.not_counted == ""
    assert (mixer.macs, mixer.not_counted) == (
        0,
        "not counted: a computed kernel",
    )
    assert mixer.not_counted in str(report)
    found = [entry["not_counted"] for entry in report.to_dict()["layers"]]
    assert mixer.not_counted in found


def test_subclassed_models_must_be_built():
    model = Subclassed()
    with pytest.raises(ValueError, match="Expected a built model"):
        ks.shrink(model)
    model(np.ones((1, 3), "float32"))
    small, report = ks.shrink(model)
    assert report.relative_difference == 0
    assert [layer.name for layer in small.layers] == ["input", "dense"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", keras.Sequential([layers.Dense(2)])),
        ("model", None),
        ("tolerance", -1e-5),
        ("tolerance", "small"),
        ("round_to", 0),
        ("round_to", 2.0),
        ("minimum", -1),
        ("on_constant", "forget"),
    ],
)
def test_bad_arguments_are_refused(name, value):
    arguments = {"model": mlp(), name: value}
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.shrink(**arguments)


def test_a_model_that_fails_on_random_inputs_asks_for_some():
    x = inputs = keras.Input((None,))
    x = layers.Embedding(5, 4)(x)
    x = layers.Reshape((3, 4))(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="argument `inputs`"):
        ks.shrink(model)
    small, _ = ks.shrink(model, inputs=np.zeros((2, 3), "int32"))
    assert len(list(layers_of(small))) == 5
