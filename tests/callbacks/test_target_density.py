import math

import keras
import numpy as np
import pytest
from densities import (
    SIZE,
    WAYS,
    adam,
    build,
    density_of,
    kernels_of,
    run,
    sgd,
    state,
    train,
)
from helpers import BACKEND, QUICK, compile_quickly, to_numpy, two_layers

import keras_sgl0 as ks


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1])
@pytest.mark.parametrize("way", WAYS)
def test_the_target_is_met(images, way, density):
    model, logs = run(way, images, ks.TargetDensity(density))
    found = density_of(model)
    # A group of the second layer has 16 weights. On JAX, steered once an
    # epoch, a proximal step may kill more.
    slack = {"group_lasso": 16 / SIZE}.get(way, 2 / SIZE)
    if BACKEND == "jax":
        slack = density / 2
    assert density - slack <= found <= density
    assert logs["density"][-1] == found
    assert logs["strength"][-1] == 0 < logs["strength"][0]
    if way == "group_lasso":
        for kernel in kernels_of(model):
            alive = kernel.any(axis=0)
            assert kernel[:, alive].all()


def test_penalties_that_act_inside_groups_are_cut_weight_by_weight(images):
    for penalty in (ks.ExclusiveLasso(0.01), ks.CGES(0.01)):
        model = two_layers(penalty, adam())
        train(model, images, ks.TargetDensity(0.2), epochs=3)
        assert density_of(model) == pytest.approx(0.2)
        kernel = kernels_of(model)[0]
        partly = kernel.any(axis=0) & ~kernel.all(axis=0)
        assert partly.any()


@pytest.mark.parametrize(
    ("penalty", "cut"),
    [(ks.SparseGroupLasso(0.01), (0, 1)), (ks.L1(0.01), (0, 0))],
)
def test_a_sparse_group_is_cut_where_its_group_is_weak(images, penalty, cut):
    model = two_layers(penalty, keras.optimizers.SGD(0.0))
    values = np.zeros((12, 16))
    values[:, 0] = 1.0
    values[0, :2] = 0.8, 0.9  # the second is alone in its group
    model.layers[0].kernel.assign(values)
    model.layers[1].kernel.assign(np.ones((16, 3)))
    train(model, images, ks.TargetDensity(60 / SIZE, settle=0.01), epochs=1)
    values[cut] = 0.0
    np.testing.assert_array_equal(kernels_of(model)[0] != 0, values != 0)


class Record(keras.callbacks.Callback):
    """Keeps the weights and the strength of every epoch's beginning."""

    def __init__(self, target):
        super().__init__()
        self.target = target
        self.weights, self.strengths, self.settled = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())
        self.strengths.append(float(to_numpy(self.target.strength)))
        self.settled.append(self.target.settled)


def alive_share(weights):
    """Returns the density as the first phase counts it."""
    return (
        sum(
            np.count_nonzero(abs(kernel) > 0.02 * math.sqrt(2 / len(kernel)))
            for kernel in weights[::2]
        )
        / SIZE
    )


def strength_of(weights, done, density, settle):
    if done >= settle:
        return 0
    path = density + (1 - density) * (1 - done / settle) ** 3
    return min((alive_share(weights) / path) ** 5, 100)


@pytest.mark.parametrize("way", ["group_lasso", "sparse_group_lasso_proximal"])
def test_the_loss_has_the_strength_of_the_formula_and_then_none(images, way):
    target = ks.TargetDensity(0.5, settle=0.6)
    record = Record(target)
    model, logs = run(way, images, target, record, batch_size=64)
    assert record.settled == 6 * [False] + 4 * [True]
    assert len(set(record.strengths)) > 4
    penalty = WAYS[way][0]
    for epoch, weights in enumerate(record.weights):
        strength = record.strengths[epoch]
        expected = 0
        if epoch < 6:
            expected = strength_of(weights, epoch / 10, 0.5, 0.6)
        assert strength == pytest.approx(expected, rel=1e-5)
        model.set_weights(weights)
        plain = model.evaluate(*images, verbose=0, batch_size=64)
        value = sum(float(penalty(layer.kernel)) for layer in model.layers)
        loss = plain + (strength - 1) * value
        assert logs["loss"][epoch] == pytest.approx(loss, rel=1e-4)


