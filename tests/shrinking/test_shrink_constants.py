"""Dead channels that still emit a constant, and what is kept whole."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_same_outputs,
    scale_all,
    scramble,
    to_numpy,
)
from keras import layers, ops

import keras_sgl0 as ks


def chain(second, emitted=0.5, padding=None, size=9):
    """Returns a model whose first convolution has two dead channels.

    They emit `emitted` and 0 after batch norm and ReLU.
    """
    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(6, 3, use_bias=False, name="first")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    if padding:
        x = padding(x)
    x = second(x)
    model = keras.Model(inputs, layers.Flatten()(x))
    scramble(model, dead=0)
    kernel = to_numpy(model.get_layer("first").kernel).copy()
    kernel[..., :2] = 0
    model.get_layer("first").kernel.assign(kernel)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.zeros(6))
    norm.gamma.assign(np.ones(6))
    norm.beta.assign([emitted, -0.5, *[0.3] * 4])
    return model


def filters(model, name="first"):
    return model.get_layer(name).filters


@pytest.mark.parametrize(
    ("second", "size"),
    [
        (layers.Conv2D(4, 3, use_bias=False, name="second"), 9),
        (layers.Conv2D(4, 1, padding="same", use_bias=False, name="second"), 9),
        (
            layers.Conv2D(
                4, 2, 2, padding="same", use_bias=False, name="second"
            ),
            8,
        ),
        (layers.Dense(4, use_bias=False, name="second"), 9),
        (layers.SeparableConv2D(4, 3, use_bias=False, name="second"), 9),
    ],
    ids=["valid", "pointwise", "tiled", "dense", "separable"],
)
def test_a_constant_is_folded_where_that_is_exact(second, size):
    model = chain(type(second).from_config(second.get_config()), size=size)
    small, report = ks.shrink(model, 0)
    assert filters(small) == 4
    assert report.kept == ()
    assert small.get_layer("second").use_bias
    assert_same_outputs(model, small)


def test_zero_is_cut_without_a_bias():
    second = layers.Conv2D(4, 3, padding="same", use_bias=False, name="second")
    model = chain(second, emitted=-1)
    small, _ = ks.shrink(model, 0)
    assert filters(small) == 4
    assert not small.get_layer("second").use_bias
    assert_same_outputs(model, small)


def border(kind):
    if kind == "same":
        return layers.Conv2D(4, 3, padding="same", name="second"), None
    if kind == "padding":
        return layers.Conv2D(4, 3, name="second"), layers.ZeroPadding2D(
            name="pad"
        )
    if kind == "transpose":
        return layers.Conv2DTranspose(4, 3, 2, name="second"), None
    return layers.SeparableConv2D(4, 3, padding="same", name="second"), None


@pytest.mark.parametrize("kind", ["same", "padding", "transpose", "separable"])
def test_at_a_border_the_caller_chooses(kind):
    second, padding = border(kind)
    model = chain(second, padding=padding)
    small, report = ks.shrink(model, 0)
    assert filters(small) == 5
    (kept,) = report.kept
    meets = "pad" if kind == "padding" else "second"
    assert (kept.layer, kept.channels) == ("first", (0,))
    assert kept.reason == f"its constant meets the zeros around `{meets}`"
    assert report.relative_difference < 1e-5
    differences = {}
    for on_constant in ("fold", "drop"):
        small, report = ks.shrink(model, 0, on_constant=on_constant)
        assert filters(small) == 4
        assert report.kept == ()
        differences[on_constant] = report.difference
    assert 0 < differences["fold"] and 0 < differences["drop"]


def test_folding_is_right_away_from_the_border():
    model = chain(border("same")[0])
    inputs = np.random.default_rng(0).normal(size=(2, 9, 9, 3))
    a, b = (
        to_numpy(m(inputs)).reshape(2, 7, 7, 4)
        for m in (model, ks.shrink(model, 0, on_constant="fold")[0])
    )
    np.testing.assert_allclose(a[:, 1:-1, 1:-1], b[:, 1:-1, 1:-1], atol=1e-5)
    assert abs(a - b).max() > 1e-2


def test_dropping_forgets_the_constant_at_the_border_alone():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(x)
    a = layers.Conv2D(3, 3, padding="same", name="same")(x)
    b = layers.Conv2D(3, 1, name="pointwise")(x)
    model = scramble(keras.Model(inputs, [a, b]), dead=0)
    kernel = to_numpy(model.get_layer("first").kernel).copy()
    kernel[..., 1] = 0
    model.get_layer("first").kernel.assign(kernel)
    small, _ = ks.shrink(model, 0, on_constant="drop")
    same, pointwise = (
        to_numpy(small.get_layer(n).bias) for n in ("same", "pointwise")
    )
    old = model.get_layer("pointwise")
    emitted = to_numpy(model.get_layer("first").bias)[1]
    expected = to_numpy(old.bias) + emitted * to_numpy(old.kernel)[0, 0, 1]
    np.testing.assert_allclose(pointwise, expected, rtol=1e-5)
    np.testing.assert_array_equal(same, to_numpy(model.get_layer("same").bias))


def test_a_scale_of_zero_is_a_dead_channel():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, name="first")(x)
    x = layers.BatchNormalization(name="norm")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)), dead=0)
    model.get_layer("norm").gamma.assign([0, 0, 0, 1, 1, 1, 1, 1])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5
    assert small.get_layer("norm").gamma.shape == (5,)
    assert_same_outputs(model, small)


def test_a_scale_of_zero_in_rescaling_is_a_dead_channel():
    x = inputs = keras.Input((6,))
    x = layers.Dense(4, activation="tanh", name="first")(x)
    x = layers.Rescaling([0.0, 2.0, 0.0, 3.0], [1.0, 1, 0, 1], name="line")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)), dead=0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 2
    assert small.get_layer("line").scale == [2, 3]
    assert_same_outputs(model, small)


@pytest.mark.tensorflow
def test_rescaling_is_folded_as_keras_rounds_it():
    # Keras on TensorFlow takes the number -0.2 as float32, then as float64.
    inputs = keras.Input((6,), dtype="float64")
    x = layers.Dense(4, name="first", dtype="float64")(inputs)
    x = layers.Rescaling(0.7, -0.2, dtype="float64")(x)
    model = keras.Model(inputs, layers.Dense(2, dtype="float64")(x))
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * [0, 0, 1, 1])
    first.bias.assign([0.3, -0.4, 0.0, 0.1])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 2
    assert_same_outputs(model, small, tolerance=1e-12)


def test_closed_gates_cut_what_they_gate():
    x = inputs = keras.Input((6,))
    x = layers.Dense(4, activation="tanh", name="first")(x)
    x = ks.HardConcrete(name="gate")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)), dead=0)
    model.get_layer("gate").log_alpha.assign([-4, 4, -4, 0])
    small, _ = ks.shrink(model, 0)
    assert [layer.name for layer in small.layers][1:] == ["first", "dense"]
    assert small.get_layer("first").units == 2
    assert_same_outputs(model, small)


def test_a_gate_goes_with_the_channel_it_gates():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu", use_bias=False, name="first")(x)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="relu", name="squeeze")(y)
    y = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(y)
    x = layers.Conv2D(2, 1)(layers.Multiply()([x, y]))
    model = scramble(keras.Model(inputs, x), dead=0)
    kernel = to_numpy(model.get_layer("first").kernel).copy()
    kernel[..., :3] = 0
    model.get_layer("first").kernel.assign(kernel)
    small, _ = ks.shrink(model, 0)
    assert filters(small) == filters(small, "excite") == 5
    assert_same_outputs(model, small)


class Scale(layers.Layer):
    """A layer of an unknown type, with a config."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale


