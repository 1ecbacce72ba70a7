import copy

import keras
import numpy as np
import pytest
from helpers import BACKEND, QUICK, to_numpy, two_layers, two_towers
from keras import ops

import keras_sgl0 as ks

FACTOR, BETA = 2e-3, 0.1
REFRESHES = ["step"] if BACKEND == "jax" else ["step", "batch"]
every_refresh = pytest.mark.parametrize("refresh", REFRESHES)


class Envelope(keras.regularizers.Regularizer):
    """Group lasso plus the Moreau envelope of the l0 part, by hand."""

    def __init__(self, beta):
        self.beta = beta

    def __call__(self, w):
        smooth = ops.minimum(FACTOR, 0.5 * self.beta * ops.square(w))
        return ks.GroupLasso(FACTOR)(w) + ops.sum(smooth)


def sgd():
    return keras.optimizers.SGD(0.1)


def adam():
    return keras.optimizers.Adam(0.01)


def train(images, penalty, callbacks, optimizer=sgd, **arguments):
    """Returns the losses and final weights of 5 epochs of 4 steps."""
    options = {"epochs": 5, "batch_size": 16, "shuffle": False, "verbose": 0}
    compile_arguments = {
        name: arguments.pop(name)
        for name in ("steps_per_execution", "jit_compile", "run_eagerly")
        if name in arguments
    }
    model = two_layers(penalty, optimizer(), **compile_arguments)
    history = model.fit(
        *images, callbacks=callbacks, **(options | arguments)
    ).history
    return np.array(history["loss"]), model


