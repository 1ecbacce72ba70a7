import math

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    QUICK,
    compile_quickly,
    to_numpy,
    two_gated_layers,
    two_towers,
)
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.gates.hard_concrete import LOG_ALPHA_RANGE, probability_active
from keras_sgl0.gates.lookup import gates

# The toy problem: gates whose closing costs `sum_g cost_g * (1 - P_g)^2`, and
# nothing else in the loss. At most a share `d` of them may be expected open:
# then `1 - P_g = m / (2 n cost_g)` with `m = 2 n (1 - d) / mean(1 / cost)`.
NAMES = ("density", "violation", "multiplier")
COSTS = np.linspace(0.8, 1.6, 8)
LOSS = "sparse_categorical_crossentropy"
SHIFT = 2 / 3 * math.log(11)


def closing_cost(log_alpha):
    closed = 1 - probability_active(log_alpha)
    return ops.sum(ops.convert_to_tensor(COSTS, "float32") * closed**2)


def known_multiplier(density):
    return 2 * 8 * (1 - density) / np.mean(1 / COSTS)


def toy(rate=5.0, costs=closing_cost, names=("dense",), **compile_arguments):
    """Returns a model of gated layers whose weights play no part."""
    model = keras.Sequential([keras.Input((8,))])
    for name in names:
        model.add(ks.HardConcrete(0.2, regularizer=costs, seed=0))
        model.add(layers.Dense(8, kernel_initializer="zeros", name=name))
    model.compile(
        keras.optimizers.SGD(rate), "mse", **(QUICK | compile_arguments)
    )
    return model


def play(model, constraint, steps, epochs=1):
    """Returns the logs of `epochs` with `steps` steps each."""
    return model.fit(
        np.zeros((steps, 8), "float32"),
        np.zeros((steps, 8), "float32"),
        batch_size=1,
        epochs=epochs,
        verbose=0,
        callbacks=[constraint],
    ).history


def recursion(log_alpha, steps, rate, density, dual_rate, restart):
    """Plays the game in NumPy; returns multipliers, densities and P."""
    multiplier, history = 0.0, []
    log_alpha = log_alpha.astype(float)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-log_alpha - SHIFT))
        violation = p.mean() - density
        slope = -2 * COSTS * (1 - p) + multiplier / 8
        log_alpha = log_alpha - rate * p * (1 - p) * slope
        log_alpha = np.clip(log_alpha, *LOG_ALPHA_RANGE)
        multiplier = max(0.0, multiplier + dual_rate * violation)
        if restart and violation < 0:
            multiplier = 0.0
        p = 1 / (1 + np.exp(-log_alpha - SHIFT))
        history.append((multiplier, p.mean()))
    return np.array(history).T


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("density", [0.7, 0.5])
def test_the_known_optimum_is_reached(density, restart):
    model = toy()
    constraint = ks.L0Constraint(density, learning_rate=1, restart=restart)
    logs = play(model, constraint, steps=150, epochs=2)
    assert logs["density"][-1] == pytest.approx(density, abs=1e-3)
    multiplier = known_multiplier(density)
    assert logs["multiplier"] == pytest.approx(2 * [multiplier], rel=0.01)
    p = to_numpy(gates(model)[0].probability_active())
    np.testing.assert_allclose(1 - p, multiplier / 16 / COSTS, atol=3e-3)


@pytest.mark.parametrize("restart", [True, False])
def test_each_step_is_that_of_the_recursion(restart):
    rate, dual_rate, density, steps = 20.0, 8.0, 0.6, 20
    model = toy(rate)
    start = to_numpy(gates(model)[0].log_alpha)
    constraint = ks.L0Constraint(density, "model", dual_rate, restart)
    logs = play(model, constraint, steps=1, epochs=steps)
    expected = recursion(start, steps, rate, density, dual_rate, restart)
    for found, name in zip(expected, ("multiplier", "density"), strict=True):
        np.testing.assert_allclose(found, logs[name], rtol=2e-3, atol=1e-3)
    violations = np.array(logs["violation"])
    np.testing.assert_allclose(violations, expected[1] - density, atol=1e-3)
    multipliers = np.array(logs["multiplier"])
    satisfied = violations[:-1] < 0
    assert satisfied.any() and not satisfied.all()
    steps_taken = np.diff(multipliers)
    ascent = dual_rate * violations[:-1]
    np.testing.assert_allclose(
        steps_taken[~satisfied], ascent[~satisfied], atol=1e-4
    )
    if restart:
        np.testing.assert_array_equal(multipliers[1:][satisfied], 0)
    else:
        assert (multipliers[1:][satisfied] > 0).any()
        assert (steps_taken[satisfied] >= ascent[satisfied] - 1e-4).all()
    assert (multipliers >= 0).all()


