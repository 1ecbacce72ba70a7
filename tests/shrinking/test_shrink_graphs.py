"""Models in models, layers called twice, several inputs and outputs."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks


def backbone(name="backbone"):
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(6, 3, name="head"),
        ],
        name=name,
    )


def test_models_in_models_are_unfolded():
    x = inputs = keras.Input((10, 10, 3))
    inner = keras.Model(x, backbone()(x), name="inner")
    x = inner(inputs)
    x = layers.Conv2D(5, 1, name="conv")(x)
    model = scramble(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)))
    small, report = ks.shrink(model, 0)
    names = [e.layer for e in report.layers]
    assert names == [
        "inner/backbone/conv",
        "inner/backbone/norm",
        "inner/backbone/head",
        "conv",
    ]
    assert not any(isinstance(x, keras.Model) for x in small.layers)
    assert len({x.name for x in small.layers}) == len(small.layers)
    assert report.parameters_after == small.count_params() < report.parameters
    assert report.macs_after < report.macs
    assert_same_outputs(model, small)


def test_models_in_models_are_unfolded_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((10, 10, 3))
        x = backbone()(layers.Conv2D(3, 1)(inputs))
    finally:
        keras.config.set_dtype_policy("float32")
    model = scramble(keras.Model(inputs, x))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.count_params() < model.count_params()
    assert report.relative_difference < 1e-2


def test_a_model_called_twice_is_unfolded_and_cut_once():
    pair = [keras.Input((9, 9, 3)), keras.Input((9, 9, 3))]
    tower = backbone()
    x = layers.Subtract()([tower(x) for x in pair])
    x = layers.Conv2D(7, 3, activation="relu", name="mine")(x)
    x = layers.Dense(2)(layers.Flatten()(x))
    model = scramble(keras.Model(pair, x))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.get_layer("conv").filters < 8
    assert len([x for x in small.layers if x.name.startswith("conv")]) == 1
    assert small.get_layer("mine").filters < 7
    assert report.parameters == model.count_params()
    assert report.parameters_after == small.count_params() < report.parameters
    assert_same_outputs(model, small)


def test_a_layer_without_weights_may_be_called_twice():
    relu = layers.ReLU()
    x = inputs = keras.Input((6,))
    x = relu(layers.Dense(8)(x))
    x = relu(layers.Dense(8)(x))
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert max(x.units for x in small.layers if hasattr(x, "units")) < 8
    assert_same_outputs(model, small)


def test_the_mode_of_a_call_goes_down():
    x = inputs = keras.Input((10, 10, 3))
    model = keras.Model(inputs, backbone()(x, training=False))
    small, _ = ks.shrink(scramble(model, dead=0), 0)
    data = np.random.default_rng(0).normal(size=(4, 10, 10, 3))
    a, b = (to_numpy(m(data, training=True)) for m in (model, small))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_batch_norm_in_training_mode_stays_whole():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8)(x)
    x = layers.BatchNormalization()(x, training=True)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    _, report = ks.shrink(model, 0)
    assert report.whole[0].note == "it is called with `training=True`"


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_several_inputs_and_outputs_keep_their_structure(structure):
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(8, activation="relu", name="shared")(a)
    x = layers.Concatenate()([shared, layers.Dense(7, name="other")(b)])
    one = layers.Dense(3, name="one")(x)
    two = layers.Dense(5, name="two")(shared)
    if structure == "dict":
        model = keras.Model({"a": a, "b": b}, {"one": one, "two": two})
        inputs = {"a": np.ones((2, 6)), "b": np.ones((2, 4))}
    else:
        model, inputs = keras.Model([a, b], [one, two]), None
    small, report = ks.shrink(scramble(model), 0)
    assert small.output_names == model.output_names
    assert {x.name: x.shape for x in small.inputs} == {
        x.name: x.shape for x in model.inputs
    }
    keras.tree.assert_same_structure(model.output, small.output)
    assert report.parameters_after < report.parameters
    assert_same_outputs(model, small, inputs=inputs)


def head(name, units, width=8):
    x = keras.Input((width,))
    hidden = layers.Dense(5, activation="relu")(x)
    return keras.Model(x, layers.Dense(units)(hidden), name=name)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_outputs_of_inner_models_keep_their_names(structure):
    inputs = keras.Input((6,))
    shared = layers.Dense(8, activation="relu")(inputs)
    outputs = {n: head(n, u)(shared) for n, u in (("sex", 2), ("age", 1))}
    if structure == "list":
        outputs = list(outputs.values())
    model = scramble(keras.Model(inputs, outputs))
    small, report = ks.shrink(model, 0)
    assert small.output_names == model.output_names
    assert set(model.output_names) == {"age", "sex"}
    assert report.parameters_after < report.parameters
    assert_same_outputs(model, small)
    data, y = np.ones((4, 6)), {"age": np.ones((4, 1)), "sex": np.ones((4, 2))}
    losses = []
    for m in (model, small):
        m.compile("sgd", {"age": "mae", "sex": "mse"}, run_eagerly=True)
        losses.append(m.evaluate(data, y, verbose=0, return_dict=True))
    assert losses[0].keys() == losses[1].keys()
    for key, value in losses[0].items():
        np.testing.assert_allclose(losses[1][key], value, rtol=1e-5)
    again, _ = ks.shrink(small, 0)
    assert again.output_names == model.output_names


def test_other_dtypes_keep_the_names_and_one_name_for_two_is_let_go():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((6,), dtype="float64")
        x = keras.Input((6,), dtype="float64")
        exact = keras.Model(x, layers.Identity(dtype="float64")(x), name="same")
        flags = keras.Model(x, x > 0, name="flags")
        pair = keras.Model(x, [layers.Dense(2)(x), layers.Dense(3)(x)])
        outputs = [exact(inputs), flags(inputs), *pair(inputs)]
    finally:
        keras.config.set_dtype_policy("float32")
    model = scramble(keras.Model(inputs, outputs), dead=0)
    small, _ = ks.shrink(model, 0)
    assert small.output_names[:2] == model.output_names[:2] == ["same", "flags"]
    data = np.random.default_rng(0).normal(size=(3, 6))
    for a, b in zip(model(data), small(data), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_an_output_inside_the_model_is_not_cut():
    x = inputs = keras.Input((6,))
    middle = layers.Dense(8, name="middle")(x)
    model = keras.Model(inputs, [middle, layers.Dense(2)(middle)])
    scramble(model)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("middle").units == 8
    assert report.kept[0].reason == "an output of the model"
    assert small.get_layer(index=2).units == 2
    assert_same_outputs(model, small)


def test_masks_are_passed_on():
    x = inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True, name="table")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("table").output_dim < 6
    tokens = np.array([[1, 2, 0, 0, 0, 0, 0], [3, 8, 4, 4, 0, 0, 0]])
    assert_same_outputs(model, small, inputs=tokens)


def test_an_adapted_normalization_keeps_its_statistics():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (50, 6)))
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(layer(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)


@keras.saving.register_keras_serializable("tests")
class Logged(keras.Model):
    """A Functional model by another name."""


def test_a_functional_model_by_another_name():
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(x)
    model = scramble(Logged(inputs, layers.Dense(2)(x)))
    small, _ = ks.shrink(model, 0)
    assert small.count_params() < model.count_params()
    assert_same_outputs(model, small)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_inner_models_with_several_inputs_are_unfolded(structure):
    def pair():
        a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
        return [a, b] if structure == "list" else {"a": a, "b": b}

    own = pair()
    outputs = [layers.Dense(5)(x) for x in keras.tree.flatten(own)]
    inner = keras.Model(own, layers.Concatenate()(outputs), name="inner")
    inputs = pair()
    model = scramble(keras.Model(inputs, layers.Dense(2)(inner(inputs))))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert report.parameters_after < report.parameters
    x = {"a": np.ones((2, 6)), "b": np.ones((2, 4))}
    x = x if structure == "dict" else list(x.values())
    assert_same_outputs(model, small, inputs=x)


def test_an_outer_layer_keeps_its_name_before_one_of_an_inner_model():
    x = inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="a")])
    x = inner(x)
    outputs = [layers.Dense(2, name="a")(x), layers.Dense(1, name="b")(x)]
    small, _ = ks.shrink(keras.Model(inputs, outputs))
    assert small.output_names == ["a", "b"]
    assert small.get_layer("a").units == 2


@keras.saving.register_keras_serializable("tests")
class Maybe(layers.Layer):
    def call(self, x, y=None):
        return x if y is None else x + y


def test_an_optional_input_stays_optional():
    a = keras.Input((6,), name="a")
    b = keras.Input((6,), name="b", optional=True)
    x = layers.Dense(8, activation="relu", name="first")(Maybe()(a, b))
    model = scramble(keras.Model([a, b], layers.Dense(3)(x)))
    for inputs in ([np.ones((2, 6)), None], [np.ones((2, 6))] * 2):
        small, report = ks.shrink(model, 0, inputs=inputs)
        assert report.relative_difference < 1e-5
        assert small.get_layer("first").units < 8


@pytest.mark.tensorflow
def test_a_sparse_input_stays_sparse():
    inputs = keras.Input((6,), sparse=True)
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    small, _ = ks.shrink(model, verify=False)
    assert small.inputs[0].sparse


@keras.saving.register_keras_serializable("tests")
class Twice(layers.Layer):
    def call(self, x, training=None):
        return 2 * x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_layer_may_say_what_it_returns_without_a_mode():
    x = inputs = keras.Input((6,))
    x = Twice()(layers.Dense(8, name="first")(x))
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    assert ks.count_macs(model).macs == 72
    assert_same_outputs(model, ks.shrink(model, 0)[0])
