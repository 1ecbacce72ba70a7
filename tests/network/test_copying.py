"""What a layer has beside its kernel, where `shrink` or folding copies it."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half, scramble, to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.layer_table import all_layers


def normal(*shape, mean=5.0):
    return np.random.default_rng(0).normal(mean, 3, shape).astype("float32")


def adapted(features=6):
    layer = layers.Normalization()
    layer.adapt(normal(50, features))
    return layer


def lookup():
    layer = layers.IntegerLookup(output_mode="multi_hot")
    layer.adapt(np.array([3, 5, 7, 9]))
    return layer


def discretization():
    layer = layers.Discretization(num_bins=4, output_mode="multi_hot")
    layer.adapt(normal(200, 1))
    return layer


NUMBERS = normal(4, 6)
STATE = {
    "normalization": (lambda: [adapted()], NUMBERS),
    "inside_another": (
        lambda: [
            layers.TimeDistributed(adapted()),
            layers.GlobalMaxPooling1D(),
        ],
        normal(4, 5, 6),
    ),
    "lookup": (lambda: [lookup()], np.array([[3, 5, 7, 1], [9, 9, 3, 4]])),
    "discretization": (lambda: [discretization()], NUMBERS),
    "lambda": (lambda: [layers.Lambda(lambda x: x * 2.0)], NUMBERS),
    "lambda_activation": (
        lambda: [layers.Dense(6, activation=lambda x: x * x)],
        NUMBERS,
    ),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("gated", [False, True], ids=["shrunk", "folded"])
@pytest.mark.parametrize("name", STATE)
def test_state_that_is_no_kernel_is_kept(name, gated):
    make, x = STATE[name]
    gate = [ks.HardConcrete(seed=1)] if gated else []
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:], dtype=x.dtype, name="image"),
            *make(),
            layers.Dense(8, "relu"),
            *gate,
            layers.Dense(3),
        ]
    )
    for layer in model.layers[-2 - gated :: 1 + gated]:
        scramble(keras.Sequential([layer]))
    small, report = ks.shrink(model)
    for new in [small, ks.fold_gates(model)] if gated else [small]:
        assert_same_outputs(model, new, inputs=x)
        assert new.inputs[0].name == "image"
    assert report.relative_difference < 1e-5


def test_a_gate_before_a_layer_that_is_not_copied_is_not_folded_into_it():
    dense = layers.Dense(5, activation=lambda x: x * x)
    model = keras.Sequential(
        [keras.Input((6,)), ks.HardConcrete(seed=1), dense]
    )
    before = to_numpy(dense.kernel)
    assert_same_outputs(model, ks.fold_gates(model))
    np.testing.assert_array_equal(to_numpy(dense.kernel), before)


def test_a_gate_before_an_adapted_layer_is_not_folded_into_it():
    dense = layers.Dense(5)
    model = keras.Sequential(
        [keras.Input((6,)), ks.HardConcrete(seed=1), dense]
    )
    dense.enable_lora(2)
    plain = ks.fold_gates(model)
    assert type(plain.layers[0]) is layers.Rescaling
    assert_same_outputs(model, plain)


def test_folding_needs_channels_last_where_it_scales():
    keras.config.set_image_data_format("channels_first")
    try:
        x = inputs = keras.Input((6,))
        x = layers.BatchNormalization()(ks.HardConcrete(seed=1)(x))
        model = keras.Model(inputs, x)
        with pytest.raises(ValueError, match="Set 'channels_last' to fold"):
            ks.fold_gates(model)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_an_activation_with_weights_keeps_its_layer_whole():
    x = inputs = keras.Input((4,))
    x = layers.Dense(5, name="first")(x)
    x = layers.Dense(3, activation=layers.PReLU(), name="second")(x)
    model = keras.Model(inputs, x)
    model(np.ones((1, 4)))
    scramble(model)
    model.get_layer("second").activation.alpha.assign([0.9, 0.8, 0.7])
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert report.whole[0].note.startswith("its activation has weights")


def test_renormalization_keeps_its_averages():
    x = inputs = keras.Input((6,))
    x = layers.Dense(4, name="first")(x)
    x = layers.BatchNormalization(renorm=True, name="norm")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    kernel = normal(6, 4)
    kernel[:, 0] = 0
    model.get_layer("first").kernel.assign(kernel)
    model.get_layer("norm").renorm_mean.assign([1.0, 2.0, 3.0, 4.0])
    small, _ = ks.shrink(model)
    found = to_numpy(small.get_layer("norm").renorm_mean)
    assert found.tolist() == [2, 3, 4]


def test_the_states_of_a_recurrent_layer_stay_where_they_are():
    recurrent = layers.LSTM(4, stateful=True)
    model = keras.Sequential(
        [keras.Input((4, 3), batch_size=2), recurrent, layers.Dense(2)]
    )
    model(normal(2, 4, 3))
    before = [to_numpy(v) for v in recurrent.states]
    assert before[0].any()
    _, report = ks.shrink(model)
    assert report.relative_difference < 1e-6
    for old, new in zip(before, recurrent.states, strict=True):
        np.testing.assert_array_equal(to_numpy(new), old)


class Same(layers.Conv2D):
    """A convolution whose config does not say how it pads."""

    def __init__(self, filters, padding="valid", **kwargs):
        super().__init__(filters, 3, padding=padding, **kwargs)

    def get_config(self):
        kept = ("filters", "activation", "use_bias", "name")
        config = super().get_config()
        return {name: config[name] for name in kept}


class Scaled(layers.Layer):
    """A layer whose config forgets a number, and whose state counts calls."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.count = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="count"
        )

    def call(self, x):
        self.count.assign_add(1.0)
        return self.factor * x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {"name": self.name}


