"""Gates on structures: what they compute, and what is left without them."""

import keras
import numpy as np
import pytest
from helpers import QUICK, assert_same_outputs, to_numpy
from keras import layers
from structure_gates import (
    MODELS,
    at_random,
    build,
    close,
    half_closed,
    set_gates,
)

import keras_sgl0 as ks
from keras_sgl0.gates import AllOpen, GateChannels
from keras_sgl0.gates.lookup import gates


def layers_of(model):
    return list(model._flatten_layers(include_self=False))


@pytest.mark.parametrize("name", MODELS)
def test_open_gates_change_nothing(name):
    model = build(name)
    before = model.get_weights()
    gated = ks.add_gates(model)
    found = ks.structures(model)
    assert [g.log_alpha.shape[0] for g in gates(gated)] == [*found.counts]
    close(gated, np.zeros(found.size, bool))
    assert_same_outputs(model, gated, tolerance=1e-6)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    mine = {id(layer) for layer in layers_of(model)}
    assert not mine & {id(layer) for layer in layers_of(gated)}
    assert not gated.compiled


@pytest.mark.parametrize("name", MODELS)
def test_closed_gates_are_zero_members(name):
    model = build(name)
    gated = ks.add_gates(model)
    found, closed = ks.structures(model), half_closed(model)
    close(gated, closed)
    # The structures are found behind gates, too.
    assert [*ks.structures(gated).counts] == [*found.counts]
    found.zero(closed)
    assert_same_outputs(model, gated)
    small, report = ks.shrink(gated, tolerance=0)
    assert_same_outputs(model, small)
    assert report.macs_after == found.cost(~closed).macs
    assert report.parameters_after == found.cost(~closed).parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121", "MobileNetV2"])
def test_applications(name):
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(64, 64, 3), classes=10)
    gated = ks.add_gates(model)
    found, closed = ks.structures(model), half_closed(model)
    close(gated, closed)
    small, report = ks.shrink(gated, tolerance=0)
    assert report.relative_difference < 1e-5
    assert report.macs_after == found.cost(~closed).macs
    found.zero(closed)
    assert_same_outputs(model, gated)
    assert_same_outputs(model, small)


def test_gates_on_layers_and_on_structures_in_one_model():
    inner = ks.add_gates(build("residual"))
    inputs = keras.Input((6, 6, 3))
    x = layers.Dense(5, "relu")(inner(inputs))
    model = keras.Model(inputs, layers.Dense(2)(ks.HardConcrete()(x)))
    at_random(model)
    assert_same_outputs(model, ks.fold_gates(model))
    assert len(ks.gate_report(model).layers) == 3


@pytest.mark.parametrize("test_gate", ["median", "mean"])
@pytest.mark.parametrize("name", MODELS)
def test_folding_is_exact(name, test_gate):
    model = build(name)
    gated = ks.add_gates(model, test_gate=test_gate)
    at_random(gated)
    folded = ks.fold_gates(gated)
    assert_same_outputs(gated, folded)
    modules = {type(layer).__module__ for layer in layers_of(folded)}
    assert not [m for m in modules if m.startswith("keras_sgl0")]
    assert folded.count_params() == model.count_params()
    small, _ = ks.shrink(gated, tolerance=0)
    assert_same_outputs(gated, small)
    z = np.concatenate([to_numpy(g.test_gates()) for g in gates(gated)])
    assert 0 < np.count_nonzero(z == 0) < np.count_nonzero(z < 1) < len(z)
    left = ks.structures(model).cost(z > 0)
    assert ks.count_macs(small).macs == left.macs


def test_closed_gates_are_dead_neurons_of_the_folded_model():
    gated = ks.add_gates(build("residual"))
    closed = half_closed(gated)
    close(gated, closed)
    report = ks.sparsity_report(ks.fold_gates(gated))
    # stem, inner, outer and head
    stream, inner = (~closed[:3]).sum(), (~closed[3:]).sum()
    assert report.neurons_alive == (stream, inner, stream, 2)


