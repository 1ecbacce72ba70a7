import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_sgl0 as ks

X = np.ones((8, 3), "float32")


def model():
    """A kernel of which one of two columns and one row of three are dead."""
    found = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, use_bias=False, name="one")]
    )
    found.layers[0].kernel.assign([[1.0, 0], [1, 0], [0, 0]])
    found.layers[0].kernel.assign(
        found.layers[0].kernel + np.array([[0, 1e-4], [0, 0], [0, 0]])
    )
    found.compile(keras.optimizers.SGD(0.0), "mse")
    return found


def logged(monitor, epochs=1):
    data = X, np.ones((8, 2))
    return model().fit(*data, epochs=epochs, verbose=0, callbacks=[monitor])


def test_both_shares_are_logged():
    history = logged(ks.SparsityMonitor(axis=-1), epochs=2).history
    np.testing.assert_allclose(history["weight_sparsity"], [0.5, 0.5])
    np.testing.assert_allclose(history["neuron_sparsity"], [0.0, 0.0])


def test_the_tolerance_and_the_axis_are_those_given():
    history = logged(ks.SparsityMonitor(1e-3, axis=-1)).history
    np.testing.assert_allclose(history["weight_sparsity"], [4 / 6])
    np.testing.assert_allclose(history["neuron_sparsity"], [1 / 2])
    history = logged(ks.SparsityMonitor(1e-3, axis=0)).history
    np.testing.assert_allclose(history["neuron_sparsity"], [1 / 3])


def test_it_can_be_copied_after_fit_and_asked_without_logs():
    monitor = ks.SparsityMonitor()
    monitor.on_epoch_end(0, {})  # before `fit` there is nothing to count
    history = logged(monitor)
    assert "weight_sparsity" in history.history
    copy = pickle.loads(pickle.dumps(ks.SparsityMonitor(1e-3)))
    assert copy.tolerance == 1e-3 and monitor._counter is None
    monitor.on_train_begin()
    monitor.on_epoch_end(0)


def test_a_new_one_has_no_model_and_no_negative_tolerance():
    assert ks.SparsityMonitor().model is None
    with pytest.raises(ValueError, match=r"`tolerance`.*at least 0"):
        ks.SparsityMonitor(-1e-9)
