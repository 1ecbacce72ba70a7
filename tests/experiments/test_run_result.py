"""A result is read and written without loss."""

import dataclasses
import json
import pathlib

import pytest

from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.results import read_result
from keras_sgl0.experiments.run_result import RunResult, Shrunk

pytestmark = pytest.mark.tensorflow

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
SMALLEST = {
    "weight_sparsity": 90.0,
    "neuron_sparsity": 60.0,
    "test_error": 1.0,
    "recipe": {},
    "seed": 0,
}


def test_every_committed_result_round_trips():
    paths = list(RESULTS.rglob("result.json"))
    assert len(paths) > 100
    for path in paths:
        values = json.loads(path.read_text())
        result = RunResult.from_dict(values)
        assert result.to_dict() == values
        assert not result.others
        read = read_result(path.parent).to_dict()
        added = read.keys() - values.keys()
        assert added <= {"best_test_error"}
        assert {name: read[name] for name in values} == values | {
            "recipe": upgrade_settings(values["recipe"])
        }


def test_the_smallest_result_round_trips():
    result = RunResult.from_dict(SMALLEST)
    assert result.to_dict() == SMALLEST
    assert result.shrunk is None
    assert result.gates is None


def test_unknown_keys_are_kept():
    values = SMALLEST | {"energy": 3}
    result = RunResult.from_dict(values)
    assert result.others == {"energy": 3}
    assert result.to_dict() == values


@pytest.mark.parametrize(
    "shrunk",
    [
        Shrunk(problem="MemoryError: too large"),
        Shrunk(
            parameters=10,
            parameters_after=5,
            relative_difference=0.0,
            test_error=1.0,
        ),
    ],
)
def test_shrunk_round_trips(shrunk):
    result = RunResult.from_dict(SMALLEST)
    result = dataclasses.replace(result, shrunk=shrunk)
    assert RunResult.from_dict(result.to_dict()) == result
    assert ("macs" in shrunk.to_dict()) == (shrunk.problem is None)


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_required_keys(name):
    values = {key: SMALLEST[key] for key in SMALLEST if key != name}
    with pytest.raises(KeyError, match=name):
        RunResult.from_dict(values)


@pytest.mark.parametrize("values", [[], SMALLEST | {"shrunk": {"size": 1}}])
def test_malformed_values(values):
    with pytest.raises(TypeError):
        RunResult.from_dict(values)


def test_a_figure_must_be_a_number():
    with pytest.raises(ValueError, match="could not convert"):
        RunResult.from_dict(SMALLEST | {"test_error": "low"})
