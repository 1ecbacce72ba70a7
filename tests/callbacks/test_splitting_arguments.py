"""What `VariableSplitting` takes and refuses."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy, two_layers
from test_splitting import BETA, FACTOR, train

import keras_sgl0 as ks
from keras_sgl0.callbacks.splitting import SplitPenalty


def test_batch_refresh_refuses_several_steps_a_call():
    # Not by `fit`, which refuses several steps itself on PyTorch.
    splitting = ks.VariableSplitting(BETA, refresh="batch")
    splitting.set_model(two_layers(ks.SGL0(FACTOR)))
    splitting.model.steps_per_execution = 4
    with pytest.raises(ValueError, match='Use `refresh="step"`'):
        splitting.on_train_begin()


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone cannot hold V")
def test_batch_refresh_refuses_jax(images):
    with pytest.raises(ValueError, match="JAX"):
        splitting = ks.VariableSplitting(BETA, refresh="batch")
        train(images, ks.SGL0(FACTOR), [splitting])


def test_a_model_without_such_a_penalty_is_refused(images):
    with pytest.raises(ValueError) as caught:
        train(images, ks.GroupLasso(FACTOR), [ks.VariableSplitting(BETA)])
    assert str(caught.value).endswith(
        "Received a model with the regularizers: ['GroupLasso']"
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"beta": 0}, "beta"),
        ({"beta": -1.0}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"beta": 1, "growth": 0.9}, "growth"),
        ({"beta": 1, "every": 0}, "every"),
        ({"beta": 1, "every": 2.5}, "every"),
        ({"beta": 1, "refresh": "epoch"}, "refresh"),
        ({"beta": 1, "grows": True}, "grows"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.VariableSplitting(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.VariableSplitting(beta=1, growth=0.5)
    assert str(caught.value) == (
        "Invalid value for argument `growth`. Expected a finite number at "
        "least 1. Received: growth=0.5"
    )


@pytest.mark.parametrize(
    ("growth", "every", "epochs", "first"),
    [(1.25, 1, 500, 408), (10.0, 2, 90, 80), (1e30, 1, 10**6, 2)],
)
def test_a_beta_beyond_the_floats_is_refused(
    images, growth, every, epochs, first
):
    model = two_layers(ks.SGL0(0.01))
    splitting = ks.VariableSplitting(0.1, growth, every)
    assert splitting.beta_at(first - 1) < 3.4e38
    with pytest.raises(ValueError, match=f"infinite from epoch {first} on"):
        model.fit(*images, epochs=epochs, verbose=0, callbacks=[splitting])


def test_a_beta_that_is_finite_to_the_end_is_taken():
    model = two_layers(ks.SGL0(FACTOR))
    splitting = ks.VariableSplitting(0.1, growth=10.0, every=2)
    splitting.set_model(model)
    splitting.set_params({"epochs": 80})
    splitting.on_train_begin()  # epoch 80 would be too much
    splitting.on_train_end()
    with pytest.raises(ValueError, match="infinite from epoch 80 on"):
        splitting.set_params({"epochs": 81})
        splitting.on_train_begin()


def test_the_beta_of_the_first_epoch_has_to_fit_the_penalty(images):
    def fit(beta):
        model = two_layers(ks.MCP(0.01, gamma=3.0))
        model.fit(*images, verbose=0, callbacks=[ks.VariableSplitting(beta)])

    fit(0.4)
    with pytest.raises(ValueError, match=r"`beta` greater than 0\.333"):
        fit(0.3)


class Seen(keras.callbacks.Callback):
    """Notes what the first kernel has while it trains."""

    def on_epoch_begin(self, epoch, logs=None):
        self.penalty = self.model.layers[0].kernel.regularizer


@pytest.mark.parametrize("refresh", ["step", "batch"])
def test_what_is_held_and_what_is_computed(images, refresh):
    if BACKEND == "jax" and refresh == "batch":
        pytest.skip("no held V on JAX")
    seen = Seen()
    splitting = ks.VariableSplitting(
        BETA, refresh=refresh, grows=lambda kernel: False
    )
    train(images, ks.SGL0(FACTOR), [splitting, seen])
    assert isinstance(seen.penalty, SplitPenalty)
    v = next(iter(splitting.v.values()))
    assert v.name == "splitting_v_kernel"
    assert seen.penalty.held is (v if refresh == "batch" else None)
    assert seen.penalty.beta is not splitting.beta
    assert seen.penalty.beta.name == "splitting_initial_beta"
    assert splitting.beta.name == "splitting_beta"
    for variable in (splitting.beta, seen.penalty.beta, v):
        assert not variable.trainable
        assert variable.dtype == "float32"


def test_the_split_penalty_by_hand():
    w = np.array([[3.0, 0.5], [4.0, -1.0]], "float32")
    beta = keras.Variable(2.0)
    penalty = ks.SparseGroup(ks.GroupLasso(0.5), ks.L0(1.0))
    # V is W without the sizes up to 1; the gap is (0.5, -1).
    expected = 0.5 * 2**0.5 * (5 + 1.25**0.5) + 2 + 0.5 * 2 * 1.25
    split = SplitPenalty(penalty, beta)
    assert float(split.threshold()) == 1
    assert to_numpy(split.v_step(w)).tolist() == [[3, 0], [4, 0]]
    assert float(split.value(w)) == pytest.approx(expected)
    held = keras.Variable([[1.0, 0.0], [0.0, 0.0]])
    group = 0.5 * 2**0.5 * (5 + 1.25**0.5)
    gap = 4 + 0.25 + 16 + 1
    found = SplitPenalty(penalty, beta, held).value(w)
    assert float(found) == pytest.approx(group + 1 + gap)
    dual = keras.Variable([[-1.0, 0.0], [0.0, 3.0]])
    found = SplitPenalty(penalty, beta, held, dual).value(w)
    assert float(found) == pytest.approx(group + 1 + 1 + 0.25 + 16 + 4)
    assert float(SplitPenalty(ks.L0(1.0), beta, held).value(w)) == 1 + gap


@pytest.mark.skipif(BACKEND == "jax", reason="no float64 by default there")
def test_double_precision_keeps_its_own(images):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        splitting = ks.VariableSplitting(BETA)
        train(images, ks.SGL0(FACTOR), [splitting])
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert splitting.beta.dtype == "float64"
    assert {v.dtype for v in splitting.v.values()} == {"float64"}


def test_averages_of_weights_keep_the_zeros(images):
    class Zero(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = self.model.layers[0].kernel
            kernel.assign(to_numpy(kernel) * mask)

    mask = np.arange(16) % 2
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = two_layers(ks.SGL0(0.01), optimizer)
    callbacks = [Zero(), ks.VariableSplitting(1.0)]
    model.fit(*images, verbose=0, callbacks=callbacks)
    averages = to_numpy(model.layers[0].kernel)
    np.testing.assert_array_equal(averages != 0, [mask] * 12)
