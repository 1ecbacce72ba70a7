"""What a cut saves, and what the report of the structures says."""

import json

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers
from test_members import chain

import keras_sgl0 as ks
from keras_sgl0.structures.costs import MEASURES


def counted(a, b):
    """Returns the cost of `chain` with so many channels, by hand."""
    weights = 3 * a + a * b + b * 2
    # Biases, beta, moving mean and variance.
    parameters = weights + a + 3 * a + b + 2
    return {
        "macs": weights,
        "parameters": parameters,
        "weights": weights,
        "channels": a + b + 2,
    }


@pytest.mark.parametrize("measure", counted(1, 1))
def test_what_a_cut_leaves_and_saves(measure):
    found = ks.structures(chain())
    assert measure in MEASURES and len(MEASURES) == 4
    assert len(found) == found.size == 9
    assert found.families.tolist() == [0] * 4 + [1] * 5
    assert found.cost().of(measure) == counted(4, 5)[measure]
    kept = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0], bool)
    assert found.cost(kept).of(measure) == counted(3, 2)[measure]
    first = np.arange(9) < 2
    assert found.cost(first).of(measure) == counted(2, 0)[measure]
    assert found.cost_of(np.array([1, 3])).of(measure) == counted(1, 3)[measure]
    left = [counted(3, 5)[measure], counted(4, 4)[measure]]
    saved = counted(4, 5)[measure] - np.array(left)
    assert found.savings(measure).tolist() == saved.tolist()


def test_the_report():
    found = ks.structures(chain())
    report = found.report()
    first, second = report.families
    assert first.made_by == ("a",)
    assert first.through == ("norm",)
    assert first.read_by == ("b",)
    assert (second.made_by, second.read_by) == (("b",), ("head",))
    assert (first.structures, second.structures) == (4, 5)
    assert first.macs == 3 + 5 and second.macs == 4 + 2
    assert first.parameters == 3 + 5 + 4
    whole, least = counted(4, 5), counted(1, 1)
    assert (report.macs, report.parameters) == (
        whole["macs"],
        whole["parameters"],
    )
    assert report.smallest_macs == least["macs"]
    assert report.smallest_parameters == least["parameters"]
    gone = counted(0, 5)["macs"]
    assert first.share == pytest.approx(1 - gone / whole["macs"])
    assert [fixed.layer for fixed in report.fixed] == ["head"]
    assert found.to_dict() == report.to_dict()
    assert json.loads(json.dumps(found.to_dict())) is not None
    assert str(found) == str(report)
    assert found.makers(np.arange(9) == 6) == ["b", "head"]
    assert found.makers(np.zeros(9, bool)) == ["head"]
    assert found.made_by(0) == ("a",)


def test_unknown_sizes_have_parameters_and_no_macs():
    x = inputs = keras.Input((None, 3))
    x = layers.Conv1D(4, 3, name="conv")(x)
    x = layers.GlobalAveragePooling1D()(x)
    found = ks.structures(keras.Model(inputs, layers.Dense(2)(x)))
    assert found.cost().macs is None
    report = found.report()
    assert report.families[0].macs is None
    assert report.families[0].parameters == 9 + 1 + 2


def test_what_can_be_trained_to_zero():
    model = chain()
    model.get_layer("b").trainable = False
    found = ks.structures(model)
    assert found.removable().tolist() == [True] * 4 + [False] * 5
    assert found.removable(readers=True).tolist() == [True] * 9
    model.get_layer("head").trainable = False
    found = ks.structures(model)
    assert found.removable(True).tolist() == [True] * 4 + [False] * 5


@pytest.mark.parametrize(
    ("roles", "names"),
    [
        (None, {"a/kernel", "a/bias", "norm/beta", "norm/moving_mean"}),
        (("member",), {"a/kernel", "a/bias", "norm/beta"}),
        (("statistic",), {"norm/moving_mean"}),
        (("reader",), {"b/kernel"}),
    ],
)
def test_what_becomes_zero(roles, names):
    model = chain()
    found = ks.structures(model)
    dead = np.arange(9) == 2
    arguments = (dead,) if roles is None else (dead, roles)
    given = {v.path: value for v, value in found.without(*arguments)}
    assert set(given) == names
    before = {v.path: to_numpy(v).copy() for v in model.weights}
    found.zero(*arguments)
    for variable in model.weights:
        value = to_numpy(variable)
        expected = given.get(variable.path, before[variable.path])
        np.testing.assert_array_equal(value, expected)
        value = value if roles == ("reader",) else value.T
        zeros = [not row.any() for row in value]
        goes = variable.path in names
        assert zeros == [goes and i == 2 for i in range(len(zeros))]


def test_a_family_of_one_structure():
    inputs = keras.Input((3,))
    x = layers.Dense(1, name="one")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    found = ks.structures(model)
    assert found.counts.tolist() == [1]
    assert found.made_by(0) == ("one",)
    assert found.cost().parameters == model.count_params() == 8
    assert found.cost().weights == found.cost().macs == 5
    assert found.savings("parameters").tolist() == [6]