def test_the_strength_of_the_first_steps_to_the_digit(images):
    # 21 of 240 weights are dead at the start: (219/240 / path)^5.
    target = ks.TargetDensity(0.5, settle=0.5)
    record = Record(target)
    model = build("group_lasso")
    values = np.full((12, 16), 0.1)
    values.ravel()[:21] = 0.0081  # .02 * sqrt(2 / 12) is .00816
    model.layers[0].kernel.assign(values)
    model.layers[1].kernel.assign(np.full((16, 3), 0.0071))  # .00707
    model.optimizer.learning_rate = 0.0
    train(model, images, target, record, epochs=8)
    paths = [0.5 + 0.5 * (1 - epoch / 4) ** 3 for epoch in range(4)]
    expected = [(219 / 240 / path) ** 5 for path in paths] + 4 * [0]
    np.testing.assert_allclose(record.strengths, expected, rtol=1e-6)


def test_the_strength_has_a_limit(images):
    target = ks.TargetDensity(0.1, settle=0.5)
    record = Record(target)
    model = build("group_lasso")
    model.optimizer.learning_rate = 0.0
    train(model, images, target, record)
    assert max(record.strengths) == record.strengths[4] == 100


@pytest.mark.skipif(BACKEND == "jax", reason="once an epoch there")
def test_ten_updates_an_epoch(images):
    class Batches(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            self.last = float(to_numpy(target.strength))

        def on_train_batch_end(self, batch, logs=None):
            strength = float(to_numpy(target.strength))
            if 10 * (batch + 1) // 16 > 10 * batch // 16:
                done = (self.epoch + (batch + 1) / 16) / 4
                weights = self.model.get_weights()
                expected = strength_of(weights, done, 0.5, 0.5)
                assert strength == pytest.approx(expected, rel=1e-5)
                updates.append(self.epoch)
            else:
                assert strength == self.last
            self.last = strength

    updates, target = [], ks.TargetDensity(0.5, settle=0.5)
    train(
        build("group_lasso"), images, target, Batches(), batch_size=4, epochs=4
    )
    assert updates == [epoch for epoch in range(4) for _ in range(10)]


def test_the_support_stays_when_the_second_phase_trains(images):
    target = ks.TargetDensity(0.2, settle=0.3)
    record = Record(target)
    model, logs = run("sgl0_splitting", images, target, record)
    first = record.settled.index(True)
    assert 0 < first <= 3
    for before, after in zip(
        record.weights[first], model.get_weights(), strict=True
    ):
        if before.ndim == 2:
            np.testing.assert_array_equal(before != 0, after != 0)
            assert abs(before - after).max() > 1e-3
    np.testing.assert_array_equal(logs["density"][first:], density_of(model))


def convnet(penalty):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, kernel_regularizer=penalty),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_regularizer=penalty),
        ]
    )
    compile_quickly(model, "adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("of", ["weights", "parameters"])
def test_what_is_counted(of):
    # A kernel of 9 * 4, then 64 * 3; 7 biases.
    position, others, total = {
        "weights": (1, 0, 228),
        "parameters": (1, 7, 235),
    }[of]
    rng = np.random.default_rng(0)
    data = rng.random((32, 6, 6, 1)), rng.integers(0, 3, 32)
    model = convnet(ks.SparseGroupLasso(1e-3))
    logs = train(model, data, ks.TargetDensity(0.3, of), epochs=3)
    conv, dense = (
        np.count_nonzero(to_numpy(model.layers[i].kernel)) for i in (0, 2)
    )
    density = (position * conv + dense + others) / total
    assert logs["density"][-1] == pytest.approx(density)
    assert 0.3 - position / total <= density <= 0.3


@pytest.mark.parametrize("way", WAYS)
def test_a_share_of_the_neurons(images, way):
    model, density = build(way), 0.3
    for layer in model.layers:
        penalty = layer.kernel.regularizer
        layer.kernel.regularizer = type(penalty)(penalty.factor, axis="auto")
    target = ks.TargetDensity(density, "neurons")
    logs = train(model, images, target, before=WAYS[way][2]())
    alive = [kernel.any(axis=1) for kernel in kernels_of(model)]  # 12 and 16
    number = sum(rows.sum() for rows in alive)
    assert number <= density * 28
    # A step may kill two at once; on JAX there are more between two looks.
    assert number >= (density / 2 if BACKEND == "jax" else density) * 28 - 2
    assert logs["density"][-1] == pytest.approx(number / 28)
    assert ks.neuron_sparsity(model) == pytest.approx(1 - number / 28)
    assert logs["strength"][-1] == 0 < logs["strength"][0]


def test_what_is_dead_in_the_neurons_that_are_kept_stays_so(images):
    model = build("sparse_group_lasso_proximal")
    kernel = model.layers[0].kernel
    values = np.full((12, 16), 0.1)
    values[3], values[:, :8] = 1e-3, 0.0  # below .00816 is dead
    kernel.assign(values)
    # 8 of the first layer's 16 neurons are left, and 3: the target is met.
    train(model, images, ks.TargetDensity(0.6, "neurons"), epochs=1)
    trained = kernels_of(model)[0]
    assert not trained[3].any()
    assert not trained[:, :8].any()
    assert (np.delete(trained, 3, axis=0)[:, 8:] != 0).all()
    assert abs(trained[0, 8:] - 0.1).max() > 1e-3


def test_what_is_no_kernel_has_no_neurons(images):
    model = two_layers(ks.GroupLasso(0.1), adam())
    model.layers[0].bias.regularizer = ks.L1(0.1)
    with pytest.raises(ValueError) as caught:
        train(model, images, ks.TargetDensity(0.5, "neurons"))
    assert str(caught.value) == (
        "`TargetDensity` cannot count the neurons of "
        f'{model.layers[0].bias.path}. Received: of="neurons"'
    )


def test_what_has_no_structures_has_no_target_of_macs():
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.LSTM(2, kernel_regularizer=ks.GroupLasso(0.1)),
        ]
    )
    model.compile("sgd", "mse", **QUICK)
    data = np.zeros((4, 4, 3)), np.zeros((4, 2))
    with pytest.raises(ValueError) as caught:
        train(model, data, ks.TargetDensity(0.5, "macs"))
    message = str(caught.value)
    assert "at least 1.0000, the share of the macs that cannot be" in message
    assert f"all of `{model.layers[0].name}`" in message
    train(model, data, ks.TargetDensity(0.8), epochs=1)
    kernel, recurrent = (to_numpy(w) for w in model.get_weights()[:2])
    assert np.count_nonzero(kernel) + recurrent.size <= 0.8 * 40


