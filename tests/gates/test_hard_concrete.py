import math

import keras
import numpy as np
import pytest
from helpers import QUICK, compile_quickly, gradient, to_numpy
from keras import layers, ops

import keras_sgl0 as ks

LOG_ALPHAS = np.array([-4.0, -1.0, 0.0, 1.5, 4.0])
DRAWS = 40_000
LOW, HIGH, TEMPERATURE = -0.1, 1.1, 2 / 3
settings = pytest.mark.parametrize(
    ("temperature", "stretch"), [(2 / 3, (-0.1, 1.1)), (0.4, (-0.3, 1.05))]
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def probability(log_alpha):
    return sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def built(log_alpha, **arguments):
    """Returns gates with the given `log_alpha`."""
    gate = ks.HardConcrete(**arguments)
    gate.build((None, len(log_alpha)))
    gate.log_alpha.assign(log_alpha)
    return gate


def draw(**arguments):
    """Returns many samples of gates, a row for each of `LOG_ALPHAS`."""
    gate = built(np.repeat(LOG_ALPHAS, DRAWS), seed=1, **arguments)
    return to_numpy(gate.sample()).reshape(-1, DRAWS)


@settings
def test_the_closed_form_probability_is_that_of_sampling(temperature, stretch):
    arguments = {"temperature": temperature, "stretch": stretch}
    sampled = (draw(**arguments) != 0).mean(axis=1)
    p = to_numpy(built(LOG_ALPHAS, **arguments).probability_active())
    assert (abs(sampled - p) < 4 * np.sqrt(p * (1 - p) / DRAWS)).all()


def test_the_probability_at_the_clamp_is_that_of_the_docs():
    p = to_numpy(built(np.log([0.01, 100])).probability_active())
    np.testing.assert_allclose(p, [0.047, 0.998], atol=5e-4)


@settings
def test_the_median_gate_is_the_median_of_the_samples(temperature, stretch):
    arguments = {"temperature": temperature, "stretch": stretch}
    gates = to_numpy(built(LOG_ALPHAS, **arguments).test_gates())
    medians = np.median(draw(**arguments), axis=1)
    np.testing.assert_allclose(gates, medians, atol=0.02)
    assert (medians == 0).any() and (medians == 1).any()
    np.testing.assert_array_equal(gates == 0, medians == 0)


def test_the_median_gate_is_0_exactly_where_it_is_more_often_off_than_on():
    log_alpha = np.linspace(-4.6, 4.6, 2000)
    gate = built(log_alpha)
    p = to_numpy(gate.probability_active())
    np.testing.assert_array_equal(to_numpy(gate.test_gates()) == 0, p <= 0.5)


def test_the_mean_gate_is_its_formula():
    gates = to_numpy(built(LOG_ALPHAS, test_gate="mean").test_gates())
    expected = np.clip(sigmoid(LOG_ALPHAS) * (HIGH - LOW) + LOW, 0, 1)
    np.testing.assert_allclose(gates, expected, atol=1e-6)
    log_alpha = np.linspace(-4.6, 4.6, 2000)
    mean = to_numpy(built(log_alpha, test_gate="mean").test_gates())
    assert probability(log_alpha[mean == 0]).max() == pytest.approx(
        0.31, abs=0.005
    )


def test_the_gradient_of_the_expected_l0_norm():
    def expected_l0(log_alpha):
        return 0.3 * 7 * probability(log_alpha)

    found = gradient(ks.ExpectedL0(0.3, 7), LOG_ALPHAS.astype("float32"))
    h = 1e-4
    slopes = expected_l0(LOG_ALPHAS + h) - expected_l0(LOG_ALPHAS - h)
    np.testing.assert_allclose(found, slopes / (2 * h), rtol=1e-4)


def test_the_pathwise_gradient_is_that_of_the_expectation():
    def f(z):
        return (z - 0.3) ** 2 + z

    def expectation(log_alpha):
        # The same uniform numbers for every log_alpha.
        u = (np.arange(200_000) + 0.5) / 200_000
        noise = np.log(u) - np.log(1 - u)
        s = sigmoid((noise + log_alpha[:, None]) / TEMPERATURE)
        return f(np.clip(s * (HIGH - LOW) + LOW, 0, 1)).mean(axis=1)

    log_alpha = np.repeat(LOG_ALPHAS, DRAWS).astype("float32")
    gate = built(log_alpha, seed=2)
    rest = [v.value for v in gate.non_trainable_variables]
    inputs = ops.ones((1, len(log_alpha)))

    def sampled(log_alpha):
        z, _ = gate.stateless_call([log_alpha], rest, inputs, training=True)
        return ops.sum(f(z)) / DRAWS

    found = gradient(sampled, log_alpha).reshape(-1, DRAWS).sum(axis=1)
    h = 1e-3
    slopes = expectation(LOG_ALPHAS + h) - expectation(LOG_ALPHAS - h)
    np.testing.assert_allclose(found, slopes / (2 * h), atol=5e-3)


def test_a_batch_shares_a_sample_and_each_step_has_a_new_one():
    gate = ks.HardConcrete(seed=3)
    images = np.ones((5, 4, 4, 6), "float32")
    first = to_numpy(gate(images, training=True))
    second = to_numpy(gate(images, training=True))
    assert (first == first[0, 0, 0]).all()
    assert (second == second[0, 0, 0]).all()
    assert (first[0, 0, 0] != second[0, 0, 0]).any()


@pytest.mark.parametrize("test_gate", ["median", "mean"])
def test_gates_are_deterministic_at_test_time(test_gate):
    gate = ks.HardConcrete(droprate_init=0.2, test_gate=test_gate)
    x = np.random.default_rng(0).random((5, 6), "float32")
    z = to_numpy(gate(x)) / x
    np.testing.assert_allclose(z, np.tile(z[0], (5, 1)), rtol=1e-5)
    np.testing.assert_allclose(z[0], to_numpy(gate.test_gates()), rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(gate(x)), z * x)


def test_the_same_seed_gives_the_same_gates_for_images_and_vectors():
    gates = [ks.HardConcrete(seed=4) for _ in range(2)]
    for _ in range(3):
        x = np.ones((2, 4, 4, 6), "float32")
        images = to_numpy(gates[0](x, training=True))
        vectors = to_numpy(gates[1](x[:, 0, 0], training=True))
        np.testing.assert_array_equal(images[:, 0, 0], vectors)
    other = ks.HardConcrete(seed=5)(x, training=True)
    assert (to_numpy(other) != images).any()


def test_log_alpha_starts_at_the_droprate():
    gate = ks.HardConcrete(droprate_init=0.2, seed=6)
    gate.build((None, 5000))
    log_alpha = to_numpy(gate.log_alpha)
    assert log_alpha.mean() == pytest.approx(math.log(4), abs=1e-3)
    assert log_alpha.std() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(("sign", "bound"), [(1, 0.01), (-1, 100)])
def test_the_compiled_step_clamps_log_alpha(sign, bound):
    gate = ks.HardConcrete(regularizer=lambda a: sign * ops.sum(a))
    model = keras.Sequential([keras.Input((6,)), gate])
    model.compile(keras.optimizers.SGD(1e6), "mse", **QUICK)
    model.fit(np.ones((8, 6)), np.ones((8, 6)), batch_size=4, verbose=0)
    np.testing.assert_allclose(to_numpy(gate.log_alpha), math.log(bound))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_keeps_log_alpha_in_float32(policy, training):
    gate = ks.HardConcrete(dtype=policy, seed=7)
    plain = ks.HardConcrete(seed=7)
    x = ops.ones((2, 50))
    low, full = gate(x, training=training), plain(x, training=training)
    assert keras.backend.standardize_dtype(low.dtype) == policy[6:]
    assert {w.dtype for w in gate.weights} == {"float32"}
    np.testing.assert_allclose(
        to_numpy(ops.cast(low, "float32")), to_numpy(full), atol=4e-3
    )


def regularized():
    penalty = ks.ExpectedL0(0.1, 3, 1e-3, temperature=0.5, stretch=(-0.2, 1.3))
    return ks.HardConcrete(
        0.2, "mean", 0.5, (-0.2, 1.3), regularizer=penalty, seed=8, name="z"
    )


def test_a_configuration_makes_the_same_layer():
    gate = regularized()
    again = ks.HardConcrete.from_config(gate.get_config())
    assert again.get_config() == gate.get_config()
    assert again.regularizer.get_config() == gate.regularizer.get_config()


def test_a_clone_and_a_saved_model_have_the_gates(tmp_path):
    model = keras.Sequential(
        [keras.Input((6,)), regularized(), layers.Dense(3)]
    )
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((4, 6), "float32")
    for copy in (clone, loaded):
        gate = copy.get_layer("z")
        assert gate.get_config() == model.get_layer("z").get_config()
        np.testing.assert_array_equal(to_numpy(copy(x)), to_numpy(model(x)))
        penalties = [to_numpy(sum(m.losses)) for m in (copy, model)]
        np.testing.assert_allclose(*penalties, rtol=1e-6)


@pytest.mark.parametrize("ending", ["keras", "weights.h5"])
def test_a_saved_model_goes_on_with_the_samples(tmp_path, ending):
    def gates():
        return keras.Sequential([keras.Input((20,)), ks.HardConcrete()])

    x = np.ones((1, 20), "float32")
    model, path = gates(), tmp_path / f"model.{ending}"
    before = to_numpy(model(x, training=True))
    if ending == "keras":
        model.save(path)
        again = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        again = gates()
        again.load_weights(path)
    after = to_numpy(model(x, training=True))
    assert (before != after).any()
    np.testing.assert_array_equal(to_numpy(again(x, training=True)), after)


def decayed(group_size):
    return ks.HardConcrete(
        regularizer=ks.ExpectedL0(0.1, group_size, weight_decay=0.02)
    )


def cost(gate, kernel, bias=None):
    """Returns what the formula says of rows of weights, one a gate."""
    squares = (kernel**2).sum(axis=1)
    size = kernel.shape[1]
    if bias is not None:
        squares, size = squares + bias**2, size + 1
    p = probability(to_numpy(gate.log_alpha).astype(float))
    return (p * (0.1 * size + 0.01 * squares)).sum()


@pytest.mark.parametrize("use_bias", [True, False])
def test_weight_decay_of_maps_and_inputs(use_bias):
    keras.utils.set_random_seed(0)
    conv = layers.Conv2D(
        4, 3, use_bias=use_bias, bias_initializer="normal", activation="relu"
    )
    dense = layers.Dense(5, bias_initializer="normal")
    gates = [decayed(2 * 9 + use_bias), decayed(5)]
    model = keras.Sequential([keras.Input((5, 5, 2))])
    for layer in (conv, gates[0], layers.Flatten(), gates[1], dense):
        model.add(layer)
    x = np.ones((3, 5, 5, 2), "float32")
    expected = cost(
        gates[0],
        to_numpy(conv.kernel).reshape(18, 4).T,
        to_numpy(conv.bias) if use_bias else None,
    ) + cost(gates[1], to_numpy(dense.kernel))
    for training in (True, False):
        model(x, training=training)
        found = float(to_numpy(sum(model.losses)))
        assert found == pytest.approx(expected, rel=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.gate, self.dense = decayed(5), layers.Dense(5)

    def call(self, inputs, training=False):
        return self.dense(self.gate(inputs, training=training))


def test_weight_decay_refuses_gates_whose_weights_are_not_to_be_found():
    pooled = keras.Sequential(
        [keras.Input((6, 2)), decayed(3), layers.Flatten(), layers.Dense(5)]
    )
    for model, x in (
        (pooled, np.ones((1, 6, 2))),
        (Subclassed(), np.ones((1, 6))),
    ):
        with pytest.raises(ValueError, match="weights are not to be found"):
            model(x)


def test_a_penalised_model_is_trained_by_fit_alone():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    y = 3 * x[:, :1] - 2 * x[:, 1:2]
    gate = ks.HardConcrete(regularizer=ks.ExpectedL0(0.2, 1), seed=9)
    model = keras.Sequential([keras.Input((6,)), gate, layers.Dense(1)])
    compile_quickly(model, keras.optimizers.Adam(0.03), "mse")
    model.fit(x, y, epochs=40, batch_size=32, verbose=0)
    z = to_numpy(gate.test_gates())
    assert (z[:2] > 0.9).all()
    np.testing.assert_array_equal(z[2:], 0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"droprate_init": 0.0}, "droprate_init"),
        ({"droprate_init": 1.0}, "droprate_init"),
        ({"test_gate": "mode"}, "test_gate"),
        ({"temperature": 0}, "temperature"),
        ({"stretch": (0, 1.1)}, "stretch"),
        ({"stretch": (-0.1, 1)}, "stretch"),
        ({"stretch": (-0.1,)}, "stretch"),
        ({"stretch": (-math.inf, 1.1)}, "stretch"),
        ({"stretch": ("-0.1", "1.1")}, "stretch"),
        ({"stretch": 1.1}, "stretch"),
        ({"group_size": 0}, "group_size"),
        ({"regularizer": ks.ExpectedL0(1, 1, temperature=1)}, "regularizer"),
        ({"regularizer": ks.ExpectedL0(1, 1, stretch=(-1, 2))}, "regularizer"),
    ],
)
def test_bad_arguments_of_gates(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.HardConcrete(**arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"factor": 0}, "factor"),
        ({"factor": math.nan}, "factor"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": 2.5}, "group_size"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"temperature": -1}, "temperature"),
        ({"stretch": (-0.1, 0.9)}, "stretch"),
    ],
)
def test_bad_arguments_of_the_expected_l0_norm(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.ExpectedL0(**({"factor": 0.1, "group_size": 1} | arguments))


def test_an_unknown_last_axis_is_refused():
    with pytest.raises(ValueError, match="whose last axis is known"):
        ks.HardConcrete()(keras.Input((None,)))


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.HardConcrete(regularizer=ks.ExpectedL0(1, 1, temperature=0.5))
    assert str(caught.value) == (
        "Invalid value for argument `regularizer`. Expected one with the "
        "gates' temperature and stretch (0.6666666666666666, (-0.1, 1.1)). "
        "Received: regularizer=(0.5, (-0.1, 1.1))"
    )