@pytest.mark.parametrize("restart", [True, False])
def test_a_target_that_is_met_changes_nothing(restart):
    free, held = toy(), toy()
    constraint = ks.L0Constraint(1.0, learning_rate=1, restart=restart)
    logs = play(held, constraint, steps=5, epochs=4)
    held_at = to_numpy(gates(held)[0].log_alpha)
    assert logs["multiplier"] == 4 * [0]
    assert max(logs["violation"]) < 0
    play(free, keras.callbacks.Callback(), steps=20)
    free_at = to_numpy(gates(free)[0].log_alpha)
    np.testing.assert_allclose(held_at, free_at, rtol=1e-6)


def test_a_target_out_of_reach_lets_the_multiplier_grow_without_bound():
    logs = play(toy(), ks.L0Constraint(0.01, learning_rate=5), 50, epochs=4)
    lowest = 1 / (1 + math.exp(-LOG_ALPHA_RANGE[0] - SHIFT))
    assert logs["density"][-1] == pytest.approx(lowest, rel=1e-4)
    growth = np.diff(logs["multiplier"])[1:]
    np.testing.assert_allclose(growth, 50 * 5 * (lowest - 0.01), rtol=0.01)


def train(model, images, constraint, *callbacks, **arguments):
    options = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
    return model.fit(
        *images, callbacks=[constraint, *callbacks], **(options | arguments)
    ).history


def constraint_of(density=0.3, **arguments):
    return ks.L0Constraint(density, **({"learning_rate": 0.5} | arguments))


