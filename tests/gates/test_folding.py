"""The same outputs without gates."""

import keras
import numpy as np
import pytest
from gated_models import (
    MODELS,
    Subclassed,
    assert_close,
    assert_same_outputs,
    conv_is_an_output,
    inputs_of,
    layers_of,
    lenet,
    nested,
    predict,
    randomise,
)
from helpers import compile_quickly, to_numpy
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from keras import layers
from processes import run_code

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates

LOAD = """
import sys
sys.modules["keras_sgl0"] = None
import keras, numpy as np
for name in sys.argv[2:]:
    path = f"{sys.argv[1]}/{name}"
    model = keras.saving.load_model(f"{path}.keras")
    y = model.predict(np.load(f"{path}.x.npy"), verbose=0)
    np.save(f"{path}.y.npy", y)
"""


@pytest.mark.parametrize("test_gate", ["median", "mean"])
@pytest.mark.parametrize("name", MODELS)
def test_folding_keeps_the_outputs(name, test_gate):
    build, rescalings = MODELS[name]
    model = build(lambda: ks.HardConcrete(test_gate=test_gate))
    folded = None

    @budget(max_examples=3, deadline=None, database=None)
    @given(st.integers(0, 10**6))
    def check(seed):
        nonlocal folded
        randomise(model, seed)
        before = model.get_weights()
        folded = ks.fold_gates(model)
        assert_same_outputs(model, folded)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    check()
    modules = {type(layer).__module__ for layer in layers_of(folded)}
    assert not [name for name in modules if name.startswith("keras_sgl0")]
    found = [x for x in layers_of(folded) if isinstance(x, layers.Rescaling)]
    assert len(found) == rescalings
    mine = {id(layer) for layer in layers_of(model)}
    assert not mine & {id(layer) for layer in layers_of(folded)}


def test_a_folded_model_keeps_the_names_and_structure_of_its_outputs():
    model = conv_is_an_output(ks.HardConcrete)
    folded = ks.fold_gates(model)
    assert set(folded(inputs_of(model))) == {"maps", "logits"}
    assert folded.name == model.name


def test_folded_models_load_without_this_package(tmp_path):
    built = {
        "lenet": lenet(ks.HardConcrete),
        "tanh": MODELS["tanh"][0](ks.HardConcrete),
        "nested": nested(ks.HardConcrete),
    }
    for name, model in built.items():
        randomise(model, 1)
        ks.fold_gates(model).save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.x.npy", inputs_of(model))
    run_code(LOAD, tmp_path, *built, check=True)
    for name, model in built.items():
        found = np.load(tmp_path / f"{name}.y.npy")
        assert_close(found, predict(model, inputs_of(model))[0])


def test_a_folded_model_is_not_compiled_and_has_the_size_of_a_plain_one():
    model = lenet(ks.HardConcrete)
    compile_quickly(model, "adam", "mse")
    folded = ks.fold_gates(model)
    assert not folded.compiled
    assert folded.count_params() == 431_080


def test_a_rescaling_computes_in_the_dtype_of_its_gate():
    gate = ks.HardConcrete(dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((8,)), gate])
    x = inputs_of(model)
    assert ks.fold_gates(model)(x).dtype == model(x).dtype


def test_a_closed_gate_is_a_dead_group_of_the_folded_model():
    model = lenet(ks.HardConcrete)
    randomise(model, 2)
    report = ks.sparsity_report(ks.fold_gates(model), axis="auto")
    open_gates = [
        np.count_nonzero(to_numpy(gate.test_gates())) for gate in gates(model)
    ]
    assert list(report.neurons_alive) == open_gates
    assert 0 < report.neuron_sparsity < 1


def test_folding_refuses_gates_inside_a_layer_that_stays_whole():
    wrapped = keras.Sequential(
        [keras.Input((5, 8)), layers.TimeDistributed(ks.HardConcrete())]
    )
    with pytest.raises(ValueError, match="not inside a layer that stays whole"):
        ks.fold_gates(wrapped)


def test_gates_of_a_subclassed_model_are_folded():
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    model(x)
    randomise(model, 3)
    plain = ks.fold_gates(model)
    assert not any(isinstance(g, ks.HardConcrete) for g in layers_of(plain))
    assert_close(model.predict(x, verbose=0), plain.predict(x, verbose=0))