def test_what_has_a_penalty_counts_though_it_is_no_kernel(images):
    model = two_layers(None, adam())
    for layer in model.layers:
        layer.kernel.regularizer = ks.L1(1e-2)
        layer.bias.regularizer = ks.L1(1e-2)
        layer.bias.assign(np.ones(layer.bias.shape))
    logs = train(model, images, ks.TargetDensity(0.1), epochs=3)
    alive = sum(np.count_nonzero(w) for w in model.get_weights())
    assert alive == math.floor(0.1 * 259)
    assert logs["density"][-1] == pytest.approx(alive / 259)


def half_penalised(frozen=False):
    model = two_layers(ks.SparseGroupLasso(0.01), adam())
    if frozen:
        model.layers[1].trainable = False
        compile_quickly(model, "adam", model.loss)
    else:
        model.layers[1].kernel.regularizer = None
    return model


def test_what_no_penalty_can_remove_counts(images):
    model = half_penalised()
    train(model, images, ks.TargetDensity(0.3), epochs=3)
    first, second = map(np.count_nonzero, kernels_of(model))
    assert (first, second) == (24, 48)
    with pytest.raises(ValueError) as caught:
        train(half_penalised(), images, ks.TargetDensity(0.2))
    assert str(caught.value) == (
        "Invalid value for argument `density`. Expected more than 0.2000, the "
        "share of the weights without a penalty. Received: density=0.2"
    )


def test_a_frozen_layer_is_left_out(images):
    model = half_penalised(frozen=True)
    train(model, images, ks.TargetDensity(0.25), epochs=3)
    first, second = map(np.count_nonzero, kernels_of(model))
    assert (first, second) == (48, 48)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.7, 1.0])
def test_a_target_met_to_the_weight_is_met(images, density):
    alive = round(density * SIZE)
    rng = np.random.default_rng(0)
    values = np.where(rng.permutation(SIZE) < alive, 1.0, 0.0)
    model = build("group_lasso")
    model.layers[0].kernel.assign(values[:192].reshape(12, 16))
    model.layers[1].kernel.assign(values[192:].reshape(16, 3))
    for layer in model.layers:
        layer.kernel.regularizer = ks.L1(1e-3)
    logs = train(model, images, ks.TargetDensity(density), epochs=1)
    assert logs["strength"] == [0]
    assert logs["density"] == [density]


def test_a_target_of_one_lets_zeros_train(images):
    model = build("group_lasso")
    model.layers[1].kernel.assign(np.zeros((16, 3)))
    train(model, images, ks.TargetDensity(1.0), epochs=1)
    assert kernels_of(model)[1].any()