def state(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


def test_the_density_of_the_model_weighs_gates_by_their_parameters(images):
    model = two_gated_layers()
    logs = train(model, images, constraint_of(), epochs=1)
    active = [to_numpy(g.probability_active()).sum() for g in gates(model)]
    density = (16 * active[0] + 3 * active[1]) / (16 * 12 + 3 * 16)
    assert logs["density"][0] == pytest.approx(density, rel=1e-5)
    multipliers = {float(to_numpy(g.multiplier)) for g in gates(model)}
    assert multipliers == {logs["multiplier"][0]}
    assert min(multipliers) > 0


@pytest.mark.parametrize("density", [(0.7, 0.5), {"second": 0.5, "first": 0.7}])
def test_each_layer_reaches_the_optimum_of_its_target(density):
    model = toy(names=("first", "second"))
    constraint = ks.L0Constraint(density, "layer", learning_rate=1)
    logs = play(model, constraint, steps=300)
    for name, target in (("first", 0.7), ("second", 0.5)):
        found = {k: logs[f"{k}_{name}"][0] for k in NAMES}
        assert found["density"] == pytest.approx(target, abs=1e-3)
        assert found["violation"] == found["density"] - target
        multiplier = known_multiplier(target)
        assert found["multiplier"] == pytest.approx(multiplier, rel=0.01)
    assert set(NAMES).isdisjoint(logs)


def test_one_number_is_the_target_of_every_layer(images):
    constraint = constraint_of(0.3, scope="layer")
    model = two_gated_layers()
    train(model, images, constraint, epochs=1)
    found = [(c.name, c.target, c.gates) for c in constraint.constraints]
    first, second = gates(model)
    assert found == [("first", 0.3, [first]), ("second", 0.3, [second])]


def test_a_layer_that_is_not_named_stays_free():
    held, free = (toy(names=("first", "second")) for _ in range(2))
    constraint = ks.L0Constraint({"second": 0.5}, "layer", learning_rate=1)
    logs = play(held, constraint, steps=20)
    assert {k for k in logs if k.startswith("density")} == {"density_second"}
    play(free, keras.callbacks.Callback(), steps=20)
    first, second = (
        [to_numpy(gates(model)[i].log_alpha) for model in (held, free)]
        for i in range(2)
    )
    np.testing.assert_allclose(*first, rtol=1e-6)
    assert (second[0] < second[1] - 0.1).all()
    multipliers = [float(to_numpy(g.multiplier)) for g in gates(held)]
    assert multipliers == [0, logs["multiplier_second"][0]]


def test_gates_that_share_a_layer_share_its_constraint():
    keras.utils.set_random_seed(0)
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((12,))
    both = [shared(ks.HardConcrete()(inputs)) for _ in range(2)]
    model = keras.Model(inputs, layers.Add()(both))
    compile_quickly(model, "adam", "mse")
    constraint = constraint_of({"shared": 0.2}, scope="layer")
    data = np.ones((8, 12)), np.ones((8, 3))
    logs = train(model, data, constraint, epochs=1)
    p = [to_numpy(g.probability_active()).mean() for g in gates(model)]
    assert logs["density_shared"][0] == pytest.approx(np.mean(p), rel=1e-5)


def test_frozen_gates_are_left_out(images):
    model = two_gated_layers()
    gates(model)[0].trainable = False
    compile_quickly(model, "adam", model.loss)
    constraint = constraint_of()
    train(model, images, constraint, epochs=1)
    assert constraint.constraints[0].gates == gates(model)[1:]


without_torch = pytest.mark.skipif(
    BACKEND == "torch", reason="not in Keras on PyTorch"
)


@without_torch
def test_several_steps_a_call_give_the_same_multipliers(images):
    one, four = two_gated_layers(), two_gated_layers(steps_per_execution=4)
    expected = train(one, images, constraint_of())
    found = train(four, images, constraint_of())
    assert len(set(expected["multiplier"])) == 3
    for name in ("multiplier", "density", "loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    np.testing.assert_allclose(state(one), state(four), atol=1e-4)


@without_torch
def test_xla_and_eager_steps_give_the_same_multipliers():
    def run(**how):
        constraint = ks.L0Constraint(0.6, learning_rate=8)
        return play(toy(20.0, **how), constraint, steps=5, epochs=4)

    expected = run(jit_compile=False)
    for how in ({"jit_compile": True}, {"run_eagerly": True}):
        found = run(**how)
        for name in NAMES:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_plays_the_game_in_float32(images, policy):
    if BACKEND == "torch" and policy == "mixed_float16":
        pytest.skip("no float16 matrix products on the CPU there")
    keras.config.set_dtype_policy(policy)
    try:
        model = two_gated_layers()
        logs = train(model, images, constraint_of())
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(logs["loss"]).all()
    assert {gate.multiplier.dtype for gate in gates(model)} == {"float32"}
    expected = train(two_gated_layers(), images, constraint_of())
    np.testing.assert_allclose(
        logs["multiplier"], expected["multiplier"], rtol=0.02
    )


def test_a_saved_and_loaded_run_is_the_uninterrupted_one(images, tmp_path):
    whole = two_gated_layers()
    logs = train(whole, images, constraint_of(), epochs=4)
    part = two_gated_layers()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "part.keras")
    train(part, images, constraint_of(), checkpoint, epochs=2)
    again = keras.saving.load_model(tmp_path / "part.keras")
    assert gates(again)[0].log_alpha.regularizer is None
    resumed = train(again, images, constraint_of(), epochs=4, initial_epoch=2)
    for name in ("multiplier", "density", "loss"):
        np.testing.assert_allclose(logs[name][2:], resumed[name], rtol=1e-5)
    np.testing.assert_allclose(state(whole), state(again), atol=1e-6)


def cross_entropy(model, images):
    logits = model.predict(images[0], verbose=0)
    return float(to_numpy(ops.mean(model.loss(images[1], logits))))


def test_evaluate_has_no_lagrangian_in_its_loss(images):
    model = two_gated_layers()
    logs = train(model, images, constraint_of(), validation_data=images)
    assert logs["multiplier"][-1] * logs["violation"][-1] > 0.1
    before = float(to_numpy(gates(model)[0].multiplier))
    loss = model.evaluate(*images, verbose=0)
    assert loss == pytest.approx(cross_entropy(model, images), rel=1e-5)
    assert logs["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert float(to_numpy(gates(model)[0].multiplier)) == before


def test_only_training_moves_the_multipliers(images):
    def evaluate(epoch, logs):
        seen.append(model.evaluate(*images, verbose=0))
        plain.append(cross_entropy(model, images))

    seen, plain = [], []
    behind = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    expected = train(two_gated_layers(), images, constraint_of())
    model = two_gated_layers()
    found = train(
        model, images, constraint_of(), behind, validation_data=images
    )
    np.testing.assert_allclose(found["multiplier"], expected["multiplier"])
    np.testing.assert_allclose(seen, plain, rtol=1e-5)


def test_a_second_fit_plays_its_own_game(images):
    model = two_gated_layers()
    first = train(model, images, constraint_of())
    train(model, images, keras.callbacks.Callback())
    kept = float(to_numpy(gates(model)[0].multiplier))
    assert kept == first["multiplier"][-1]
    second = train(model, images, constraint_of(0.999))
    assert second["multiplier"] == 3 * [0]
    third = train(model, images, constraint_of(0.1), epochs=1)
    assert third["violation"][0] == pytest.approx(
        third["density"][0] - 0.1, rel=1e-5
    )
    assert third["multiplier"][0] > 0


def test_a_penalty_of_the_gates_stays_in_the_loss():
    def slope(log_alpha):
        return ops.sum(log_alpha)

    model = toy(rate=0.1, costs=slope)
    before = to_numpy(gates(model)[0].log_alpha)
    play(model, ks.L0Constraint(1.0), steps=1)
    after = to_numpy(gates(model)[0].log_alpha)
    np.testing.assert_allclose(before - after, 0.1, rtol=1e-4)


def test_gates_with_a_learning_rate_of_their_own(images):
    def run(gate_rate):
        several = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1),
            {".*/log_alpha": keras.optimizers.SGD(gate_rate)},
        )
        model = two_gated_layers(
            optimizer=keras.optimizers.MultiOptimizer(several)
        )
        before = model.get_weights()
        logs = train(model, images, constraint_of())
        moved = [
            abs(a - b).max()
            for a, b in zip(before, model.get_weights(), strict=True)
        ]
        return logs["multiplier"], moved

    multipliers, moved = run(0.0)
    assert moved[0] == 0 < moved[4]
    assert multipliers[0] < multipliers[1] < multipliers[2]
    multipliers, moved = run(1e6)
    lowest, highest = LOG_ALPHA_RANGE
    assert 1 < moved[0] <= highest - lowest + 1e-5