def same(run, other, tolerance=1e-6):
    np.testing.assert_allclose(run[0], other[0], rtol=tolerance)
    for a, b in zip(run[1].get_weights(), other[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_the_three_trajectories_agree(images, optimizer):
    envelope = train(images, Envelope(BETA), [], optimizer)
    for refresh in REFRESHES:
        splitting = ks.VariableSplitting(BETA, growth=1, refresh=refresh)
        run = train(images, ks.SGL0(FACTOR), [splitting], optimizer)
        same(run, envelope)
    plain = train(images, ks.GroupLasso(FACTOR), [], optimizer)
    assert abs(
        plain[1].get_weights()[0] - envelope[1].get_weights()[0]
    ).max() > (1e-3), "the test would not see the splitting"


@pytest.mark.skipif(BACKEND == "jax", reason="no held V on JAX")
def test_held_v_agrees_when_beta_grows(images):
    runs = [
        train(
            images,
            ks.SGL0(FACTOR),
            [ks.VariableSplitting(BETA, growth=3, every=2, refresh=refresh)],
            adam,
        )
        for refresh in REFRESHES
    ]
    same(*runs)


@pytest.mark.parametrize(
    "how",
    [{"steps_per_execution": 4}, {"run_eagerly": True}, {"jit_compile": True}],
)
def test_step_refresh_under_every_way_to_compile(images, how):
    if BACKEND == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras has no steps_per_execution on PyTorch")

    def run(**arguments):
        splitting = ks.VariableSplitting(BETA, growth=2, every=2)
        return train(images, ks.SGL0(FACTOR), [splitting], adam, **arguments)

    same(run(), run(**how))


def test_growing_beta_reaches_the_compiled_step(images):
    def run(growth):
        splitting = ks.VariableSplitting(BETA, growth=growth, every=2)
        return train(images, ks.SGL0(FACTOR), [splitting])[0]

    constant, growing = run(1), run(10)
    np.testing.assert_allclose(constant[:2], growing[:2], rtol=1e-6)
    assert abs(constant[2:] - growing[2:]).min() > 1e-3


def test_beta_and_threshold_in_the_logs(images):
    splitting = ks.VariableSplitting(BETA, growth=1.25, every=2)
    model = two_layers(ks.SGL0(FACTOR))
    logs = model.fit(
        *images, epochs=5, verbose=0, callbacks=[splitting]
    ).history
    betas = [BETA * 1.25 ** (e // 2) for e in range(5)]
    np.testing.assert_allclose(logs["beta"], betas, rtol=1e-12)
    thresholds = [(2 * FACTOR / beta) ** 0.5 for beta in betas]
    np.testing.assert_allclose(logs["threshold"], thresholds, rtol=1e-6)


def test_the_papers_thresholds():
    splitting = ks.VariableSplitting(2.5 / 60000)
    found = [
        round(float(ks.L0(0.1 / 60000).threshold(1 / splitting.beta_at(e))), 4)
        for e in (0, 39, 40, 80, 120)
    ]
    assert found == [0.2828, 0.2828, 0.2530, 0.2263, 0.2024]


def test_a_threshold_a_kernel_where_penalties_differ(images):
    model = two_layers(ks.SGL0(FACTOR))
    model.layers[1].kernel.regularizer = ks.SGL0(4 * FACTOR)
    splitting = ks.VariableSplitting(BETA)
    logs = model.fit(*images, verbose=0, callbacks=[splitting]).history
    once = (2 * FACTOR / BETA) ** 0.5
    first, second = (layer.kernel.path for layer in model.layers)
    assert logs[f"threshold/{first}"][0] == pytest.approx(once)
    assert logs[f"threshold/{second}"][0] == pytest.approx(2 * once)


@every_refresh
def test_beta_grows_for_the_kernels_one_says(images, refresh):
    splitting = ks.VariableSplitting(
        BETA, 4, 2, refresh, grows=lambda kernel: kernel.shape[0] == 12
    )
    model = two_layers(ks.SGL0(FACTOR))
    logs = model.fit(
        *images, epochs=4, verbose=0, callbacks=[splitting]
    ).history
    first, second = (layer.kernel for layer in model.layers)
    at_start = (2 * FACTOR / BETA) ** 0.5
    for kernel, factors in ((first, [1, 1, 0.5, 0.5]), (second, [1] * 4)):
        expected = np.multiply(at_start, factors)
        found = logs[f"threshold/{kernel.path}"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        w, v = (to_numpy(x) for x in (kernel, splitting.v[kernel.path]))
        kept = np.where(abs(w) > expected[-1], w, 0)
        np.testing.assert_array_equal(v, kept)
    assert "threshold" not in logs


def test_a_kernel_whose_beta_does_not_grow_trains_as_if_none_did(images):
    """Of the loss, too: no kernel's beta grows where `grows` says no."""

    def run(**arguments):
        splitting = ks.VariableSplitting(BETA, every=2, **arguments)
        return train(images, ks.SGL0(FACTOR), [splitting])

    same(run(growth=1), run(growth=4, grows=lambda kernel: False))
    same(run(growth=4), run(growth=4, grows=lambda kernel: True))


@every_refresh
def test_held_v_is_the_thresholded_w(images, refresh):
    splitting = ks.VariableSplitting(BETA, refresh=refresh)
    _, model = train(images, ks.SGL0(FACTOR), [splitting])
    threshold = (2 * FACTOR / BETA) ** 0.5
    assert list(splitting.v) == [layer.kernel.path for layer in model.layers]
    for layer in model.layers:
        w = to_numpy(layer.kernel)
        v = to_numpy(splitting.v[layer.kernel.path])
        np.testing.assert_array_equal(v, np.where(abs(w) > threshold, w, 0))


@every_refresh
def test_a_second_fit_uses_the_new_beta(images, refresh):
    def two_fits(second_beta):
        model = two_layers(ks.SGL0(FACTOR))
        losses = [
            model.fit(
                *images,
                verbose=0,
                shuffle=False,
                callbacks=[ks.VariableSplitting(beta, refresh=refresh)],
            ).history["loss"][0]
            for beta in (BETA, second_beta)
        ]
        return np.array(losses)

    same_beta, new_beta = two_fits(BETA), two_fits(20 * BETA)
    assert same_beta[0] == pytest.approx(new_beta[0], rel=1e-6)
    assert abs(same_beta[1] - new_beta[1]) > 1e-3


def test_a_second_fit_without_the_callback_trains_the_plain_penalty(images):
    model = two_layers(ks.SGL0(FACTOR))
    splitting = ks.VariableSplitting(BETA)
    model.fit(*images, verbose=0, callbacks=[splitting])
    kernels = [layer.kernel for layer in model.layers]
    data = model.evaluate(*images, verbose=0)
    penalty = sum(float(ks.SGL0(FACTOR)(k)) for k in kernels)
    model.optimizer.learning_rate = 0.0
    again = model.fit(*images, verbose=0, batch_size=64).history["loss"][0]
    assert again == pytest.approx(data, rel=1e-5)
    assert again > penalty > 0


def test_evaluate_during_and_after_fit_reports_the_plain_penalty(images):
    model = two_layers(ks.SGL0(FACTOR))
    splitting = ks.VariableSplitting(BETA)
    logs = model.fit(
        *images,
        epochs=2,
        verbose=0,
        validation_data=images,
        callbacks=[splitting],
    ).history
    penalty = sum(
        float(ks.SGL0(FACTOR)(layer.kernel)) for layer in model.layers
    )
    logits = model.predict(images[0], verbose=0)
    data = float(ops.mean(model.loss(images[1], logits)))
    after = model.evaluate(*images, verbose=0)
    assert after == pytest.approx(data + penalty, rel=1e-5)
    assert logs["val_loss"][-1] == pytest.approx(after, rel=1e-5)


def test_an_evaluation_by_another_callback_leaves_no_trace(images):
    model = two_layers(ks.SGL0(FACTOR))

    def evaluate(epoch, logs):
        model.evaluate(*images, verbose=0)

    other = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    splitting = ks.VariableSplitting(BETA)
    model.fit(*images, verbose=0, callbacks=[splitting, other])
    with_traces = model.evaluate(*images, verbose=0)
    model.make_test_function(force=True)
    assert model.evaluate(*images, verbose=0) == pytest.approx(with_traces)


class InterruptedFitError(Exception):
    pass


def interrupt(epoch, logs):
    raise InterruptedFitError


def test_an_exception_in_fit_is_undone_by_the_next(images):
    model = two_layers(ks.SGL0(FACTOR))
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
    splitting = ks.VariableSplitting(BETA)
    with pytest.raises(InterruptedFitError):
        model.fit(*images, verbose=0, callbacks=[splitting, stop])
    second = ks.VariableSplitting(BETA)
    model.fit(*images, verbose=0, callbacks=[second])
    assert [type(v.regularizer) for v in model.trainable_variables[::2]] == [
        ks.SGL0,
        ks.SGL0,
    ]


def test_penalties_in_nested_models_are_found(images):
    inner = two_layers(ks.SGL0(FACTOR))
    outer = keras.Sequential([keras.Input((12,)), inner])
    outer.compile("sgd", inner.loss, **QUICK)
    splitting = ks.VariableSplitting(BETA)
    outer.fit(*images, verbose=0, callbacks=[splitting])
    assert len(splitting.v) == 2


def test_an_elementwise_penalty_alone_is_split(images):
    splitting = ks.VariableSplitting(BETA)
    plain, _ = train(images, None, [])
    split, _ = train(images, ks.L0(FACTOR), [splitting])
    assert len(splitting.v) == 2
    assert (split > plain).all()


def test_a_frozen_layer_is_left_alone(images):
    model = two_layers(ks.SGL0(FACTOR))
    model.layers[0].trainable = False
    model.compile("sgd", model.loss, **QUICK)
    splitting = ks.VariableSplitting(BETA)
    model.fit(*images, verbose=0, callbacks=[splitting])
    assert list(splitting.v) == [model.layers[1].kernel.path]


def test_resumed_run_is_the_uninterrupted_one(images):
    def splitting():
        return ks.VariableSplitting(BETA, growth=2, every=2)

    whole = train(images, ks.SGL0(FACTOR), [splitting()])
    _, model = train(images, ks.SGL0(FACTOR), [splitting()], epochs=3)
    resumed = model.fit(
        *images,
        epochs=5,
        initial_epoch=3,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[splitting()],
    ).history["loss"]
    same((whole[0][3:], whole[1]), (resumed, model))


@every_refresh
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_backup_and_restore(images, tmp_path, refresh, first):
    def fit(model, *more):
        backup = keras.callbacks.BackupAndRestore(
            tmp_path, delete_checkpoint=False
        )
        splitting = ks.VariableSplitting(BETA, 2, 2, refresh)
        options = {"batch_size": 16, "shuffle": False, "verbose": 0}
        callbacks = [backup, splitting] if first else [splitting, backup]
        return model.fit(
            *images, epochs=5, callbacks=[*callbacks, *more], **options
        ).history["loss"]

    def interrupt_late(epoch, logs):
        if epoch == 3:
            raise InterruptedFitError

    stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt_late)
    with pytest.raises(InterruptedFitError):
        fit(two_layers(ks.SGL0(FACTOR), sgd()), stop)
    model = two_layers(ks.SGL0(FACTOR), sgd(), seed=5)
    resumed = fit(model)
    splitting = ks.VariableSplitting(BETA, growth=2, every=2)
    whole = train(images, ks.SGL0(FACTOR), [splitting])
    same((whole[0][3:], whole[1]), (resumed, model))


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"]
)
def test_low_precision_policies(images, policy):
    if BACKEND == "torch" and policy == "mixed_float16":
        pytest.skip("no float16 matrix products on the CPU there")
    keras.config.set_dtype_policy(policy)
    try:
        splitting = ks.VariableSplitting(BETA)
        losses, _ = train(images, ks.SGL0(FACTOR), [splitting])
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert splitting.beta.dtype == "float32"
    assert {v.dtype for v in splitting.v.values()} == {"float32"}


def test_a_copy_of_the_callback_has_variables_of_its_own(images):
    for refresh in REFRESHES:
        original = ks.VariableSplitting(BETA, refresh=refresh)
        copied = copy.deepcopy(original)
        whole = train(images, ks.SGL0(FACTOR), [original])
        same(whole, train(images, ks.SGL0(FACTOR), [copied]))


def test_kernels_of_one_path_have_a_v_each(images):
    splitting = ks.VariableSplitting(BETA)
    model = two_towers(ks.SGL0(FACTOR))
    model.fit(*images, verbose=0, callbacks=[splitting])
    shapes = {name: tuple(v.shape) for name, v in splitting.v.items()}
    assert shapes == {"fc/kernel": (12, 5), "fc/kernel_1": (12, 7)}