class NoConfig(layers.Layer):
    """A layer of an unknown type, without one."""

    def __init__(self, factor):
        super().__init__()
        self.factor = self.add_weight(shape=())
        self.factor.assign(factor)

    def call(self, x):
        return x * self.factor


class Doubled(layers.Dense):
    """Looks like a dense layer and is none."""

    def call(self, x):
        return 2 * super().call(x)


class Fixed(layers.Dense):
    """A dense layer whose config does not say how large it is."""

    def __init__(self, **kwargs):
        super().__init__(8)

    def get_config(self):
        return {"name": self.name}


class Named(layers.Dense):
    """A dense layer by another name."""


def around(layer):
    """Returns a model with a layer of a user between two dense ones."""
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="first")(x)
    x = layers.Dense(8, name="second")(layer(x))
    return scramble(keras.Model(inputs, layers.Dense(3)(x)))


@pytest.mark.parametrize(
    "make", [Scale, lambda: NoConfig(2.0), lambda: Doubled(8)]
)
def test_layers_of_a_user_are_cut_as_what_they_do(make):
    model = around(make())
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert report.whole == ()
    assert small.get_layer("first").units < 8
    assert small.get_layer("second").units < 8


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Fixed, "it cannot be made from its config"),
        (
            # What it does depends on the mode.
            lambda: layers.Lambda(
                lambda x, training=None: x if training else 2 * x
            ),
            "what it does depends on `training`",
        ),
    ],
    ids=["fixed", "lambda"],
)
def test_unknown_layers_stay_whole_and_are_named(make, reason):
    model = around(make())
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    (whole,) = report.whole
    assert reason in whole.note
    assert small.get_layer("first").units == 8
    assert small.get_layer("second").units < 8
    assert any("stays whole" in kept.reason for kept in report.kept)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x[..., :4] / 2.0, (4, 4, 4)),
        (lambda x: ops.mean(x, axis=(1, 2)), (6,)),
        (lambda x: ops.relu(ops.concatenate([x, -x], -1)), (4, 4, 12)),
    ],
    ids=["some channels", "pooling", "both signs"],
)
def test_a_lambda_is_the_calls_of_its_function(function, shape, tmp_path):
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, name="conv")(x)
    x = layers.Lambda(function, output_shape=shape)(x)
    outputs = layers.Dense(2)(x)
    model = scramble(keras.Model(inputs, outputs))
    small, report = ks.shrink(model, 0)
    assert not report.whole
    assert small.get_layer("conv").filters < 6
    assert_same_outputs(model, small)
    # Keras does not load the code of a function by default.
    small.save(tmp_path / "small.keras")
    assert_same_outputs(
        small, keras.models.load_model(tmp_path / "small.keras")
    )