def accumulating():
    return keras.optimizers.SGD(gradient_accumulation_steps=4)


def several():
    plain = keras.optimizers.SGD()
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(plain, {".*/log_alpha": accumulating()})
    )


def chosen():
    optimizers = {True: accumulating(), False: keras.optimizers.SGD()}
    return keras.optimizers.MultiOptimizer(
        lambda variable: optimizers["log_alpha" in variable.path]
    )


@pytest.mark.parametrize(
    "make",
    [
        accumulating,
        several,
        chosen,
        lambda: keras.optimizers.LossScaleOptimizer(accumulating()),
    ],
    ids=["alone", "several", "chosen", "loss_scale"],
)
def test_gradient_accumulation_is_refused(images, make):
    model = two_gated_layers(optimizer=make())
    with pytest.raises(ValueError) as caught:
        train(model, images, constraint_of())
    assert str(caught.value) == (
        "`L0Constraint` cannot be used with an optimizer that accumulates "
        "gradients, since the multipliers would move at every batch. "
        "Received: gradient_accumulation_steps=4"
    )


@pytest.mark.parametrize(
    ("density", "message"),
    [
        ({"third": 0.3, "first": 0.3}, r"\('first', 'second'\).*\['third'\]"),
        ({}, r"\('first', 'second'\)"),
        ((0.3,), r"one number for each gated layer: \('first', 'second'\)"),
    ],
)
def test_targets_for_other_layers_are_refused(images, density, message):
    with pytest.raises(ValueError, match=message):
        train(two_gated_layers(), images, constraint_of(density, scope="layer"))


@pytest.mark.parametrize("scope", ["model", "layer"])
def test_models_without_trainable_gates_are_refused(images, scope):
    plain = keras.Sequential([keras.Input((12,)), layers.Dense(3)])
    plain.compile("sgd", LOSS, **QUICK)
    with pytest.raises(ValueError, match="with `HardConcrete` gates"):
        train(plain, images, constraint_of(scope=scope))
    frozen = two_gated_layers()
    for gate in gates(frozen):
        gate.trainable = False
    frozen.compile("sgd", frozen.loss, **QUICK)
    with pytest.raises(ValueError, match="found no trainable gates"):
        train(frozen, images, constraint_of(scope=scope))