def relu(x):
    """An activation by the name of one of Keras."""
    return keras.activations.leaky_relu(x, 0.3)


def unlike_their_configs():
    return {
        "padding": Same(8, "same", name="odd"),
        "number": Scaled(3.0, name="odd"),
        "inside_another": layers.TimeDistributed(Scaled(3.0, name="odd")),
    }


@pytest.mark.parametrize("gated", [False, True], ids=["shrunk", "folded"])
@pytest.mark.parametrize("name", unlike_their_configs())
def test_a_layer_that_its_config_does_not_give_back_stays(name, gated):
    odd = unlike_their_configs()[name]
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(6, 3, name="last")(odd(x))
    x = layers.GlobalMaxPooling2D()(x)
    if gated:
        x = ks.HardConcrete(seed=1)(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    small, report = ks.shrink(model, 0)
    for new in [small, ks.fold_gates(model)] if gated else [small]:
        own = getattr(odd, "layer", odd)
        assert any(layer is own for layer in all_layers(new))
        assert_same_outputs(model, new)
    assert report.relative_difference < 1e-6
    (whole,) = report.whole
    assert whole.layer.endswith("odd") and "in both models" in whole.note
    assert small.get_layer("first").filters == 8
    assert small.get_layer("last").filters < 6
    # The structures are those that shrinking can cut.
    plain = keras.Model(inputs, odd.output)
    assert ks.structures(plain).size == 0


class Plain(layers.Conv2D):
    """A convolution of a user that its config gives back."""


# Keras finds another function by the name of the last two.
@pytest.mark.parametrize("activation", ["relu", keras.ops.tanh, ops.gelu, relu])
def test_a_layer_that_its_config_gives_back_is_copied(activation):
    x = inputs = keras.Input((8, 8, 3))
    x = Plain(8, 3, activation=activation, name="first")(x)
    model = scramble(keras.Model(inputs, layers.Conv2D(2, 3)(x)))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").filters < 8
    assert report.whole == ()
    assert_same_outputs(model, small)


def test_initial_values_that_are_arrays_do_not_keep_a_layer_whole():
    start = keras.initializers.Constant(np.arange(8.0))
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, bias_initializer=start, name="first"),
            layers.Dense(2),
        ]
    )
    scramble(model)
    small, report = ks.shrink(model, 0)
    assert report.whole == () and small.get_layer("first").units < 8
    assert_same_outputs(model, small)


def test_comparing_a_layer_with_its_copy_changes_no_state():
    odd = Scaled(3.0)
    model = keras.Sequential([keras.Input((4,)), odd, layers.Dense(2)])
    ks.structures(model)
    assert to_numpy(odd.count) == 0


def with_a_shared_activation(gate=None, inner=False):
    """Layers that share one activation with weights, alone or in a model."""
    act = layers.PReLU(alpha_initializer="uniform", name="act")
    x = inputs = keras.Input((6,))
    x = layers.Dense(12, activation="relu", name="first")(x)
    y = keras.Input((12,)) if inner else x
    z = layers.Dense(12, activation=act, name="one")(y)
    z = layers.Dense(12, activation=act, name="two")(z)
    x = keras.Model(y, z, name="inner")(x) if inner else z
    x = gate(x) if gate else x
    model = keras.Model(inputs, layers.Dense(3, name="last")(x))
    model(np.ones((1, 6)))
    for layer in (model.get_layer("first"), model.get_layer("last")):
        scramble(keras.Sequential([layer]))
    act.alpha.assign(np.linspace(-0.5, 0.5, 12))
    return model


