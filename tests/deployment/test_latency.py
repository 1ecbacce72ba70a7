import json
import time

import keras
import numpy as np
import pytest
from helpers import scramble, two_layers

import keras_sgl0 as ks
from keras_sgl0.deployment.comparison import compare
from keras_sgl0.deployment.latency import compare_latency, take_turns
from keras_sgl0.deployment.report import Change, Comparison
from keras_sgl0.deployment.runtimes import running
from keras_sgl0.network.probing import random_inputs


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what the test adds to it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def taking(clock, *seconds, calls=None):
    """Returns a function that takes so long, the last time ever after."""
    seconds = list(seconds)

    def function():
        clock[0] += seconds.pop(0) if len(seconds) > 1 else seconds[0]
        if calls is not None:
            calls.append(function)

    return function


def test_functions_take_turns_after_a_call_that_is_not_timed(clock):
    calls = []
    a = taking(clock, 60, 1, calls=calls)
    b = taking(clock, 60, 2, 2, 4, 4, 8, calls=calls)
    times = take_turns({"a": a, "b": b}, rounds=3, calls=2)
    assert times == {"a": [1, 1, 1], "b": [2, 4, 8]}
    assert calls == [a, b, *3 * [a, a, b, b]]


def test_a_turn_takes_a_millisecond(clock):
    calls = []
    quick = taking(clock, 60, 0.0001, calls=calls)
    slow = taking(clock, 60, 5, calls=calls)
    take_turns({"quick": quick, "slow": slow}, rounds=3)
    assert calls.count(quick) == 2 + 3 * 10
    assert calls.count(slow) == 2 + 3


def test_another_clock_may_tell_the_time(clock):
    runs = taking(clock, 60, 1, 3)
    times = take_turns({"a": runs}, 2, 1, clock=lambda: 2 * clock[0])
    assert times == {"a": [2, 6]}


def test_latency_is_a_median_and_so_is_its_ratio(clock):
    before = taking(clock, 60, 1, 6, 9, 2)
    after = taking(clock, 60, 1, 1, 3, 2)
    change = compare_latency("it", before, after, rounds=3)
    assert change == Change("it", 6000, 2000, "ms", 3, (2.0, 4.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"rounds": 0},
            "Invalid value for argument `rounds`. Expected an integer of at "
            "least 1. Received: rounds=0",
        ),
        (
            {"calls": 1.5},
            "Invalid value for argument `calls`. Expected an integer of at "
            "least 1. Received: calls=1.5",
        ),
    ],
    ids=["rounds", "calls"],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as caught:
        take_turns({"it": int}, **arguments)
    assert str(caught.value) == message


def test_two_models_side_by_side(tmp_path):
    model = scramble(two_layers(None))
    small, report = ks.shrink(model, 0)
    comparison = compare(
        model,
        small,
        tmp_path / "new",
        format="keras",
        error=lambda m: 12.5 if m is model else 25,
        batch_sizes=[1, 3],
        rounds=2,
    )
    counts, macs, error, size, *latencies = comparison.changes
    assert counts == Change.between(
        "parameters", model.count_params(), small.count_params()
    )
    assert macs == Change.between(
        "multiply-adds", report.macs, report.macs_after
    )
    assert error == Change("test error", 12.5, 25, "%")
    assert (size.name, size.unit) == ("keras file", "bytes")
    assert size.after == (tmp_path / "new" / "shrunk.keras").stat().st_size
    backend = keras.backend.backend()
    assert [c.name for c in latencies] == [
        f"{backend}, batch {n}" for n in (1, 3)
    ]
    assert all(c.before > 0 and c.ratio > 0 for c in latencies)
    (file,) = comparison.files
    assert str(comparison).endswith(str(file)) and "new/shrunk" in str(file)
    content = json.loads(json.dumps(comparison.to_dict()))
    assert content["files"] == [file.to_dict()]
    assert content["changes"][2] == {
        "name": "test error",
        "before": 12.5,
        "after": 25,
        "unit": "%",
        "ratio": None,
        "spread": None,
    }


@pytest.mark.tensorflow
def test_exported_files_are_timed_in_their_runtimes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = scramble(two_layers(None))
    small, _ = ks.shrink(model, 0)
    comparison = compare(
        model, small, format="litert", batch_sizes=[2], rounds=2
    )
    assert comparison.files == () and list(tmp_path.iterdir()) == []
    assert [c.name for c in comparison.changes[-2:]] == [
        "tensorflow, batch 2",
        "litert, batch 2",
    ]