def test_gates_in_unclear_places_are_refused(images):
    model = keras.Sequential([keras.Input((12,)), ks.HardConcrete()])
    model.compile("sgd", LOSS, **QUICK)
    with pytest.raises(ValueError, match="not clear which weights the gates"):
        train(model, images, constraint_of())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"density": 0}, "density"),
        ({"density": 1.01}, "density"),
        ({"density": -0.1}, "density"),
        ({"density": math.nan}, "density"),
        ({"density": True}, "density"),
        ({"density": "0.1"}, "density"),
        ({"density": "0.1", "scope": "layer"}, "density"),
        ({"density": (0.1, 0.2)}, "density"),
        ({"density": (0.1, 2), "scope": "layer"}, "density"),
        ({"density": {"first": 0}, "scope": "layer"}, "density"),
        ({"density": 0.1, "scope": "global"}, "scope"),
        ({"density": 0.1, "learning_rate": -1e-4}, "learning_rate"),
        ({"density": 0.1, "learning_rate": 0}, "learning_rate"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.L0Constraint(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.L0Constraint({"conv1": 0.1})
    assert str(caught.value) == (
        "Invalid value for argument `density`. Expected one number, unless "
        "scope=\"layer\". Received: density={'conv1': 0.1}"
    )


def test_layers_of_one_name_have_a_constraint_each(images):
    constraint = ks.L0Constraint((0.3, 0.5), "layer")
    model = two_towers(gate=lambda: ks.HardConcrete(seed=1), optimizer="adam")
    logs = model.fit(*images, verbose=0, callbacks=[constraint]).history
    found = [(c.name, c.target, len(c.gates)) for c in constraint.constraints]
    assert found == [("fc", 0.3, 1), ("fc_1", 0.5, 1)]
    assert {f"{name}_fc_1" for name in NAMES} <= logs.keys()


@pytest.mark.tensorflow
def test_a_model_that_is_not_built_is_refused_and_not_spoilt(images):
    model = keras.Sequential([ks.HardConcrete(seed=0), layers.Dense(3)])
    model.compile("adam", LOSS, **QUICK)
    with pytest.raises(ValueError, match="Expected a built model"):
        model.fit(*images, verbose=0, callbacks=[ks.L0Constraint(0.5)])
    model(images[0])
    logs = model.fit(*images, verbose=0, callbacks=[ks.L0Constraint(0.5)])
    assert 0.5 < logs.history["density"][0] < 1


class TwoPasses(keras.Sequential):
    """Asks for the losses in two forward passes of each step."""

    def train_step(self, *arguments):
        step = {
            "tensorflow": self._tensorflow_step,
            "jax": self._jax_step,
            "torch": self._torch_step,
        }
        return step[BACKEND](*arguments)

    def _loss(self, data):
        x, y = data
        return self.compute_loss(x, y, self(x, training=True))

    def _tensorflow_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = (self._loss(data) + self._loss(data)) / 2
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}

    def _torch_step(self, data):
        self.zero_grad()
        loss = (self._loss(data) + self._loss(data)) / 2
        loss.backward()
        trained = self.trainable_weights
        self.optimizer.apply([v.value.grad for v in trained], trained)
        return {"loss": loss}

    def _jax_step(self, state, data):
        import jax

        trained, others, of_optimizer, metrics = state
        function = jax.value_and_grad(
            self.compute_loss_and_updates, has_aux=True
        )
        several = []
        for _ in range(2):
            (loss, aux), gradients = function(
                trained,
                others,
                metrics,
                *data,
                None,
                training=True,
                optimizer_variables=of_optimizer,
            )
            others = aux[2]
            several.append(gradients)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *several)
        trained, of_optimizer = self.optimizer.stateless_apply(
            of_optimizer, mean, trained
        )
        return {"loss": loss}, (trained, others, of_optimizer, metrics)


