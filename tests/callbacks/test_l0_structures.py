"""A constraint on what structures and multiply-adds are expected to cost."""

import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy
from keras import layers
from structure_gates import at_random, build

import keras_sgl0 as ks
from keras_sgl0.gates.expected_cost import ExpectedCost
from keras_sgl0.gates.lookup import gates


@pytest.fixture(scope="module")
def digits():
    """Ten classes, told apart by where an image is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    patterns = rng.random((10, 8, 8, 1)) > 0.5
    noise = rng.normal(size=(512, 8, 8, 1))
    return (patterns[labels] + 0.3 * noise).astype("float32"), labels


def small_lenet():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(24, activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
        ]
    )


def compiled(model, optimizer=None, **options):
    model.compile(
        optimizer or keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **(QUICK | options),
    )
    return model


def train(model, data, *callbacks, epochs=1):
    return model.fit(
        *data, batch_size=32, epochs=epochs, verbose=0, callbacks=[*callbacks]
    ).history


def test_the_target_is_met(digits):
    gates_own = {".*/log_alpha": keras.optimizers.SGD(10.0)}
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01), gates_own)
    )
    model = compiled(ks.add_gates(small_lenet(), seed=0), optimizer)
    constraint = ks.L0Constraint(0.3, learning_rate=0.2, of="macs")
    logs = train(model, digits, constraint, epochs=40)
    assert logs["density"][-1] == pytest.approx(0.3, rel=0.02)
    share = float(ExpectedCost(model, "macs").share())
    assert logs["density"][-1] == pytest.approx(share, rel=1e-6)
    report = ks.gate_report(model)
    assert report.macs_density == pytest.approx(share, rel=1e-6)
    _, shrunk = ks.shrink(model, tolerance=0)
    assert shrunk.relative_difference < 1e-5
    assert shrunk.macs_after < 0.4 * shrunk.macs


@pytest.mark.parametrize("of", ["macs", "parameters"])
def test_a_step_follows_the_gradient_of_the_expectation(of):
    """The last kernel is zero, so that only the constraint moves gates."""
    model = build("residual")
    model.get_layer("head").kernel.assign(np.zeros((3, 2)))
    gated = ks.add_gates(model)
    at_random(gated)
    gated.compile(keras.optimizers.SGD(1.0), "mse", **QUICK)
    for gate in gates(gated):
        gate.multiplier.assign(0.5)
    cost = ExpectedCost(gated, of)
    before = [to_numpy(gate.log_alpha) for gate in gates(gated)]
    p = [to_numpy(gate.probability_active()) for gate in gates(gated)]
    slopes = []
    for i, own in enumerate(p):
        for j in range(len(own)):
            ends = []
            for value in (0.0, 1.0):
                changed = [q.copy() for q in p]
                changed[i][j] = value
                tensors = map(keras.ops.convert_to_tensor, changed)
                ends.append(float(cost.share_at(list(tensors))))
            slopes.append((ends[1] - ends[0]) * own[j] * (1 - own[j]))
    share = float(cost.share())
    constraint = ks.L0Constraint(0.5, learning_rate=0.25, of=of)
    x, y = np.ones((2, 6, 6, 3), "float32"), np.zeros((2, 2), "float32")
    gated.fit(x, y, verbose=0, callbacks=[constraint])
    steps = np.concatenate(
        [
            a - to_numpy(g.log_alpha)
            for a, g in zip(before, gates(gated), strict=True)
        ]
    )
    np.testing.assert_allclose(steps, 0.5 * np.array(slopes), atol=2e-6)
    multipliers = [float(to_numpy(g.multiplier)) for g in gates(gated)]
    raised = 0.5 + 0.25 * (share - 0.5)
    assert multipliers == pytest.approx([raised] * 2, rel=1e-5)


def test_multiply_adds_of_gates_on_layers(digits):
    images, labels = np.tile(digits[0], (1, 1, 1, 1)), digits[1]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            ks.HardConcrete(seed=0),
            layers.Flatten(),
            ks.HardConcrete(seed=1),
            layers.Dense(10, name="fc2"),
        ]
    )
    constraint = ks.L0Constraint(0.4, learning_rate=0.05, of="macs")
    logs = train(compiled(model), (images, labels), constraint, epochs=5)
    first, second = (to_numpy(g.probability_active()) for g in gates(model))
    rows = second * np.tile(first, 36)
    macs = 36 * 9 * first.sum() + 10 * rows.sum()
    total = 36 * 9 * 8 + 10 * 288
    assert logs["density"][-1] == pytest.approx(macs / total, rel=1e-5)


def test_layers_are_families(digits):
    model = compiled(ks.add_gates(small_lenet(), seed=0))
    targets = {"conv1_gates": 0.5, "fc1_gates": 0.3}
    constraint = ks.L0Constraint(targets, "layer", 0.5)
    logs = train(model, digits, constraint, epochs=2)
    first, _, last = gates(model)
    for gate, name in ((first, "conv1_gates"), (last, "fc1_gates")):
        p = to_numpy(gate.probability_active())
        assert logs[f"density_{name}"][-1] == pytest.approx(p.mean(), rel=1e-5)
    with pytest.raises(ValueError, match="names of gated layers"):
        train(model, digits, ks.L0Constraint({"conv1": 0.5}, "layer"))


def test_a_target_below_what_has_no_gates_is_refused(digits):
    model = compiled(ks.add_gates(small_lenet()))
    with pytest.raises(ValueError) as caught:
        train(model, digits, ks.L0Constraint(0.001, of="macs"))
    least = ExpectedCost(model, "macs").least_share()
    assert str(caught.value) == (
        f"Invalid value for argument `density`. Expected at least {least:.4f}, "
        "the share of the macs that is expected to be left with all gates as "
        "closed as they get. Without gates are `fc2`. Received: density=0.001"
    )


def test_what_cannot_be_counted_is_refused(digits):
    x = inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    with pytest.raises(ValueError, match="inputs have known sizes"):
        train(
            compiled(ks.add_gates(model)),
            digits,
            ks.L0Constraint(0.5, of="macs"),
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"of": "weights"},
        {"of": None},
        {"of": "macs", "scope": "layer"},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="argument `of`"):
        ks.L0Constraint(0.5, **arguments)