@pytest.mark.parametrize("arguments", [{"epochs": 1}, {"epochs": 2}])
def test_a_run_of_few_epochs_meets_the_target(images, arguments):
    target = ks.TargetDensity(0.1, settle=0.99)
    model, logs = run("sgl0_splitting", images, target, **arguments)
    assert density_of(model) == logs["density"][-1] == pytest.approx(0.1)


def test_a_run_stopped_early_meets_the_target(images):
    def stop(epoch, logs):
        model.stop_training = True

    model = build("sgl0_splitting")
    train(
        model,
        images,
        ks.TargetDensity(0.1),
        keras.callbacks.LambdaCallback(on_epoch_end=stop),
        before=WAYS["sgl0_splitting"][2](),
    )
    assert density_of(model) == pytest.approx(0.1)


def test_averaged_weights_meet_the_target(images):
    optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    model = two_layers(ks.SparseGroupLasso(0.01), optimizer)
    train(model, images, ks.TargetDensity(0.1), epochs=5)
    assert density_of(model) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "how",
    [{"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}],
)
def test_every_way_to_compile(images, how):
    if BACKEND == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras has no steps_per_execution on PyTorch")
    model = build("group_lasso", **how)
    target = ks.TargetDensity(0.5)
    logs = train(model, images, target, epochs=4, batch_size=4)
    assert 0.5 - 16 / SIZE <= density_of(model) <= 0.5
    assert logs["strength"][0] > 1
    assert logs["strength"][-1] == 0


def test_an_unknown_number_of_steps(images):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(images).batch(16)
    batches = batches.filter(lambda x, y: True)  # hides how many
    target = ks.TargetDensity(0.2)
    record = Record(target)
    model = build("group_lasso")
    model.fit(batches, epochs=5, verbose=0, callbacks=[target, record])
    assert target.params["steps"] is None
    assert len(set(record.strengths)) == 4
    assert 0.2 - 16 / SIZE <= density_of(model) <= 0.2


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(images, policy):
    if BACKEND == "torch" and policy == "mixed_float16":
        pytest.skip("no float16 matrix products on the CPU there")
    keras.config.set_dtype_policy(policy)
    try:
        model, logs = run("sgl0_proximal", images, ks.TargetDensity(0.2))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(logs["loss"]).all()
    assert density_of(model) == pytest.approx(0.2)


def test_a_model_without_a_penalty_is_refused(images):
    for penalty in (None, keras.regularizers.L2(0.1)):
        with pytest.raises(ValueError, match="found no trainable variable"):
            train(two_layers(penalty, sgd()), images, ks.TargetDensity(0.2))


def test_a_constraint_of_its_own_is_refused(images):
    model = build("group_lasso")
    kernel = model.layers[0].kernel
    kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError) as caught:
        train(model, images, ks.TargetDensity(0.2))
    assert str(caught.value).startswith(
        f"`TargetDensity` cannot train {kernel.path}, which has a constraint "
        "of its own. Received: <"
    )
    assert type(kernel.constraint) is keras.constraints.NonNeg


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"density": density},
            "`density`. Expected a finite number greater than 0 and at most 1. "
            f"Received: density={density!r}",
        )
        for density in (0, -0.1, 1.1, math.nan, True, "0.1", None, (0.1,))
    ]
    + [
        (
            {"density": 0.1, "settle": settle},
            "`settle`. Expected a finite number greater than 0 and less than "
            f"1. Received: settle={settle!r}",
        )
        for settle in (0, 1, -1, "0.5")
    ]
    + [
        (
            {"density": 0.1, "of": of},
            "`of`. Expected one of 'weights', 'parameters', 'macs', "
            "'channels', 'neurons'. Received: "
            f"of={of!r}",
        )
        for of in ("layers", None)
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as caught:
        ks.TargetDensity(**arguments)
    assert str(caught.value) == f"Invalid value for argument {message}"


def test_it_cuts_the_weights_that_early_stopping_restores(images):
    stopping = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=3, restore_best_weights=True
    )
    model, logs = run("sgl0_splitting", images, stopping, ks.TargetDensity(0.2))
    assert len(logs["loss"]) < 10
    assert density_of(model) == pytest.approx(0.2, abs=2 / SIZE)