@pytest.mark.parametrize("restart", [True, False])
def test_two_forward_passes_make_one_dual_step(restart):
    def game(kind):
        model = kind([keras.Input((8,)), *toy(20.0).layers])
        model.compile(keras.optimizers.SGD(20.0), "mse", **QUICK)
        constraint = ks.L0Constraint(0.6, learning_rate=8, restart=restart)
        return play(model, constraint, steps=2, epochs=6)

    expected, found = game(keras.Sequential), game(TwoPasses)
    assert max(expected["multiplier"]) > 0
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_evaluate_between_batches_takes_no_dual_step(images):
    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            plain = self.model.evaluate(*images, verbose=0)
            assert plain == pytest.approx(
                cross_entropy(self.model, images), rel=1e-5
            )

    expected = train(two_gated_layers(), images, constraint_of(), epochs=1)
    found = train(
        two_gated_layers(), images, constraint_of(), Evaluate(), epochs=1
    )
    assert expected["multiplier"][0] > 0
    np.testing.assert_allclose(found["multiplier"], expected["multiplier"])


def both_kinds():
    return [
        ks.L0Constraint(0.6, "model", 3.0, restart=False),
        ks.L0Constraint({"first": 0.45}, "layer", 3.0, restart=False),
    ]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_budget_and_a_limit_for_a_layer_both_act(reverse):
    model = toy(names=("first", "second"))
    several = both_kinds()[:: -1 if reverse else 1]
    logs = model.fit(
        np.zeros((300, 8), "float32"),
        np.zeros((300, 8), "float32"),
        batch_size=1,
        epochs=2,
        verbose=0,
        callbacks=several,
    ).history
    assert logs["density"][-1] == pytest.approx(0.6, abs=1e-3)
    assert logs["density_first"][-1] == pytest.approx(0.45, abs=1e-3)
    # `1 - P_g = (m / 16 + m_first / 8) / (2 cost_g)`, by the layer's mean.
    mean = np.mean(1 / COSTS)
    multiplier = 32 * (1 - 0.75) / mean
    first = 8 * (2 * (1 - 0.45) / mean - multiplier / 16)
    assert logs["multiplier"][-1] == pytest.approx(multiplier, rel=0.01)
    assert logs["multiplier_first"][-1] == pytest.approx(first, rel=0.01)


def test_multipliers_of_two_constraints_are_saved(tmp_path):
    whole, part = (toy(names=("first", "second")) for _ in range(2))
    data = np.zeros((10, 8), "float32")

    def go(model, **arguments):
        return model.fit(
            data,
            data,
            verbose=0,
            callbacks=both_kinds(),
            **({"batch_size": 1} | arguments),
        ).history

    expected = go(whole, epochs=4)
    go(part, epochs=2)
    for layer in part.layers:
        layer.regularizer = None  # a function is not saved
    part.save(tmp_path / "part.keras")
    again = keras.saving.load_model(tmp_path / "part.keras")
    for gate, before in zip(gates(again), gates(toy()), strict=False):
        gate.log_alpha.regularizer = before.regularizer
    gates(again)[1].log_alpha.regularizer = closing_cost
    found = go(again, epochs=4, initial_epoch=2)
    for name in ("multiplier", "multiplier_first", "density"):
        assert len(set(expected[name])) == 4
        np.testing.assert_allclose(found[name], expected[name][2:], rtol=1e-4)


def test_two_constraints_of_one_kind_on_the_same_gates_are_refused(images):
    model = two_gated_layers()
    for scope, first, second in (
        ("model", 0.5, 0.3),
        ("layer", 0.5, {"first": 0.3}),
    ):
        both = [ks.L0Constraint(d, scope) for d in (first, second)]
        with pytest.raises(ValueError, match="cannot rule the same gates"):
            model.fit(*images, verbose=0, callbacks=both)
    apart = [
        ks.L0Constraint({name: 0.5}, scope="layer")
        for name in ("first", "second")
    ]
    logs = model.fit(*images, verbose=0, callbacks=apart).history
    assert {"density_first", "density_second"} <= set(logs)


def test_budgets_of_macs_and_of_parameters_both_act(images):
    model = two_gated_layers()
    several = [constraint_of(), constraint_of(of="macs")]
    logs = train(model, images, several[0], several[1], epochs=1)
    found = [logs["multiplier"][0], logs["multiplier_macs"][0]]
    assert min(found) > 0
    assert [c.number for s in several for c in s.constraints] == [0, 1]
    for gate in gates(model):
        own = [float(to_numpy(m)) for m in gate.multipliers]
        assert own == [*found, 0]
