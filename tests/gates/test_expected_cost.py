"""The expected cost in closed form against the sum over all outcomes."""

import itertools

import keras
import numpy as np
import pytest
from gated_models import Subclassed
from helpers import gradient, to_numpy
from keras import layers, ops
from structure_gates import MODELS, at_random, build, half_closed

import keras_sgl0 as ks
from keras_sgl0.gates.expected_cost import COUNTED, ExpectedCost
from keras_sgl0.gates.lookup import gates


def probabilities(model):
    p = [to_numpy(gate.probability_active()) for gate in gates(model)]
    return np.concatenate(p).astype(float)


def outcomes(p):
    """Yields flags and the probability of each outcome of gates."""
    for flags in itertools.product([False, True], repeat=len(p)):
        opened = np.array(flags)
        yield opened, np.prod(np.where(opened, p, 1 - p))


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("name", MODELS)
def test_the_expectation_is_the_sum_over_all_outcomes(name, counted):
    model = build(name)
    gated = ks.add_gates(model)
    at_random(gated)
    found, cost = ks.structures(model), ExpectedCost(gated, counted)
    expected = sum(
        weight * found.cost(opened).of(counted)
        for opened, weight in outcomes(probabilities(gated))
    )
    assert cost.total == found.cost().of(counted)
    assert float(cost.share()) == pytest.approx(expected / cost.total, rel=2e-6)


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("name", MODELS)
def test_the_cost_of_an_outcome_is_that_of_the_structures(name, counted):
    gated = ks.add_gates(build(name))
    found = ks.structures(build(name))
    closed = half_closed(gated)
    cost = ExpectedCost(gated, counted)
    assert cost.cost(~closed) == found.cost(~closed).of(counted)


def test_a_kernel_within_one_family_has_pairs_that_share_a_gate():
    """Of a 3x3 convolution 3 of 9 pairs have one gate, 6 have two."""
    gated = ks.add_gates(build("same_family"))
    at_random(gated)
    p, total = probabilities(gated), 16 * 9 * (2 * 3 + 3 * 3) + 48 * 2
    stem, head = 16 * 9 * 2 * p.sum(), 16 * 2 * p.sum()
    middle = 16 * 9 * (p.sum() ** 2 + (p * (1 - p)).sum())
    cost = ExpectedCost(gated, "macs")
    assert cost.total == total
    share = (stem + middle + head) / total
    assert float(cost.share()) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("name", ["residual", "same_family", "concatenated"])
def test_the_gradient_is_that_of_finite_differences(name):
    gated = ks.add_gates(build(name))
    at_random(gated)
    cost = ExpectedCost(gated, "macs")
    ends = np.cumsum([0] + [g.log_alpha.shape[0] for g in gates(gated)])
    places = list(itertools.pairwise(ends.tolist()))
    p = probabilities(gated).astype("float32")

    def share(values):
        return cost.share_at([values[a:b] for a, b in places])

    found = gradient(share, p)
    # In each probability the expectation is a line.
    for i in range(len(p)):
        low, high = p.copy(), p.copy()
        low[i], high[i] = 0.0, 1.0
        high, low = map(ops.convert_to_tensor, (high, low))
        difference = float(share(high)) - float(share(low))
        assert found[i] == pytest.approx(difference, abs=1e-6)
    assert (found > 0).all()


def test_gates_of_layers():
    model = ks.models.LeNet5Caffe(gate=lambda *_: ks.HardConcrete())
    at_random(model)
    maps, more, inputs, hidden = (
        to_numpy(gate.probability_active()) for gate in gates(model)
    )
    # Input i of fc1 belongs to map i % 50, which has a gate of its own.
    rows = (inputs * np.tile(more, 16)).sum()
    macs = (
        576 * 25 * maps.sum()
        + 64 * 25 * maps.sum() * more.sum()
        + rows * hidden.sum()
        + hidden.sum() * 10
    )
    cost = ExpectedCost(model, "macs")
    assert cost.total == 2_293_000
    assert float(cost.share()) == pytest.approx(macs / cost.total, rel=1e-5)
    report = ks.gate_report(model)
    assert report.macs == 2_293_000
    assert report.macs_density == pytest.approx(float(cost.share()))


def test_gated_inputs_count_too():
    model = ks.models.MLP((8,), 3, widths=(6, 5), gate=lambda *_: gate())
    at_random(model)
    sums = [to_numpy(g.probability_active()).sum() for g in gates(model)]
    macs = sums[0] * sums[1] + sums[1] * sums[2] + sums[2] * 3
    share = float(ExpectedCost(model, "macs").share())
    assert share == pytest.approx(macs / (8 * 6 + 6 * 5 + 5 * 3), rel=1e-5)


def gate():
    return ks.HardConcrete()


def test_a_channel_that_also_goes_another_way_depends_on_no_gate():
    x = inputs = keras.Input((4,))
    x = layers.Dense(3, "relu")(x)
    x = layers.Add()([gate()(x), x])
    model = keras.Model(inputs, layers.Dense(2)(x))
    cost = ExpectedCost(model, "macs")
    assert float(cost.share()) == 1
    assert cost.without_gates() == ["dense", "dense_1"]


def test_the_least_share_and_what_has_no_gates():
    gated = ks.add_gates(build("residual"))
    cost = ExpectedCost(gated, "macs")
    least = 1 / (1 + 100 * 11 ** (-2 / 3))
    p = np.full(7, least)
    expected = sum(weight * cost.cost(opened) for opened, weight in outcomes(p))
    assert cost.least_share() == pytest.approx(expected / cost.total, rel=1e-5)
    assert cost.without_gates() == ["head"]
    gates(gated)[0].trainable = False
    assert cost.least_share() > expected / cost.total


def test_models_that_cannot_be_counted():
    unsized = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    gated = ks.add_gates(unsized)
    with pytest.raises(ValueError, match="inputs have known sizes"):
        ExpectedCost(gated, "macs")
    assert ExpectedCost(gated, "parameters").total == unsized.count_params()
    report = ks.gate_report(gated)
    assert (report.macs, report.macs_density) == (None, None)
    assert "multiply-adds" not in str(report)
    alone = keras.Sequential([keras.Input((4,)), gate()])
    with pytest.raises(ValueError, match="a model with kernels, to count"):
        ExpectedCost(alone, "macs")
    subclassed = Subclassed()
    with pytest.raises(ValueError, match="a built model"):
        ExpectedCost(subclassed, "macs")
    subclassed(np.ones((1, 8), "float32"))
    assert ExpectedCost(subclassed, "macs").total == 24