@pytest.mark.tensorflow
def test_a_batch_size_of_the_models_own_is_the_one_measured():
    inputs = keras.Input(batch_shape=(3, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    for given in (None, np.ones((5, 4), "float32")):
        comparison = compare(model, model, inputs=given, rounds=1)
        assert [c.name for c in comparison.changes[-2:]] == [
            "tensorflow, batch 3",
            "litert, batch 3",
        ]
    assert compare(model, model, batch_sizes=[]).changes[-1].unit == "bytes"


@pytest.fixture
def recurrent():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 3)), keras.layers.LSTM(5), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    return model


@pytest.mark.tensorflow
def test_a_file_that_cannot_be_run_is_compared_by_its_size(recurrent):
    comparison = compare(recurrent, recurrent, rounds=1, batch_sizes=[1])
    names = [c.name for c in comparison.changes]
    assert "litert file" in names and "litert, batch 1" not in names
    (remark,) = comparison.remarks
    assert remark.startswith("litert was not run: LiteRT does not know all")
    assert remark in str(comparison)
    assert comparison.to_dict()["remarks"] == [remark]


@pytest.mark.tensorflow
def test_a_budget_of_latency_needs_a_runtime_that_can_run(recurrent):
    data = np.ones((4, 4, 3)), np.ones((4, 2))
    with pytest.raises(ValueError, match=r"`runtime`.*unroll=True"):
        ks.compress(recurrent, data, latency=0.5, runtime="litert", epochs=0)


@pytest.mark.tensorflow
def test_many_models_run_without_a_warning_of_tracing(caplog):
    model = scramble(two_layers(None))
    with caplog.at_level("WARNING", "tensorflow"):
        for n in range(1, 7):
            running(model, random_inputs(model.inputs[0], n))()
    assert not caplog.records


def test_given_inputs_are_repeated_to_a_batch(monkeypatch):
    inputs = {
        "table": keras.Input((2,), name="table"),
        "word": keras.Input((), name="word", dtype="int32"),
    }
    words = keras.layers.Embedding(9, 4)(inputs["word"])
    both = keras.layers.Concatenate()([inputs["table"], words])
    model = keras.Model(inputs, keras.layers.Dense(1)(both))
    seen = []
    monkeypatch.setattr(
        "keras_sgl0.deployment.comparison.running",
        lambda model, x: seen.append(x) or list,
    )
    given = {"table": np.arange(6.0).reshape(3, 2), "word": np.arange(3)}
    compare(model, model, None, [], given, batch_sizes=[2, 4], rounds=1)
    before, _, repeated, _ = seen
    np.testing.assert_array_equal(before["word"], [0, 1])
    np.testing.assert_array_equal(repeated["word"], [0, 1, 2, 0])
    np.testing.assert_array_equal(repeated["table"][[0, 3]], [[0, 1]] * 2)
    with pytest.raises(ValueError, match="`inputs`"):
        compare(model, model, inputs=np.ones((2, 2)))


def test_sizes_that_are_not_known_cost_no_crash(tmp_path):
    x = keras.Input((None, 3))
    y = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(4, 3)(x))
    model = scramble(keras.Model(x, y))
    small, _ = ks.shrink(model, 0)
    comparison = compare(model, small, tmp_path, format=[], rounds=1)
    assert comparison.changes[1] == Change("multiply-adds", None, None)
    assert "?" in str(comparison)


def test_a_comparison_prints_as_a_table():
    changes = (
        Change.between("parameters", 431080, 43108),
        Change.between("keras file", 1000, 300, "bytes"),
        Change("test error", 0.8125, 0.8, "%"),
        Change("tensorflow, batch 1", 1.23456, 0.1, "ms", 12.25),
        Change("litert, batch 1", 1.5, 0.5, "ms", 3.0, (2.5, 3.125)),
    )
    lines = str(Comparison(changes)).splitlines()
    assert lines.pop().startswith(" ms are medians; their ratio is the median")
    assert "medians" not in str(Comparison(changes[:3]))
    assert [line.split() for line in lines[:1] + lines[2:]] == [
        ["before", "after", "ratio", "quartiles"],
        ["parameters", "431,080", "43,108", "10.00"],
        ["keras", "file,", "bytes", "1,000", "300", "3.33"],
        ["test", "error,", "%", "0.81", "0.80"],
        ["tensorflow,", "batch", "1,", "ms", "1.235", "0.100", "12.25"],
        ["litert,", "batch", "1,", "ms", "1.500", "0.500", "3.00", "2.50-3.12"],
    ]
    assert "quartiles" not in str(Comparison(changes[:4]))
