"""Transformers: penalties, gates and pruning cut heads and dense layers."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, compile_quickly, to_numpy
from networks import language_model, vision_transformer

import keras_sgl0 as ks

MODELS = {"images": vision_transformer, "tokens": language_model}


def examples(model, number=16):
    """Returns random inputs of a model."""
    rng = np.random.default_rng(0)
    shape = (number, *model.inputs[0].shape[1:])
    if model.inputs[0].dtype == "int32":
        return rng.integers(0, 11, shape)
    return rng.normal(size=shape).astype("float32")


def attentions_of(model):
    """Returns the configs of the attention layers of a model."""
    kinds = (
        keras.layers.MultiHeadAttention,
        keras.layers.GroupQueryAttention,
    )
    return [x.get_config() for x in model.layers if isinstance(x, kinds)]


@pytest.mark.parametrize("kind", MODELS)
def test_half_the_budget(kind):
    keras.utils.set_random_seed(0)
    model = MODELS[kind](blocks=2)
    small, _ = ks.prune(model, macs=0.6)
    share = ks.count_macs(small).macs / ks.count_macs(model).macs
    assert 0.55 < share <= 0.6
    x = examples(model)
    assert np.isfinite(to_numpy(small(x))).all()
    pairs = zip(attentions_of(small), attentions_of(model), strict=True)
    smaller = [
        config[n] < before[n]
        for config, before in pairs
        for n in before
        if n.endswith(("heads", "dim"))
    ]
    assert sum(smaller) > 1


def test_activations_inside_a_layer_are_not_measured():
    model = vision_transformer()
    x = (examples(model), None)
    with pytest.raises(ValueError, match="inside a layer"):
        ks.prune(model, macs=0.6, importance="apoz", data=x)


@pytest.mark.parametrize("kind", MODELS)
def test_gates_are_on_what_is_read_between_layers(kind):
    keras.utils.set_random_seed(0)
    model = MODELS[kind]()
    gated = ks.add_gates(model, droprate=0.3, test_gate="mean")
    report = ks.gate_report(gated)
    assert report.parameters == model.count_params()
    assert report.macs == ks.count_macs(model).macs
    # Heads and dimensions have none.
    names = [layer.name for layer in gated.layers]
    assert not any("attention" in n and "gates" in n for n in names)
    x = examples(model)
    folded = ks.fold_gates(gated)
    assert_same_outputs(gated, folded, inputs=x)


def test_gates_of_what_an_attention_reads_are_in_all_projections():
    inputs = keras.Input((5, 6))
    x = keras.layers.Dense(8, name="before")(inputs)
    x = keras.layers.MultiHeadAttention(2, 3, use_gate=True)(x, x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="after")(x))
    gated = ks.add_gates(model, droprate=0.3, test_gate="mean", seed=0)
    values = np.linspace(-3, 3, 8)
    gated.get_layer("before_gates").log_alpha.assign(values)
    x = np.random.default_rng(0).normal(size=(2, 5, 6))
    assert_same_outputs(gated, ks.fold_gates(gated), inputs=x)
    small, _ = ks.shrink(gated, 0, inputs=x)
    assert small.get_layer("before").units < 8
    assert_same_outputs(gated, small, inputs=x)
    whole = ks.gate_report(gated)
    assert whole.parameters == model.count_params()


@pytest.mark.parametrize("kind", MODELS)
def test_coupled_penalties_empty_heads(kind):
    keras.utils.set_random_seed(0)
    model = MODELS[kind]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, keras.optimizers.SGD(0.05), loss)
    x = examples(model, 64)
    y = x if kind == "tokens" else np.arange(64) % 3
    callbacks = [
        ks.CoupledGroups(ks.GroupLasso(1e-2)),
        ks.TargetDensity(0.6, of="macs"),
    ]
    model.fit(x, y, 32, 3, verbose=0, callbacks=callbacks)
    small, report = ks.shrink(model, inputs=x)
    share = ks.count_macs(small).macs / ks.count_macs(model).macs
    assert 0.5 < share < 0.65
    assert attentions_of(small) != attentions_of(model)
    assert report.relative_difference < 1e-4


@pytest.mark.parametrize("kind", MODELS)
def test_a_random_half(kind):
    model = MODELS[kind]()
    found = ks.structures(model)
    found.zero(np.arange(len(found)) % 2 == 0)
    x = examples(model, 2)
    small, _ = ks.shrink(model, 0, inputs=x)
    assert_same_outputs(model, small, inputs=x)
    cost = found.cost(np.arange(len(found)) % 2 == 1)
    assert small.count_params() == cost.parameters
    assert ks.count_macs(small).macs == cost.macs
