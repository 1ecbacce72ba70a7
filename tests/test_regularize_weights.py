"""Penalties on the kernels of recurrent layers and on gamma."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, compile_quickly, to_numpy
from keras import layers

import keras_sgl0 as ks

RECURRENT = {
    "simple": lambda: layers.SimpleRNN(3, name="own"),
    "gru": lambda: layers.GRU(3, name="own"),
    "lstm": lambda: layers.LSTM(3, name="own"),
    "cell": lambda: layers.RNN(layers.LSTMCell(3, name="inner"), name="own"),
    "both": lambda: layers.Bidirectional(layers.LSTM(3), name="own"),
}


def recurrent(kind="lstm"):
    """Returns a compiled classifier of sequences (4, 3)."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            RECURRENT[kind](),
            layers.Dense(3, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, keras.optimizers.SGD(0.1), loss)
    return model


def normalized():
    """Returns a compiled classifier with batch normalization."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(3, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, keras.optimizers.SGD(0.1), loss)
    model.get_layer("norm").gamma.assign(np.linspace(0.1, 1.5, 16))
    return model


def penalized(model):
    """Returns the names of the variables with a penalty of this package."""
    found = [v for v in model.variables if isinstance(v.regularizer, ks.L1)]
    return sorted(v.name for v in found)


@pytest.mark.parametrize("kind", RECURRENT)
def test_both_kernels_of_recurrent_layers_get_it_when_asked_for(kind, tmp_path):
    model = recurrent(kind)
    ks.regularize(model, ks.L1(0.1))
    assert penalized(model) == ["kernel"]
    report = ks.regularize(model, ks.L1(0.2), weights="recurrent")
    assert [e.note for e in report.regularized] == len(report.regularized) * [
        ""
    ]
    names = ["kernel", "recurrent_kernel"] * (2 if kind == "both" else 1)
    assert [e.kernel for e in report.regularized] == names
    assert penalized(model) == sorted(["kernel", *names])
    notes = {e.layer: e.note for e in report.entries}
    assert notes["head"] == "not among the `weights`: kernel"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert penalized(loaded) == penalized(model)
    ks.regularize(model, None, weights=["kernel", "recurrent"])
    assert penalized(model) == []


def test_convolutional_recurrent_layers():
    model = keras.Sequential(
        [keras.Input((2, 5, 5, 2)), layers.ConvLSTM2D(3, 2, name="own")]
    )
    report = ks.regularize(
        model, ks.GroupLasso(0.1, axis="auto"), ["own"], "recurrent"
    )
    found = [(e.kernel, e.shape, e.axis) for e in report.regularized]
    assert found == [
        ("kernel", (2, 2, 2, 12), -1),
        ("recurrent_kernel", (2, 2, 3, 12), -1),
    ]


def test_the_group_axes_of_recurrent_kernels():
    model = recurrent("gru")
    for axis, expected in ((-1, -1), ("auto", 0), (0, 0)):
        report = ks.regularize(
            model, ks.GroupLasso(0.1, axis=axis), ["own"], ["recurrent"]
        )
        assert [e.axis for e in report.regularized] == 2 * [expected]


def sequences():
    rng = np.random.default_rng(0)
    return rng.random((64, 4, 3), "float32"), rng.integers(0, 3, 64)


def test_proximal_steps_kill_columns_of_recurrent_kernels():
    model = recurrent()
    ks.regularize(model, ks.GroupLasso(0.1), weights="recurrent")
    kernel = model.layers[0].cell.recurrent_kernel
    kernel.assign(kernel * np.linspace(0.02, 1, 12, dtype="float32"))
    model.fit(*sequences(), epochs=3, verbose=0, callbacks=[ks.ProximalStep()])
    report = ks.sparsity_report(model, tolerance=0)
    norms = np.linalg.norm(to_numpy(kernel), axis=0)
    (row,) = [k for k in report.kernels if k.name == kernel.path]
    assert row.axis == 1
    assert row.groups == 12
    assert 0 < row.groups_alive == (norms > 0).sum() < 12


def test_splitting_trains_recurrent_kernels_and_gamma():
    model = recurrent()
    ks.regularize(model, ks.SGL0(1e-3), weights="recurrent")
    splitting = ks.VariableSplitting(beta=1.0)
    logs = model.fit(*sequences(), verbose=0, callbacks=[splitting]).history
    assert len(splitting.v) == 2
    assert logs["threshold"][0] == pytest.approx(0.002**0.5, rel=1e-5)


@pytest.mark.parametrize("layer", ["batch", "group", "layer"])
def test_gamma_gets_it_when_asked_for(layer, tmp_path):
    kinds = {
        "batch": layers.BatchNormalization(name="norm"),
        "group": layers.GroupNormalization(2, name="norm"),
        "layer": layers.LayerNormalization(name="norm"),
    }
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(4, name="dense"),
            kinds[layer],
            layers.Dense(3, name="head"),
        ]
    )
    report = ks.regularize(model, ks.L1(0.1), weights=("kernel", "gamma"))
    found = [(e.layer, e.kernel, e.shape) for e in report.regularized]
    assert ("norm", "gamma", (4,)) in found and len(found) == 3
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert penalized(loaded) == ["gamma", "kernel", "kernel"]
    ks.regularize(model, None, weights="gamma")
    assert penalized(model) == ["kernel", "kernel"]


def test_normalizations_without_gamma_have_none():
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(scale=False)]
    )
    with pytest.raises(ValueError, match="argument `model`"):
        ks.regularize(model, ks.L1(0.1), weights="gamma")


def test_proximal_steps_make_gammas_zero_and_shrink_cuts(images):
    model = normalized()
    ks.regularize(model, ks.L1(0.2), weights="gamma")
    model.fit(*images, epochs=12, verbose=0, callbacks=[ks.ProximalStep()])
    gamma = to_numpy(model.get_layer("norm").gamma)
    dead = (gamma == 0).sum()
    assert 0 < dead < 16
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 16 - dead
    assert_same_outputs(model, small)


def test_gammas_with_a_group_penalty_are_counted_one_by_one(images):
    model = normalized()
    ks.regularize(model, ks.GroupLasso(0.2), weights="gamma")
    model.fit(*images, epochs=12, verbose=0, callbacks=[ks.ProximalStep()])
    gamma = to_numpy(model.get_layer("norm").gamma)
    report = ks.sparsity_report(model, tolerance=0, axis="auto")
    (row,) = [k for k in report.kernels if k.name.endswith("gamma")]
    assert (row.shape, row.axis, row.groups) == ((16,), 0, 16)
    assert 0 < row.groups_alive == (gamma != 0).sum() < 16


def test_a_target_density_counts_gammas(images):
    model = normalized()
    ks.regularize(model, ks.L1(0.01), weights=["kernel", "gamma"])
    target = ks.TargetDensity(0.5)
    model.fit(
        *images,
        epochs=4,
        verbose=0,
        callbacks=[ks.ProximalStep(), target],
    )
    counted = [v for v in model.trainable_variables if v.regularizer]
    assert sorted(v.name for v in counted) == ["gamma", "kernel", "kernel"]
    alive = sum((to_numpy(v) != 0).sum() for v in counted)
    assert alive <= 0.5 * sum(np.prod(v.shape) for v in counted)