def test_small_weights_stay_where_the_cut_has_been(images):
    model = two_layers(ks.GroupLasso(0.01), keras.optimizers.SGD(0.0))
    for kernel in (layer.kernel for layer in model.layers):
        values = np.full(kernel.shape, 1e-6)
        values[:, ::2] = 0.0
        kernel.assign(values)
    before = kernels_of(model)
    target = ks.TargetDensity(0.6, "neurons")
    train(model, images, target, epochs=2, initial_epoch=1)
    for found, expected in zip(kernels_of(model), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
def test_double_precision(images, way):
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        model, _ = run(way, images, ks.TargetDensity(0.2))
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    if BACKEND != "jax":  # which has no float64 unless told so
        assert model.layers[0].kernel.dtype == "float64"
    assert density_of(model) <= 0.2


# layer of a penalty, its input shape, the axis of its channels, its fan-in
CHANNELS = {
    "conv": (
        lambda penalty: keras.layers.Conv2D(64, 3, kernel_regularizer=penalty),
        (4, 4, 4),
        -1,
        36,
    ),
    "transpose": (
        lambda penalty: keras.layers.Conv2DTranspose(
            64, 3, kernel_regularizer=penalty
        ),
        (4, 4, 4),
        -2,
        36,
    ),
    "depthwise": (
        lambda penalty: keras.layers.DepthwiseConv2D(
            3, depthwise_regularizer=penalty
        ),
        (4, 4, 64),
        -2,
        9,
    ),
}


@pytest.mark.parametrize(
    ("layer_of", "shape", "axis", "fan_in"), CHANNELS.values(), ids=CHANNELS
)
def test_what_is_negligible_depends_on_the_fan_in(
    layer_of, shape, axis, fan_in
):
    layer = layer_of(ks.GroupLasso(0.01, axis=axis))
    model = keras.Sequential([keras.Input(shape), layer])
    values = np.ones(layer.kernel.shape)
    np.moveaxis(values, axis, 0)[:32] = 0.019 * (2 / fan_in) ** 0.5
    layer.kernel.assign(values)
    model.compile(keras.optimizers.SGD(0.0), "mse", **QUICK)
    logs = model.fit(
        np.zeros((8, *shape)),
        np.zeros((8, *model.output_shape[1:])),
        callbacks=[ks.TargetDensity(0.25)],
        epochs=2,
        verbose=0,
    ).history
    assert logs["density"][0] == 0.5


@pytest.mark.parametrize(
    "how",
    [
        "no epochs",
        "no epochs left",
        # The others refuse it themselves.
        pytest.param("no data", marks=pytest.mark.tensorflow),
    ],
)
def test_an_untrained_model_is_left_alone(images, how):
    model = two_layers(ks.GroupLasso(0.01), sgd())
    before = state(model)
    settings = {
        "no epochs": {"epochs": 0},
        "no epochs left": {"epochs": 3, "initial_epoch": 3},
        "no data": {"epochs": 2},
    }[how]
    data = images
    if how == "no data":
        data = (images[0][:0], images[1][:0])
    model.fit(*data, verbose=0, callbacks=[ks.TargetDensity(0.2)], **settings)
    np.testing.assert_array_equal(state(model), before)


def test_two_targets_are_refused(images):
    model = two_layers(ks.GroupLasso(0.01), sgd())
    both = [ks.TargetDensity(0.2), ks.TargetDensity(0.3, of="neurons")]
    with pytest.raises(ValueError, match="cannot both steer the penalty of"):
        model.fit(*images, verbose=0, callbacks=both)


def test_a_loop_of_your_own(images):
    def train(callbacks):
        model = two_layers(ks.GroupLasso(0.05), keras.optimizers.SGD(0.1))
        hooks = keras.callbacks.CallbackList(callbacks, model=model, **known)
        hooks.on_train_begin()
        for epoch in range(4):
            hooks.on_epoch_begin(epoch)
            for step in range(2):
                hooks.on_train_batch_begin(step)
                batch = slice(32 * step, 32 * step + 32)
                logs = model.train_on_batch(images[0][batch], images[1][batch])
                hooks.on_train_batch_end(step, {"loss": logs})
            hooks.on_epoch_end(epoch, {})
        hooks.on_train_end()
        return model

    def callbacks():
        return [ks.ProximalStep(), ks.TargetDensity(0.3)]

    known = {}
    with pytest.raises(ValueError, match="needs the number of epochs"):
        train(callbacks())
    known = {"epochs": 4, "steps": 2}
    expected = two_layers(ks.GroupLasso(0.05), keras.optimizers.SGD(0.1))
    expected.fit(
        *images,
        batch_size=32,
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=callbacks(),
    )
    np.testing.assert_allclose(
        state(train(callbacks())), state(expected), atol=1e-6
    )
    assert (state(expected) == 0).any()
