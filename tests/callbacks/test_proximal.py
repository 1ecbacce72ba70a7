import keras
import numpy as np
import pytest
from helpers import BACKEND, QUICK, to_numpy, two_layers

import keras_sgl0 as ks
from keras_sgl0.callbacks.proximal import ProximalConstraint

GROUPS, SIZE = 10, 5


@pytest.fixture(scope="module")
def regression():
    """Returns 200 rows of 10 groups of 5 features; three groups count."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, SIZE, GROUPS))
    truth = np.zeros((SIZE, GROUPS))
    truth[:, [1, 4, 8]] = rng.normal(size=(SIZE, 3))
    truth[0, 4] = 0
    y = np.einsum("nij,ij->n", x, truth) + 0.1 * rng.normal(size=200)
    return x, y


def solve(x, y, factor, l1):
    """Minimises mean squared error plus penalty by ISTA, in float64."""
    w = np.zeros((SIZE, GROUPS))
    step = 0.5 / np.linalg.norm(x.reshape(200, -1), 2) ** 2 * 200
    for _ in range(5000):
        w = w - step * slope(x, y, w)
        w = np.sign(w) * np.maximum(abs(w) - step * factor * l1, 0)
        norms = np.maximum(np.linalg.norm(w, axis=0), 1e-300)
        w = w * np.maximum(0, 1 - step * factor * SIZE**0.5 / norms)
    return w


def slope(x, y, w):
    residual = np.einsum("nij,ij->n", x, w) - y
    return 2 / len(y) * np.einsum("n,nij->ij", residual, x)


def train(x, y, penalty):
    """Trains the same problem in Keras: a convolution with one output."""
    # Groups are the input channels of the kernel (5, 10, 1): axis 1.
    model = keras.Sequential(
        [
            keras.Input((SIZE, GROUPS)),
            keras.layers.Conv1D(
                1, SIZE, use_bias=False, kernel_regularizer=penalty
            ),
            keras.layers.Flatten(),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
    steps = 50
    model.fit(
        np.tile(x, (steps, 1, 1)).astype("float32"),
        np.tile(y, steps).astype("float32")[:, None],
        batch_size=len(y),
        epochs=8,
        shuffle=False,
        verbose=0,
        callbacks=[ks.ProximalStep()],
    )
    return to_numpy(model.layers[0].kernel)[:, :, 0].astype(float)


@pytest.mark.parametrize(
    ("penalty", "l1"),
    [(ks.GroupLasso, 0), (ks.SparseGroupLasso, 1)],
    ids=["group_lasso", "sparse_group_lasso"],
)
def test_sparse_regression_reaches_the_optimality_conditions(
    regression, penalty, l1
):
    x, y = regression
    factor = 0.2
    optimum = solve(x, y, factor, l1)
    w = train(x, y, penalty(factor, axis=1))
    zero = ~optimum.any(axis=0)
    assert 0 < zero.sum() < GROUPS
    np.testing.assert_array_equal(~w.any(axis=0), zero)
    np.testing.assert_array_equal(w == 0, optimum == 0)
    if l1:
        assert (w[:, ~zero] == 0).any(), "no weight alone is zero"
    np.testing.assert_allclose(w, optimum, atol=1e-4)

    # 0 is in the subdifferential, group by group.
    gradient, limit = slope(x, y, w), factor * SIZE**0.5
    soft = np.sign(gradient) * np.maximum(abs(gradient) - factor * l1, 0)
    assert (np.linalg.norm(soft[:, zero], axis=0) <= limit + 1e-4).all()
    direction = w[:, ~zero] / np.linalg.norm(w[:, ~zero], axis=0)
    alive = w[:, ~zero] != 0
    rest = gradient[:, ~zero] + limit * direction
    rest = rest + factor * l1 * np.sign(w[:, ~zero])
    assert abs(rest[alive]).max() < 1e-4
    if l1:
        assert abs(gradient[:, ~zero][~alive]).max() <= factor + 1e-4


def fit(penalty, images, rate=0.1, callbacks=(), epochs=3, **arguments):
    optimizer = keras.optimizers.SGD(rate)
    model = two_layers(penalty, optimizer, **arguments)
    history = model.fit(
        *images,
        epochs=epochs,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, ks.ProximalStep()],
    ).history
    return model, history


PENALTIES = [
    ks.GroupLasso(0.1),
    ks.SparseGroupLasso(0.02),
    ks.SGL0(0.02),
    ks.CGES(0.1, mu=0.5),
    ks.ExclusiveLasso(0.2),
    ks.L0(0.02),
    ks.L1(0.1),
    ks.TransformedL1(0.05),
    ks.LHalf(0.05),
    ks.SCAD(0.1),
    ks.MCP(0.1),
    ks.L1MinusL2(0.1),
]


@pytest.mark.parametrize(
    "penalty", PENALTIES, ids=[type(p).__name__ for p in PENALTIES]
)
def test_every_penalty_gives_exact_zeros(images, penalty):
    model, history = fit(penalty, images, epochs=10)
    assert ks.weight_sparsity(model, tolerance=0) > 0.05
    assert np.isfinite(history["loss"]).all()


def test_apply_threshold_changes_no_output(images):
    model, _ = fit(ks.SGL0(0.05), images, epochs=10)
    assert ks.neuron_sparsity(model, tolerance=0) > 0.1
    before = model.predict(images[0], verbose=0)
    after = ks.apply_threshold(model).predict(images[0], verbose=0)
    np.testing.assert_array_equal(before, after)


def test_one_step_is_a_gradient_step_and_the_prox(images):
    rate, penalty = 0.1, ks.SparseGroupLasso(0.05)
    plain = two_layers(None, keras.optimizers.SGD(rate))
    plain.fit(*images, batch_size=64, verbose=0)
    model = two_layers(penalty, keras.optimizers.SGD(rate))
    model.fit(*images, batch_size=64, verbose=0, callbacks=[ks.ProximalStep()])
    for ours, theirs in zip(model.layers, plain.layers, strict=True):
        expected = to_numpy(penalty.prox(theirs.kernel, rate))
        np.testing.assert_allclose(to_numpy(ours.kernel), expected, atol=1e-7)
        np.testing.assert_array_equal(
            to_numpy(ours.bias), to_numpy(theirs.bias)
        )


def test_it_follows_a_scheduler_and_a_schedule(images):
    penalty, rates = ks.GroupLasso(0.02), [0.2, 0.05, 0.01]
    scheduler = keras.callbacks.LearningRateScheduler(
        lambda epoch, _: rates[epoch]
    )
    scheduled, _ = fit(penalty, images, callbacks=[scheduler])
    pieces = keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], rates)
    piecewise, _ = fit(penalty, images, rate=pieces)
    for a, b in zip(
        scheduled.get_weights(), piecewise.get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [{"steps_per_execution": 4}, {"run_eagerly": True}, {"jit_compile": True}],
)
def test_every_way_to_compile(images, how):
    if BACKEND == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras has no steps_per_execution on PyTorch")
    usual, _ = fit(ks.SGL0(0.02), images)
    other, _ = fit(ks.SGL0(0.02), images, **how)
    for a, b in zip(usual.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_loss_shows_the_penalty_and_the_model_keeps_it(images):
    model, history = fit(ks.SGL0(0.02), images, rate=1e-9)
    assert history["loss"][0] == pytest.approx(
        model.evaluate(*images, verbose=0), rel=1e-4
    )
    for layer in model.layers:
        assert type(layer.kernel.regularizer) is ks.SGL0
        assert layer.kernel.constraint is None


def test_a_second_fit_without_it_trains_by_the_subgradient(images):
    model, _ = fit(ks.GroupLasso(0.1), images, epochs=10)
    dead = ~to_numpy(model.layers[0].kernel).any(axis=0)
    assert dead.any()
    model.fit(*images, epochs=3, verbose=0)
    loss = model.evaluate(*images, verbose=0)
    clone = two_layers(ks.GroupLasso(0.1))
    clone.set_weights(model.get_weights())
    assert loss == pytest.approx(clone.evaluate(*images, verbose=0), rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_low_precision_policies(images, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model, history = fit(ks.SGL0(0.05), images, epochs=10)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert ks.weight_sparsity(model, tolerance=0) > 0


def test_a_model_without_such_a_penalty_is_refused(images):
    with pytest.raises(ValueError) as caught:
        fit(keras.regularizers.L2(0.1), images)
    assert str(caught.value) == (
        "`ProximalStep` found no trainable variable with a regularizer that "
        "it can train. Pass one such as `SGL0` as `kernel_regularizer` and "
        "keep the layer trainable. Received a model with the regularizers: "
        "['L2']"
    )


def test_what_cannot_be_right_is_refused(images):
    with pytest.raises(ValueError, match="is not known"):
        fit(ks.SparseGroupTransformedL1(0.1), images)
    with pytest.raises(ValueError, match="needs `step` less than `gamma`"):
        fit(ks.MCP(0.1, gamma=0.05), images)
    model = two_layers(ks.L1(0.1))
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="has a constraint of its own"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = two_layers(ks.L1(0.1), accumulating)
    expected = "ProximalStep` .*gradient_accumulation_steps=2"
    with pytest.raises(ValueError, match=expected):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])


def test_a_strength_multiplies_the_step():
    w = np.array([0.5, -1.5, 2.5], "float32")
    constraint = ProximalConstraint(ks.L1(0.4), keras.optimizers.SGD(0.5))
    np.testing.assert_allclose(to_numpy(constraint(w)), [0.3, -1.3, 2.3])
    found = to_numpy(constraint.prox(w, 5.0))
    np.testing.assert_allclose(found, [0, -0.5, 1.5], rtol=1e-6)


def test_what_is_refused_is_lent_nothing(images):
    penalty = ks.SparseGroupTransformedL1(0.1)
    model = two_layers(penalty)
    with pytest.raises(ValueError, match="is not known"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])
    for layer in model.layers:
        assert layer.kernel.regularizer is penalty
        assert layer.kernel.constraint is None


def test_averages_of_weights_keep_the_zeros(images):
    raw = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: raw.append(
            to_numpy(model.layers[0].kernel)
        )
    )
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = two_layers(ks.L1(0.1), optimizer)
    callbacks = [ks.ProximalStep(), keep]
    model.fit(*images, epochs=3, verbose=0, callbacks=callbacks)
    averages = to_numpy(model.layers[0].kernel)
    assert (raw[-1] == 0).any()
    np.testing.assert_array_equal(averages[raw[-1] == 0], 0)