def test_a_lambda_that_draws_numbers_stays_whole():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, name="first")(x)
    x = layers.Lambda(
        lambda x: x + keras.random.normal((8,)), output_shape=(8,)
    )(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0, verify=False)
    assert small.get_layer("first").units == 8
    (whole,) = report.whole
    assert whole.type == "Lambda"
    assert "seed_generator" in whole.note


def test_a_known_layer_by_another_name_is_cut():
    x = inputs = keras.Input((6,))
    x = Named(8, activation="relu", name="first")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert type(small.get_layer("first")) is Named
    assert small.get_layer("first").units < 8
    assert_same_outputs(model, small)


def test_quantized_and_adapted_layers_stay_whole():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, name="first")(x)
    x = layers.Dense(8, name="second")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    model.get_layer("second").enable_lora(2)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("second").units == 8
    assert "quantized or adapted" in report.whole[0].note
    assert_same_outputs(model, small)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="not on a CPU")
def test_channels_may_come_first():
    keras.config.set_image_data_format("channels_first")
    try:
        x = inputs = keras.Input((3, 9, 8))
        x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
        x = layers.BatchNormalization(axis=1)(x)
        x = layers.Conv2D(5, 2, name="whole")(x)
        x = Scale()(layers.MaxPooling2D(2)(x))
        x = layers.Conv2D(6, 2, name="second")(x)
        x = layers.Dense(3)(layers.Flatten()(x))
    finally:
        keras.config.set_image_data_format("channels_last")
    model = scramble(keras.Model(inputs, x))
    small, report = ks.shrink(model, 0)
    assert [e.type for e in report.whole] == ["Scale"]
    assert filters(small) < 8
    assert filters(small, "whole") == 5
    assert filters(small, "second") < 6
    assert_same_outputs(model, small)


def test_channels_first_are_flattened_by_a_channels_last_layer():
    x = inputs = keras.Input((6, 5))
    x = layers.Conv1D(4, 2, name="first")(x)
    x = layers.Permute((2, 1))(x)
    x = layers.Flatten()(layers.ReLU()(x))
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0)
    assert filters(small) == 2
    assert report.whole == ()
    assert_same_outputs(model, small)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = chain(layers.Conv2D(4, 3, name="second"))
    finally:
        keras.config.set_dtype_policy("float32")
    small, report = ks.shrink(model, 0)
    assert filters(small) == 4
    assert small.get_layer("second").compute_dtype == policy[6:]
    assert report.relative_difference < 2e-2


