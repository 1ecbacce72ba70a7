"""What to cut, found by training: `compress(method=...)`."""

import keras
import networks
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers
from three_classes import TRAIN, VALIDATION, draw

import keras_sgl0 as ks
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.search import gate_search
from keras_sgl0.compression.state import State
from keras_sgl0.structures.values import ThresholdedArrays

RNG, *_ = draw()
PENALTIES = ("group_lasso", "sgl0")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def compress(model, method, **options):
    return ks.compress(
        model, TRAIN, VALIDATION, method=method, verbose=0, **options
    )


@pytest.mark.parametrize("method", ["group_lasso", "gates", slow("sgl0")])
def test_training_finds_what_goes(trained, method):
    before = [to_numpy(w) for w in trained.weights]
    small, report = compress(trained, method, macs=0.5, epochs=10)
    assert report.macs_after == ks.count_macs(small).macs <= 0.5 * report.macs
    assert report.macs_after > 0.25 * report.macs
    assert report.settings.search == 5 and len(report.history) == 10
    assert f"By {method}:" in str(report)
    assert "10 epochs, 5 of them before the cut," in str(report)
    assert type(small).__module__.startswith("keras.")
    assert report.recovered["accuracy"] > report.original["accuracy"] - 0.07
    for a, b in zip(before, trained.weights, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))


@pytest.mark.parametrize(
    ("method", "epochs"),
    [("gates", 2), slow("gates", 4), slow("group_lasso", 2)],
)
def test_a_killed_search_ends_as_an_uninterrupted_one(
    trained, tmp_path, monkeypatch, method, epochs
):
    """Killed in the search, of three epochs, or in the training after it."""
    expected, report = compress(trained, method, macs=0.5, epochs=6)
    save, number = State.save, []

    def fails(self, model, logs=None):
        save(self, model, logs)
        number.extend([0] if logs is not None else [])
        if len(number) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", fails)
        with pytest.raises(KeyboardInterrupt):
            compress(trained, method, macs=0.5, epochs=6, workdir=tmp_path)
    for _ in range(2):  # the second time it has ended
        small, again = compress(
            trained, method, macs=0.5, epochs=6, workdir=tmp_path
        )
        assert again.families == report.families
        assert len(again.history) == 6
        assert again.cut == pytest.approx(report.cut, rel=1e-4)
        for a, b in zip(expected.weights, small.weights, strict=True):
            np.testing.assert_allclose(
                to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("method", ["gates", *map(slow, PENALTIES)])
def test_convolutions_in_an_inner_model(method):
    keras.utils.set_random_seed(0)
    inner = networks.residual(8, stream=8, inner=8, outputs=5)
    inputs = keras.Input((8, 8, 3))
    h = layers.Dense(10, activation="relu", name="top")(inner(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(h))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
    )
    x = RNG.normal(size=(96, 8, 8, 3)).astype("float32")
    data = x, RNG.integers(0, 3, 96)
    small, report = ks.compress(
        model,
        data,
        data,
        macs=0.6,
        epochs=4,
        method=method,
        distill="features",
        verbose=0,
    )
    assert ks.count_macs(small).macs == report.macs_after
    assert 0 < report.macs_after <= 0.6 * report.macs
    assert np.isfinite(report.recovered["loss"])


def test_what_gates_leave_too_much_goes_by_importance(trained, monkeypatch):
    """Gates that hardly learn stay open."""
    monkeypatch.setattr("keras_sgl0.compression.search._WAY", 1e-6)
    _, report = compress(trained, "gates", macs=0.5, epochs=2)
    assert 0.45 * report.macs < report.macs_after <= 0.5 * report.macs


def test_each_gate_is_of_a_structure_of_the_model(trained):
    found = ks.structures(trained)
    search = gate_search(trained, Budget("macs", 0.5), steps=9, seed=0)
    closed = np.arange(found.size) % 3 == 0
    for gate in ks.gates.gates(search.student):
        own = closed[: gate.log_alpha.shape[0]]
        closed = closed[len(own) :]
        gate.log_alpha.assign(np.where(own, -4.0, 4.0))
    folded = search.result()
    received = ks.structures(folded).alive(ThresholdedArrays(folded, 0))
    np.testing.assert_array_equal(received, np.arange(found.size) % 3 > 0)


@pytest.mark.slow
def test_sizes_of_a_path(trained):
    found = ks.path(
        trained,
        TRAIN,
        VALIDATION,
        macs=[0.7, 0.4],
        epochs=2,
        method="group_lasso",
        verbose=0,
    )
    for report, share in zip(found.report.sizes, (0.7, 0.4), strict=True):
        assert 0.85 * share < report.macs_after / report.macs <= share


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"macs": 0.5, "method": "magic"}, "`method`. Expected one of"),
        ({"latency": 0.5, "method": "sgl0"}, "`method`.*budget of latency"),
        ({"channels": 0.5, "method": "gates"}, "`method`.*budget of channels"),
        ({"macs": 0.5, "epochs": 1}, "`epochs`. Expected .*at least 2"),
        ({"macs": 0.5, "limits": 0.5}, "`limits`"),
        ({"macs": 0.5, "minimum": 2}, "`minimum`"),
        ({"macs": 0.5, "round_to": 2}, "`round_to`"),
    ],
)
def test_refusals(trained, options, words):
    with pytest.raises(ValueError, match=words):
        compress(trained, **{"method": "group_lasso"} | options)
