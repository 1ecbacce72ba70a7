"""Normalizations over channels: what of a residual stream can be cut."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_same_outputs,
    cut_half,
    scramble,
    to_numpy,
)
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.structures.selection import random_half


def stream(norm, blocks=2, width=8, tokens=False):
    """Returns a pre-norm network of token mixing and feed-forward blocks."""
    if tokens:
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Embedding(11, width, name="table")(inputs)
    else:
        inputs = keras.Input((6, 5))
        x = layers.Dense(width, name="embed")(inputs)
    for i in range(blocks):
        y = norm(name=f"norm_a{i}")(x)
        y = layers.Conv1D(7, 3, padding="same", name=f"mix{i}")(y)
        y = layers.ReLU()(y)
        y = layers.Dense(width, name=f"mixed{i}")(y)
        x = layers.Add(name=f"add_a{i}")([x, y])
        y = norm(name=f"norm_b{i}")(x)
        y = layers.Dense(12, activation="gelu", name=f"up{i}")(y)
        y = layers.Dropout(0.1, name=f"drop{i}")(y)
        y = layers.Dense(width, name=f"down{i}")(y)
        x = layers.Add(name=f"add_b{i}")([x, y])
    x = norm(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pooled")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def given(model, seed=0):
    rng = np.random.default_rng(seed)
    (x,) = model.inputs
    if x.dtype == "int32":
        return rng.integers(0, 11, (2, *x.shape[1:]))
    return rng.normal(size=(2, *x.shape[1:])).astype(x.dtype)


def half(found, seed=1):
    return random_half(found, np.random.default_rng(seed))


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize(
    "norm", [layers.RMSNormalization, layers.UnitNormalization]
)
def test_the_residual_width_is_a_family(norm, tokens):
    model = scramble(stream(norm, tokens=tokens), dead=0)
    found = ks.structures(model)
    assert found.fixed[0].layer == "head"
    assert len(found.fixed) == 1
    assert found.cost().parameters == model.count_params()
    width = {"table" if tokens else "embed", "mixed0", "down0", "mixed1"}
    assert set(found.made_by(0)) == width | {"down1"}
    dead = half(found)
    found.zero(dead)
    small, report = ks.shrink(model, 0, inputs=given(model))
    assert report.whole == report.kept == ()
    assert_same_outputs(model, small, inputs=given(model, 1))
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters
    assert ks.count_macs(small).macs == cost.macs == report.macs_after
    assert small.get_layer("down1").units == 4


@pytest.mark.skipif(BACKEND != "tensorflow", reason="has float64")
@pytest.mark.parametrize("epsilon", [1e-6, 0.5, None])
def test_the_scale_grows_as_the_width_shrinks(epsilon):
    keras.config.set_dtype_policy("float64")
    try:
        inputs = keras.Input((5,))
        x = layers.Dense(9, name="first")(inputs)
        x = layers.RMSNormalization(epsilon=epsilon, name="norm")(x)
        model = keras.Model(inputs, layers.Dense(3)(x))
    finally:
        keras.config.set_dtype_policy("float32")
    scramble(model, dead=0)
    found = ks.structures(model)
    found.zero(np.arange(9) < 5)
    small, _ = ks.shrink(model, 0)
    own, new = model.get_layer("norm"), small.get_layer("norm")
    np.testing.assert_allclose(
        to_numpy(new.scale), to_numpy(own.scale)[5:] * 1.5, rtol=1e-12
    )
    assert new.epsilon == (epsilon or 1e-7) * 9 / 4
    assert_same_outputs(model, small, tolerance=1e-12)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_only_a_zero_can_be_left_out_of_a_mean(bias):
    inputs = keras.Input((5,))
    x = layers.Dense(6, name="first")(inputs)
    x = layers.RMSNormalization(name="norm")(x)
    last = layers.Dense(3, name="last")
    model = scramble(keras.Model(inputs, last(x)), dead=0)
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * [0, 1, 1, 1, 1, 1])
    first.bias.assign([bias, 1, 1, 1, 1, 1])
    # Channel 1 is not read by the last layer, but it counts in the mean.
    last.kernel.assign(to_numpy(last.kernel) * (np.arange(6) != 1)[:, None])
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units == 6 - (bias == 0)
    assert_same_outputs(model, small)
    if bias:
        (kept,) = report.kept
        assert kept.reason == "its constant, not zero, counts in `norm`"


def test_a_family_that_becomes_a_constant_is_none():
    inputs = keras.Input((5,))
    x = layers.Dense(6, "sigmoid", name="first")(inputs)
    x = layers.UnitNormalization(name="norm")(x)
    found = ks.structures(keras.Model(inputs, layers.Dense(3)(x)))
    assert len(found) == 0
    assert found.fixed[0].reason == "its constant, not zero, counts in `norm`"


def test_layer_normalization_needs_what_is_not_zero():
    inputs = keras.Input((5,))
    x = layers.Dense(6, name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)), dead=0)
    norm = model.get_layer("norm")
    norm.gamma.assign([0, 0, 1, 2, 3, 4])
    norm.beta.assign([0.5, 0, 1, 0, 1, 1])
    graph = trace(model)
    liveness = Liveness(graph, to_numpy, "keep")
    liveness.forward({})
    (found,) = (liveness.constants[n.outputs[0]] for n in graph.nodes[1:2])
    np.testing.assert_array_equal(found, [0.5, 0, *[np.nan] * 4])
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.get_layer("first").units == 6
    (kept,) = report.kept
    assert (kept.layer, kept.channels) == ("norm", (0, 1))
    assert kept.reason == "tied in `norm` to a channel that is alive"
    assert_same_outputs(model, small)
    # With inputs of zero they go; the layer keeps its size and their places.
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * (np.arange(6) > 1))
    first.bias.assign([0, 0, 1, 2, 3, 4])
    small, report = ks.shrink(model, 0)
    assert report.kept == ()
    assert small.get_layer("first").units == 4
    np.testing.assert_array_equal(
        small.get_layer("norm").gamma, [1, 2, 3, 4, 0, 0]
    )
    assert_same_outputs(model, small)
    # A constant other than zero counts in the mean.
    first.bias.assign([0, 3, 1, 2, 3, 4])
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5
    (kept,) = report.kept
    assert kept.reason == "its constant, not zero, counts in `norm`"
    assert_same_outputs(model, small)


def test_a_branch_behind_gammas_of_zero_is_not_read():
    inputs = keras.Input((5,))
    x = layers.Dense(6, name="wide", activation="relu")(inputs)
    x = layers.Dense(4, name="first")(x)
    x = layers.LayerNormalization(name="norm")(x)
    y = layers.Dense(3, name="other")(inputs)
    model = keras.Model(inputs, layers.Add()([layers.Dense(3)(x), y]))
    scramble(model, dead=0)
    model.get_layer("norm").gamma.assign(np.zeros(4))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("wide").units == 1
    assert report.dead_branches == ("wide", "first")
    assert_same_outputs(model, small)


def normalized(axis=-1, **options):
    """Returns a stream that is normalized in front of and behind its sums."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1)(inputs)
    x = layers.Permute((3, 1, 2))(x) if axis == 1 else x
    for i in range(2):
        y = layers.LayerNormalization(axis, name=f"pre_{i}", **options)(x)
        y = layers.Permute((2, 3, 1))(y) if axis == 1 else y
        y = layers.Conv2D(8, 1)(layers.Conv2D(12, 1, activation="gelu")(y))
        y = layers.Permute((3, 1, 2))(y) if axis == 1 else y
        x = layers.LayerNormalization(axis, name=f"post_{i}")(x + y)
    x = ops.mean(x, (2, 3) if axis == 1 else (1, 2))
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize(
    "options", [{}, {"axis": 1}, {"epsilon": 0.1}, {"center": False}]
)
def test_the_width_between_layer_normalizations_is_a_family(options):
    if "axis" in options and BACKEND == "torch":
        pytest.skip("Keras on PyTorch normalizes the last axis alone")
    model = normalized(**options)
    assert ks.structures(model).counts.tolist() == [8, 12, 12]
    small, _ = cut_half(model)
    # A second time nothing is left to cut, and nothing is added.
    again, report = ks.shrink(small, 0)
    assert report.relative_difference == 0
    assert again.count_params() == small.count_params()
    assert len(again.operations) == len(small.operations)
    assert ks.structures(again).cost() == ks.structures(small).cost()
    assert ks.structures(small).cost().parameters == small.count_params()


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="Keras rounds to float32 elsewhere"
)
def test_the_width_in_float64():
    keras.config.set_floatx("float64")
    try:
        model = normalized()
    finally:
        keras.config.set_floatx("float32")
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3))
    small, _ = cut_half(model, inputs=x)
    a, b = (to_numpy(m(x)) for m in (model, small))
    assert np.abs(a - b).max() < 1e-12 * np.abs(a).max()


