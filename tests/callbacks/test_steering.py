"""Penalties whose strength a callback sets, whichever callback it is."""

import keras
import numpy as np
import pytest
from helpers import to_numpy, two_layers
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.steering import SteeredPenalty, SteeredStep

W = np.array([[0.5, -1.5], [2.5, 0.1]], "float32")


class Seen(keras.callbacks.Callback):
    """Keeps what the variables have in the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        variables = self.model.trainable_variables
        self.penalties = [v.regularizer for v in variables]
        self.constraints = [v.constraint for v in variables]


def lent(images, *before, penalty=None):
    """Returns what is lent, the callback and the logs of two epochs."""
    seen = Seen()
    scheduler = ks.FactorScheduler(lambda epoch: 0.5 + epoch)
    model = two_layers(penalty or ks.L1(0.1))
    logs = model.fit(
        *images, epochs=2, verbose=0, callbacks=[*before, scheduler, seen]
    ).history
    assert all(v.constraint is None for v in model.trainable_variables)
    return seen, scheduler, logs


def test_only_what_has_a_penalty_is_lent_to(images):
    seen, scheduler, logs = lent(images)
    kinds = [type(penalty) for penalty in seen.penalties]
    assert kinds == [SteeredPenalty, type(None)] * 2
    kinds = [type(constraint) for constraint in seen.constraints]
    assert kinds == [SteeredStep, type(None)] * 2
    assert logs["strength"] == [0.5, 1.5]
    assert scheduler.strength.name == "strength"
    assert scheduler.strength.dtype == "float32"
    assert not scheduler.strength.trainable


def test_before_a_fit_there_is_no_strength():
    scheduler = ks.FactorScheduler(lambda epoch: 1.0)
    assert (scheduler.strength, scheduler.settled) == (None, False)


def test_the_strength_multiplies_value_and_step(images):
    seen, scheduler, _ = lent(images)
    penalty, step = seen.penalties[0], seen.constraints[0]
    scheduler.strength.assign(3.0)
    assert float(penalty.value(W)) == pytest.approx(0.3 * np.abs(W).sum())
    # Without a proximal step only the penalty counts.
    assert to_numpy(step.stand_in(ops.convert_to_tensor(W))).tolist() == (
        W.tolist()
    )
    scheduler.settled = True
    assert float(penalty.value(W)) == 0
    assert penalty.is_needed


def test_a_proximal_step_is_as_long_as_the_strength(images):
    seen, scheduler, _ = lent(images, ks.ProximalStep())
    penalty, step = seen.penalties[0], seen.constraints[0]
    # The value is for the loss that is shown alone.
    assert not penalty.is_needed
    scheduler.strength.assign(20.0)
    rate = float(ops.convert_to_numpy(step.original.optimizer.learning_rate))
    expected = to_numpy(ks.L1(0.1).prox(W, 20 * rate))
    assert (expected != W).any()
    tensor = ops.convert_to_tensor(W)
    np.testing.assert_allclose(to_numpy(step.stand_in(tensor)), expected)
    scheduler.settled = True
    np.testing.assert_array_equal(to_numpy(step.stand_in(tensor)), W)


def test_a_constraint_of_the_layer_is_refused(images):
    model = two_layers(ks.L1(0.1))
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    scheduler = ks.FactorScheduler(lambda epoch: 1.0)
    with pytest.raises(ValueError, match=r"cannot train .*first/kernel, wh"):
        model.fit(*images, verbose=0, callbacks=[scheduler])


def test_what_has_no_penalty_is_named(images):
    model = two_layers(keras.regularizers.L2(0.1))
    scheduler = ks.FactorScheduler(lambda epoch: 1.0)
    with pytest.raises(ValueError, match=r"with the regularizers: \['L2'\]"):
        model.fit(*images, verbose=0, callbacks=[scheduler])


def test_averages_of_weights_keep_the_zeros(images):
    class Zero(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = self.model.layers[0].kernel
            kernel.assign(to_numpy(kernel) * mask)

    mask = np.arange(16) % 2
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = two_layers(ks.L1(0.01), optimizer)
    scheduler = ks.FactorScheduler(lambda epoch: 1.0)
    model.fit(*images, verbose=0, callbacks=[Zero(), scheduler])
    averages = to_numpy(model.layers[0].kernel)
    np.testing.assert_array_equal(averages != 0, [mask] * 12)
