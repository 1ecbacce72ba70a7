"""Loggers that are listed before what they are to log."""

import warnings

import keras
import numpy as np
import pytest
from helpers import QUICK
from keras import callbacks, layers

import keras_sgl0 as ks


class Board(callbacks.TensorBoard):
    """Writes nothing; the name of the class is in the warning."""

    set_model = on_train_begin = on_epoch_end = lambda self, *_, **__: None
    on_train_batch_begin = on_train_batch_end = on_train_end = on_epoch_end


def fit(*given):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, kernel_regularizer=ks.SGL0(0.1))]
    )
    model.compile("sgd", "mse", **QUICK)
    data = np.ones((4, 3)), np.ones((4, 2))
    return model.fit(*data, verbose=0, callbacks=list(given)).history


@pytest.mark.parametrize(
    "callback",
    [
        ks.SparsityMonitor(),
        ks.VariableSplitting(1.0),
        ks.FactorScheduler(lambda epoch: 1.0),
    ],
    ids=lambda c: type(c).__name__,
)
def test_a_logger_before_it_is_warned_of(callback, tmp_path):
    message = f"`Board` is listed before `{type(callback).__name__}`"
    with pytest.warns(UserWarning, match=message):
        fit(Board(tmp_path), callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(callback, Board(tmp_path))
        fit(callbacks.EarlyStopping("loss"), callback)


def test_what_adds_nothing_to_the_logs_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(Board(tmp_path), ks.ProximalStep())


def test_a_logger_of_another_fit_is_not_meant(tmp_path):
    class Inner(callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert "weight_sparsity" in fit(ks.SparsityMonitor())

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(Board(tmp_path), Inner())


def test_a_monitor_that_no_list_calls_warns_of_nothing():
    monitor = ks.SparsityMonitor()
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    monitor.set_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        monitor.on_train_begin()