@pytest.mark.parametrize("inner", [False, True], ids=["alone", "in_a_model"])
def test_a_shared_activation_with_weights_stays_shared(inner):
    model = with_a_shared_activation(inner=inner)
    parameters = 7 * 12 + 2 * 13 * 12 + 12 + 13 * 3
    assert model.count_params() == parameters
    assert ks.count_macs(model).parameters == parameters
    assert ks.structures(model).cost().parameters == parameters
    small, report = ks.shrink(model, 0)
    assert report.parameters == parameters
    assert report.parameters_after == small.count_params()
    prefix = "inner/" if inner else ""
    notes = {entry.layer: entry.note for entry in report.whole}
    assert "it shares weights with `two`" in notes[f"{prefix}one"]
    assert_same_outputs(model, small)
    gated = with_a_shared_activation(ks.HardConcrete(seed=1), inner)
    plain = ks.fold_gates(gated)
    assert plain.count_params() == parameters
    assert_same_outputs(gated, plain)


class Tied(layers.Layer):
    """Multiplies by the transposed kernel of another layer."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return x @ keras.ops.transpose(self.other.kernel)

    def get_config(self):
        # Made again, it has a layer of its own, which looks the same.
        other = keras.saving.serialize_keras_object(self.other)
        return {**super().get_config(), "other": other}

    @classmethod
    def from_config(cls, config):
        other = keras.saving.deserialize_keras_object(config.pop("other"))
        other.build((None, 6))
        return cls(other, **config)


def test_a_tied_kernel_stays_whole_and_tied():
    dense = layers.Dense(8, name="dense")
    x = inputs = keras.Input((6,))
    x = Tied(dense, name="tied")(layers.ReLU()(dense(x)))
    model = scramble(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("dense").units == 8
    assert small.get_layer("tied").other is small.get_layer("dense")
    notes = {entry.layer: entry.note for entry in report.whole}
    assert "it shares weights with `dense`" in notes["tied"]
    assert "it shares weights with `tied`" in notes["dense"]
    assert report.parameters == model.count_params()
    assert_same_outputs(model, small)


def local_parts():
    """Returns parts of a layer whose classes Keras cannot find by name."""

    class Decay(keras.regularizers.Regularizer):
        def __init__(self, factor=0.1):
            self.factor = factor

        def __call__(self, w):
            return self.factor * ops.sum(ops.square(w))

        def get_config(self):
            return {"factor": self.factor}

    class Ramp(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return ops.ones(shape, dtype)

        def get_config(self):
            return {}

    class Halved(keras.constraints.Constraint):
        def __call__(self, w):
            return w / 2

    def bent(x):
        return ops.relu(x) - 0.1 * ops.relu(-x)

    return {
        "kernel_regularizer": Decay(0.5),
        "bias_initializer": Ramp(),
        "kernel_constraint": Halved(),
        "activation": bent,
    }


@pytest.mark.parametrize("name", local_parts())
def test_what_a_layer_has_need_not_be_registered(name):
    part = local_parts()[name]
    inputs = keras.Input((5,))
    h = layers.Dense(8, name="inner", **{name: part})(inputs)
    model = keras.Model(inputs, layers.Dense(2)(h))
    small, dead = cut_half(model)
    assert dead.sum() == 4
    copy = getattr(small.get_layer("inner"), name)
    assert small.get_layer("inner").units == 4
    assert copy is part or type(copy) is type(part)
    if name == "kernel_regularizer":
        assert copy.factor == 0.5


def test_an_activity_regularizer_that_counts_channels():
    class Orthogonal(keras.regularizers.Regularizer):
        def __call__(self, x):
            x = ops.reshape(x, (-1, 3, 3))
            products = ops.matmul(x, ops.swapaxes(x, 1, 2))
            return ops.sum(ops.square(products - ops.eye(3)))

        def get_config(self):
            return {}

    def build(penalty):
        inputs = keras.Input((5, 3))
        h = layers.GlobalMaxPooling1D()(layers.Conv1D(8, 1)(inputs))
        turned = layers.Dense(9, activity_regularizer=penalty)(h)
        turned = layers.Dot((2, 1))([inputs, layers.Reshape((3, 3))(turned)])
        h = layers.Conv1D(4, 1, name="after")(turned)
        return keras.Model(inputs, layers.Dense(2)(h))

    model = build(Orthogonal())
    found = ks.structures(model)
    assert found.counts.tolist() == [4]
    assert "activity regularizer" in str(found)
    found.zero(np.arange(4) < 2)
    small, _ = ks.shrink(model)
    assert small.get_layer("after").filters == 2
    assert ks.structures(build("l2")).counts.tolist() == [8, 3, 4]