def test_one_sample_serves_all_that_a_structure_runs_through(monkeypatch):
    model = build("same_family")
    gated = ks.add_gates(model, seed=3)
    vectors = [gate.output for gate in gates(gated)]
    both = keras.Model(gated.input, [*vectors, gated.output])
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    *samples, y = map(to_numpy, both(x, training=True))
    assert ((samples[0] > 0) & (samples[0] < 1)).any()
    for gate, z in zip(gates(gated), samples, strict=True):
        monkeypatch.setattr(gate, "test_gates", lambda z=z: z[0])
    expected = to_numpy(ks.fold_gates(gated)(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    *others, _ = map(to_numpy, both(x, training=True))
    assert (samples[0] != others[0]).any()


def test_normalization_sees_the_channel_without_its_gate():
    model = build("residual")
    gated = ks.add_gates(model)
    # The stem's gates are 1 in every sample, the inner ones 0.
    set_gates(gated, np.array([40.0] * 3 + [-40.0] * 4))
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3))
    found = []
    for own in (model, gated):
        own.compile(keras.optimizers.SGD(0.0), "mse", **QUICK)
        own.fit(x, np.ones((4, 2)), verbose=0)
        norm = own.get_layer("inner_norm")
        found.append(np.array([to_numpy(v) for v in norm.weights]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_readers_of_a_closed_gate_see_zero_where_zero_members_are_a_constant():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, "sigmoid", bias_initializer="normal"),
            layers.Dense(2),
        ]
    )
    gated = ks.add_gates(model)
    close(gated, np.array([True, False, True, False]))
    kernel = to_numpy(model.layers[1].kernel).copy()
    kernel[[0, 2]] = 0
    model.layers[1].kernel.assign(kernel)
    assert_same_outputs(model, gated)
    small, _ = ks.shrink(gated, tolerance=0)
    assert_same_outputs(model, small)
    assert small.layers[1].units == 2


def test_a_kernel_without_structures_is_read_as_it_is():
    gated = ks.add_gates(build("residual"))
    names = [x.name for x in gated.layers if isinstance(x, GateChannels)]
    assert sorted(names) == ["head_gated", "inner_gated", "outer_gated"]
    assert [g.name for g in gates(gated)] == ["stem_gates", "inner_gates"]


def test_a_tensor_is_gated_once_for_all_its_readers():
    x = inputs = keras.Input((8,))
    x = layers.Dense(4, "relu")(x)
    x = layers.Add()([layers.Dense(3)(x), layers.Dense(3)(x)])
    gated = ks.add_gates(keras.Model(inputs, x))
    assert sum(isinstance(x, GateChannels) for x in gated.layers) == 1


@pytest.mark.parametrize("how", ["saved", "cloned"])
def test_saving_and_cloning(how, tmp_path):
    gated = ks.add_gates(build("concatenated"), 0.3, "mean", 1e-3, seed=5)
    at_random(gated)
    if how == "saved":
        gated.save(tmp_path / "gated.keras")
        copy = keras.saving.load_model(tmp_path / "gated.keras")
    else:
        copy = keras.models.clone_model(gated)
        copy.set_weights(gated.get_weights())
    assert_same_outputs(gated, copy, tolerance=1e-6)
    for a, b in zip(gates(gated), gates(copy), strict=True):
        assert a.get_config() == b.get_config()
    assert_same_outputs(gated, ks.fold_gates(copy))
    assert ks.gate_report(gated) == ks.gate_report(copy)


def test_a_gated_model_inside_a_model():
    gated = ks.add_gates(build("residual"))
    at_random(gated)
    inputs = keras.Input((6, 6, 3))
    outer = keras.Model(inputs, layers.Dense(2)(gated(inputs)))
    folded = ks.fold_gates(outer)
    assert_same_outputs(outer, folded)
    small, report = ks.shrink(outer, tolerance=0)
    assert_same_outputs(outer, small)
    assert report.macs_after < report.macs


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build("residual")
    finally:
        keras.config.set_dtype_policy("float32")
    gated = ks.add_gates(model)
    wide = "float64" if policy == "float64" else "float32"
    assert {g.log_alpha.dtype for g in gates(gated)} == {wide}
    close(gated, np.zeros(7, bool))
    x = np.ones((2, 6, 6, 3))
    np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(gated(x)))
    assert model(x).dtype == gated(x).dtype
    gated.compile("sgd", "mse", **QUICK)
    gated.fit(x, np.ones((2, 2)), verbose=0)


def test_a_factor_weighs_gates_by_the_parameters_of_a_structure():
    model = build("residual")
    gated = ks.add_gates(model, factor=1e-3)
    saved = ks.structures(model).savings("parameters")
    sizes = [gate.regularizer.group_size for gate in gates(gated)]
    assert sizes == [*saved]
    assert sizes[0] > sizes[1] > 0
    p = [to_numpy(gate.probability_active()).sum() for gate in gates(gated)]
    loss = sum(to_numpy(own) for own in gated.losses)
    assert loss == pytest.approx(1e-3 * (saved @ p), rel=1e-5)
    assert [g.group_size for g in ks.gate_report(gated).layers] == sizes
    assert all(g.regularizer is None for g in gates(ks.add_gates(model)))


def test_the_droprate_and_the_seed():
    model = build("residual")
    first, same, other = (ks.add_gates(model, 0.1, seed=i) for i in (1, 1, 2))
    a, b, c = (to_numpy(gates(m)[0].log_alpha) for m in (first, same, other))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert a.mean() == pytest.approx(np.log(9), abs=0.05)
    # As documented, such gates are 1 at test time.
    assert_same_outputs(model, first, tolerance=1e-6)