def test_an_array_with_one_entry_is_a_number():
    x = inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(6, 3, name="first")(x) * np.full((1, 1, 1, 1), 2.0, "f")
    model = scramble(keras.Model(inputs, layers.Conv2D(4, 2)(x)))
    small, _ = ks.shrink(model, 0)
    assert filters(small) < 6
    assert_same_outputs(model, small)


@pytest.mark.tensorflow
def test_constants_are_folded_in_the_precision_of_the_model():
    keras.config.set_dtype_policy("float64")
    try:
        x = inputs = keras.Input((6,), dtype="float64")
        x = layers.Dense(9, activation="sigmoid", name="first")(x)
        model = keras.Model(inputs, layers.Dense(3)(x))
    finally:
        keras.config.set_dtype_policy("float32")
    scramble(model)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units < 9
    assert report.relative_difference < 1e-14


@keras.saving.register_keras_serializable("tests")
def swapped(x):
    return keras.ops.flip(x, -1)


def of_the_largest(x):
    return keras.ops.relu(x) + 0 * keras.ops.max(x, -1, keepdims=True)


@pytest.mark.parametrize(
    "activation",
    ["softmax", swapped, of_the_largest, layers.Softmax()],
    ids=["softmax", "registered", "function", "layer"],
)
@pytest.mark.parametrize("kind", ["dense", "conv", "separable"])
def test_dead_channels_under_an_activation_are_named(activation, kind):
    x = inputs = keras.Input((6, 6, 3))
    first = {
        "dense": lambda: layers.Dense(5, activation, name="first"),
        "conv": lambda: layers.Conv2D(
            5, 3, activation=activation, name="first"
        ),
        "separable": lambda: layers.SeparableConv2D(
            5, 3, activation=activation, name="first"
        ),
    }[kind]()
    x = layers.Conv2D(2, 1, name="head")(first(x))
    model = scramble(keras.Model(inputs, x), dead=0)
    kernel = to_numpy(first.weights[-2]).copy()
    kernel[..., [1, 3]] = 0
    first.weights[-2].assign(kernel)
    _, report = ks.shrink(model, 0)
    (kept,) = report.kept
    assert (kept.layer, kept.channels) == ("first", (1, 3))
    assert kept.reason == "the activation of `first` may mix channels"
    assert report.relative_difference < 1e-6
    first.weights[-1].assign(np.zeros(5))
    (kept,) = ks.shrink(model, 0)[1].kept
    assert kept.channels == (1, 3)


def test_channels_that_die_in_a_scale_and_stay_are_named():
    x = inputs = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    model = scramble(keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x)))
    scale_all(model)
    model.get_layer("norm").gamma.assign([1.0, 0.0, 1.0])
    kernel = np.ones((3, 3, 3, 2))
    kernel[:, :, 2] = 0
    model.get_layer("depthwise").kernel.assign(kernel)
    head = np.ones((1, 1, 6, 2))
    model.get_layer("head").kernel.assign(head)
    _, report = ks.shrink(model, 0)
    kept = {(k.layer, k.channels): k.reason for k in report.kept}
    assert kept == {("norm", (1, 2)): "an input of the model"}
    assert "norm: 2 dead channels stay: an input" in str(report)
    assert report.relative_difference < 1e-6


def test_the_reason_under_a_mask_is_the_mask():
    x = inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(x)
    x = layers.Dense(5, "relu", name="hidden")(x)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(x)
    x = layers.GlobalMaxPooling1D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    model.get_layer("hidden").kernel.assign(np.eye(6, 5) * [1, 0, 1, 1, 1])
    _, report = ks.shrink(model, 0)
    whole = {entry.layer: entry.note for entry in report.whole}
    assert whole["each"] == "it has a mask"
    reasons = {kept.layer: kept.reason for kept in report.kept}
    assert reasons["hidden"].endswith("stays whole: it has a mask")