def test_the_smaller_model_is_saved_and_is_plain_keras(tmp_path):
    # Its operations are named like those that Keras makes next.
    inputs = keras.Input((4, 5))
    x = layers.Dense(8)(inputs)
    x = layers.LayerNormalization()(x)
    x = ops.pad(x, ((0, 0), (1, 2), (0, 0)))[:, 1:5]
    model = keras.Model(inputs, layers.Dense(2)(x))
    names = [x.name for x in model.operations]
    keras.backend.clear_session()
    small, _ = cut_half(model)
    assert len({x.name for x in small.operations}) == len(small.operations)
    assert len(small.operations) > len(names)
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras")
    assert_same_outputs(small, again)


def test_without_a_gamma_no_output_is_dead():
    inputs = keras.Input((5,))
    x = layers.LayerNormalization(scale=False, name="norm")(
        layers.Dense(6, name="first")(inputs)
    )
    found = ks.structures(keras.Model(inputs, layers.Dense(2)(x)))
    assert len(found) == 0
    reason = found.fixed[0].reason
    assert reason == "it is not constant behind `norm` with all zero"


def test_a_mask_keeps_what_is_normalized():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 8, mask_zero=True)(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    (fixed, _) = ks.structures(model).fixed
    assert fixed.reason == "`norm` hands on a mask, which zeros would stop"


def test_a_shared_normalization_is_filled_up_in_all_calls():
    norm = layers.LayerNormalization()
    inputs = keras.Input((5,))
    x = layers.Dense(8)(inputs)
    x = norm(layers.Dense(8, "relu")(norm(x)) + x)
    small, dead = cut_half(keras.Model(inputs, layers.Dense(2)(x)))
    assert len(dead) == 8
    kinds = [type(x) for x in small.layers]
    assert kinds.count(layers.LayerNormalization) == 1


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (layers.LayerNormalization(), (4, 3), None),
        (layers.LayerNormalization(axis=[-1]), (4, 3), None),
        (layers.LayerNormalization(axis=1), (4, 3), "not normalize channels"),
        (layers.LayerNormalization(axis=(1, 2)), (4, 3), "not normalize chan"),
        (layers.RMSNormalization(), (4, 3), None),
        (layers.RMSNormalization(axis=1), (4, 3), "not normalize channels"),
        (layers.UnitNormalization(), (4, 3), None),
        (layers.UnitNormalization(axis=1), (4, 3), "not normalize channels"),
    ],
)
def test_what_the_rules_cover(layer, shape, reason):
    x = inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(layers.Dense(3)(x)))
    graph = trace(model)
    liveness = Liveness(graph, to_numpy, "keep")
    liveness.forward({})
    rule = liveness.rules[graph.nodes[1]]
    assert isinstance(rule, Opaque) == (reason is not None)
    assert reason is None or reason in rule.reason