def test_the_report():
    model = build("residual")
    gated = ks.add_gates(model)
    found, closed = ks.structures(model), half_closed(model)
    close(gated, closed)
    report = ks.gate_report(gated)
    saved = found.savings("parameters")
    stem, inner = report.layers
    assert (stem.name, stem.gates, stem.group_size) == (
        *("stem_gates", 3),
        saved[0],
    )
    assert (inner.name, inner.gates, inner.group_size) == (
        *("inner_gates", 4),
        saved[1],
    )
    assert stem.open == np.count_nonzero(~closed[:3])
    assert report.parameters == found.cost().parameters
    assert report.macs == found.cost().macs
    p = to_numpy(gates(gated)[1].probability_active())
    assert inner.expected_open == pytest.approx(p.sum(), rel=1e-6)
    assert 0 < report.macs_density < report.density < 1
    text = str(report)
    assert f"{report.macs_density:.2%} of {report.macs:,}" in text
    assert report.to_dict()["macs_density"] == report.macs_density


def test_a_vector_of_ones_needs_only_the_shape():
    ones = AllOpen(3)
    assert ones.compute_output_shape((None, 8)) == (1, 3)
    for x in (np.zeros((2, 8)), np.zeros((5,), "int32")):
        np.testing.assert_array_equal(to_numpy(ones(x)), [[1, 1, 1]])


@pytest.mark.parametrize("axis", [1, -1])
def test_gated_channels(axis):
    places = [2, 0, 0, 3]
    layer = GateChannels(places, axis)
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 4)).astype("float32")
    z, more = np.array([[0.5, 0.0]]), np.array([[2.0]])
    own = np.expand_dims([2.0, 0.5, 0.5, 1.0], (1, 2) if axis == 1 else ())
    y = layer([x, z.astype("float32"), more.astype("float32")])
    np.testing.assert_allclose(to_numpy(y), x * own, rtol=1e-6)
    assert layer.compute_output_shape([x.shape, (1, 3)]) == x.shape
    copy = GateChannels.from_config(layer.get_config())
    assert (copy.places, copy.axis) == (places, axis)


def test_masks_go_through():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 4, mask_zero=True),
            layers.Dense(3, "relu"),
            layers.Dense(2),
        ]
    )
    gated = ks.add_gates(model)
    tokens = np.array([[1, 2, 0, 0, 0]])
    mask = gated(tokens)._keras_mask
    np.testing.assert_array_equal(to_numpy(mask), tokens > 0)
    assert [len(to_numpy(g.log_alpha)) for g in gates(gated)] == [4, 3]


def one_layer():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one_layer, "a model with structures, channels that can be cut. None"),
        (one_layer, "None of its channels can: an output of the model"),
        (
            lambda: ks.add_gates(build("residual")),
            "a model without gates; fold those it has",
        ),
        (
            lambda: ks.models.MLP((8,), gate=lambda *_: ks.HardConcrete()),
            "a model without gates",
        ),
        (lambda: "model", "a built model"),
        (lambda: keras.Sequential([layers.Dense(2)]), "a built model"),
    ],
)
def test_models_that_cannot_have_gates(model, expected):
    with pytest.raises(ValueError, match=expected):
        ks.add_gates(model())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"droprate": 0}, "droprate"),
        ({"droprate": 1.0}, "droprate"),
        ({"droprate": "0.5"}, "droprate"),
        ({"test_gate": "mode"}, "test_gate"),
        ({"factor": -1.0}, "factor"),
        ({"factor": None}, "factor"),
        ({"seed": "zero"}, "seed"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.add_gates(one_layer(), **arguments)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: AllOpen(0), "gates"),
        (lambda: GateChannels([]), "places"),
        (lambda: GateChannels([-1, 0]), "places"),
        (lambda: GateChannels([0.5]), "places"),
    ],
)
def test_bad_arguments_of_the_layers(make, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        make()


def test_what_is_read_by_no_kernel_cannot_be_folded():
    gated = ks.add_gates(build("residual"))
    between = gated.get_layer("head_gated").output
    model = keras.Model(gated.input, [layers.ReLU()(between), gated.output])
    with pytest.raises(ValueError, match="`head_gated` cannot be folded"):
        ks.fold_gates(model)


def test_log_alpha_is_the_only_new_variable_that_is_trained():
    model = build("residual")
    gated = ks.add_gates(model)
    more = len(gated.trainable_variables) - len(model.trainable_variables)
    assert more == len(gates(gated)) == 2
    set_gates(gated, np.zeros(7))
    assert gated.count_params() == model.count_params() + 7 + 2 * 3