@pytest.mark.parametrize(
    "kind", [layers.RMSNormalization, layers.LayerNormalization]
)
def test_steps_are_normalized_alone(kind):
    norm = layers.TimeDistributed(kind(), name="norm")
    inputs = keras.Input((6, 5))
    x = norm(layers.Dense(8, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    scramble(model, dead=0)
    found = ks.structures(model)
    dead = np.arange(8) < 4
    found.zero(dead)
    small, _ = ks.shrink(model, 0)
    assert small.count_params() == found.cost(~dead).parameters
    assert_same_outputs(model, small)
    assert len(ks.structures(scramble(model, dead=0)).mixed) == 8


def test_a_mean_gets_no_gates():
    model = stream(layers.RMSNormalization)
    gated = ks.add_gates(model, seed=0)
    gates = [x for x in gated.layers if isinstance(x, ks.HardConcrete)]
    assert {g.name for g in gates} == {
        f"{name}{i}_gates" for name in ("mix", "up") for i in range(2)
    }
    inputs = keras.Input((5,))
    x = layers.RMSNormalization()(layers.Dense(6)(inputs))
    with pytest.raises(ValueError, match="normalizations over channels"):
        ks.add_gates(keras.Model(inputs, layers.Dense(3)(x)))


def test_frozen_members_of_a_mean_stay():
    model = stream(layers.RMSNormalization)
    model.get_layer("down1").trainable = False
    found = ks.structures(model)
    assert not found.removable(readers=True)[found.mixed].any()
    assert found.removable(readers=True)[~found.mixed].all()


def language_model(tied, bias=True, name="table"):
    """Returns a network that uses its table of tokens in reverse."""
    inputs = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(11, 8, tie_weights=tied, name=name)
    x = table(inputs)
    y = layers.RMSNormalization(name="norm")(x)
    y = layers.Dense(12, "gelu", name="up")(y)
    x = x + layers.Dense(8, use_bias=bias, name="down")(y)
    x = layers.RMSNormalization(name="last")(x)
    return keras.Model(inputs, table(x, reverse=True))


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_is_cut_that_is_used_in_reverse(tied):
    model = scramble(language_model(tied), dead=0)
    found = ks.structures(model)
    assert sorted(found.counts) == [8, 12]
    assert found.cost().macs == ks.count_macs(model).macs == 6 * 8 * 35
    assert found.cost().parameters == model.count_params()
    dead = half(found)
    found.zero(dead)
    small, report = ks.shrink(model, 0, inputs=given(model))
    assert report.whole == report.kept == ()
    assert small.get_layer("table").output_dim == 4
    assert_same_outputs(model, small, inputs=given(model, 1))
    cost = found.cost(~dead)
    assert small.count_params() == cost.parameters
    assert ks.count_macs(small).macs == cost.macs == report.macs_after


def test_a_table_in_reverse_holds_no_constant():
    inputs = keras.Input((5,))
    x = layers.Dense(8, "sigmoid", name="first")(inputs)
    table = layers.ReversibleEmbedding(11, 8, name="table")
    table.build()
    model = keras.Model(inputs, table(x, reverse=True))
    assert len(ks.structures(model)) == 0
    model = scramble(model, dead=0.4)
    embeddings = to_numpy(table.embeddings).copy()
    embeddings[:, :2] = 0
    embeddings[3] = 0
    table.embeddings.assign(embeddings)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("first").units < 8
    assert small.get_layer("table").embeddings.shape[0] == 11


def test_a_table_that_is_read_in_reverse_is_not_centred():
    inputs = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(11, 8, name="table")
    x = layers.LayerNormalization()(table(inputs))
    model = keras.Model(inputs, table(x, reverse=True))
    with pytest.raises(ValueError, match="`table` is called elsewhere"):
        ks.to_rms_normalization(model)
