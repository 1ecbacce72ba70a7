"""To callbacks, a training on a shrinking network is one `fit`."""

import csv
import importlib
import pathlib

import keras
import numpy as np
import pytest
from helpers import QUICK
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.structures.families import structures

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")


def network(dropout=0.1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(9, "relu", name="one"),
            layers.Dropout(dropout),
            layers.Dense(6, "relu", name="two"),
            layers.Dense(2, name="three"),
        ],
        name="network",
    )
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse", metrics=["mae"], **QUICK)
    return model


class Kill(keras.callbacks.Callback):
    """Sets some structures to zero as two of the epochs end."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch in (1, 3):
            found = structures(self.model)
            found.zero(np.arange(found.size) % 4 == 0)


class Count(keras.callbacks.Callback):
    """Counts what it is told."""

    def __init__(self):
        super().__init__()
        self.told = dict.fromkeys(
            ("train_begin", "train_end", "epoch_begin", "epoch_end"), 0
        )
        self.batches, self.sizes, self.params_seen = 0, [], []

    def on_train_begin(self, logs=None):
        self.told["train_begin"] += 1

    def on_train_end(self, logs=None):
        self.told["train_end"] += 1

    def on_epoch_begin(self, epoch, logs=None):
        self.told["epoch_begin"] += 1
        self.sizes.append(self.model.count_params())
        self.params_seen.append(self.params)

    def on_epoch_end(self, epoch, logs=None):
        self.told["epoch_end"] += 1

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


def train(model, callbacks=(), epochs=6, **more):
    settings = {
        "shrink_every": 2,
        "least": 0.01,
        "epochs": epochs,
        "batch_size": 8,
        "shuffle": False,
        "verbose": 0,
        "validation_data": (X[:8], Y[:8]),
    }
    return ks.fit_shrinking(
        model, X, Y, callbacks=[Kill(), *callbacks], **settings | more
    )


def test_callbacks_of_keras_see_one_fit(tmp_path):
    count = Count()
    best = str(tmp_path / "best.keras")
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=100.0
    )
    callbacks = [
        count,
        plateau,
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(best),
        keras.callbacks.EarlyStopping("loss", patience=4, min_delta=100.0),
        ks.SparsityMonitor(),
    ]
    model = network()
    small, history = train(model, callbacks)
    # The patience of both runs on from one network to the next.
    assert history.epoch == list(range(5))
    assert small.history is history
    assert [done for done, _ in history.cuts] == [2, 4]
    whole = model.count_params()
    sizes = [size for _, size in history.cuts]
    assert count.sizes == [whole, whole, sizes[0], sizes[0], sizes[1]]
    assert list(count.told.values()) == [1, 1, 5, 5]
    assert count.batches == 5 * 4
    assert all(p["epochs"] == 6 for p in count.params_seen)
    assert all(p["steps"] == 4 for p in count.params_seen)
    rates = history.history["learning_rate"]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.005, 0.0025, 0.00125])
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == history.epoch
    np.testing.assert_allclose(
        [float(row["loss"]) for row in rows], history.history["loss"]
    )
    saved = keras.saving.load_model(best)
    assert saved.count_params() == small.count_params() == sizes[1]
    np.testing.assert_allclose(
        saved.predict(X, verbose=0), small.predict(X, verbose=0), atol=1e-6
    )
    # What was cut counts as zero.
    sparsity = history.history["weight_sparsity"]
    assert sparsity == sorted(sparsity)
    assert sparsity[-1] == pytest.approx(1 - sizes[1] / whole)


@pytest.mark.slow
def test_tensorboard_goes_on(tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    _, history = train(network(), [board])
    assert len(history.cuts) == 2
    reader = importlib.import_module(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(tmp_path / "train"), {"tensors": 0})
    reader.Reload()
    events = reader.Tensors("epoch_loss")
    assert [event.step for event in events] == list(range(6))


def test_the_result_can_be_trained_on():
    small, _ = train(network())
    steps = int(ops.convert_to_numpy(small.optimizer.iterations))
    assert steps == 6 * 4
    small.fit(X, Y, epochs=1, verbose=0)
    again, history = train(small, epochs=8, initial_epoch=6)
    assert again is small
    assert history.epoch == [6, 7]


def test_data_may_be_a_function_of_the_epoch():
    asked = []

    def data(epoch):
        asked.append(epoch)
        return X

    _, history = ks.fit_shrinking(
        network(),
        data,
        Y,
        shrink_every=1,
        least=0.01,
        epochs=5,
        verbose=0,
        callbacks=[Kill()],
    )
    assert asked == [0, *(done for done, _ in history.cuts)] == [0, 2, 4]


class KillRun(keras.callbacks.Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def splitting():
    return [
        ks.CoupledGroups(ks.SGL0(1e-3)),
        ks.ADMM(1.0, growth=1.5, every=2),
        ks.TargetDensity(0.5, of="parameters", settle=0.8),
    ]


@pytest.mark.parametrize(
    "stops", [pytest.param([1], marks=pytest.mark.slow), [2, 5]]
)
def test_a_killed_training_goes_on_with_the_smaller_network(stops, tmp_path):
    def run(*more, **settings):
        # Dropout would draw other numbers.
        return train(network(0.0), [*splitting(), *more], **settings)

    expected, wanted = run()
    backup = tmp_path / "there" / "training.npz"
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run(KillRun(stop), backup=backup)
    small, history = run(backup=backup)
    assert history.epoch == wanted.epoch
    assert history.cuts == wanted.cuts
    for a, b in zip(expected.weights, small.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(
        history.history["val_loss"], wanted.history["val_loss"], atol=1e-5
    )
    # A finished training is not trained again.
    again, history = run(backup=backup)
    assert history.epoch == wanted.epoch
    for a, b in zip(again.weights, small.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_of_another_training(tmp_path):
    path = tmp_path / "training.npz"
    train(network(), backup=path, epochs=3)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`backup`.*another model"):
        train(other, backup=path)
    pathlib.Path(path).write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged"):
        train(network(), backup=path)


def test_more_than_x_and_y():
    with pytest.raises(ValueError, match="`data`"):
        ks.fit_shrinking(network(), X, Y, 8)


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


def with_gates():
    return ks.add_gates(network())


def uncompiled():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


def own_step():
    inputs = keras.Input((4,))
    return OwnStep(inputs, layers.Dense(2)(layers.Dense(3)(inputs)))


@pytest.mark.parametrize(
    ("make", "optimizer", "message"),
    [
        (with_gates, "sgd", "without gates"),
        (own_step, "sgd", "OwnStep has its own train_step"),
        (network, keras.optimizers.Adafactor(), "received.*Adafactor"),
        (uncompiled, None, "a compiled model"),
    ],
)
def test_models_that_cannot_follow(make, optimizer, message):
    model = make()
    if optimizer is not None:
        model.compile(optimizer, "mse")
    with pytest.raises(ValueError, match=f"(?is)`model`.*{message}"):
        train(model)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (keras.callbacks.BackupAndRestore("folder"), "pass `backup="),
        (
            keras.callbacks.EarlyStopping(restore_best_weights=True),
            "without `restore_best_weights`",
        ),
        (
            ks.OnceMet(
                keras.callbacks.EarlyStopping(restore_best_weights=True),
                ks.TargetDensity(0.5),
            ),
            "without `restore_best_weights`",
        ),
        ("text", "Keras callbacks"),
    ],
)
def test_callbacks_that_cannot_follow(callback, message):
    with pytest.raises(ValueError, match=f"`callbacks`.*{message}"):
        train(network(), [callback])
    with pytest.raises(ValueError, match=r"`callbacks`.*a list"):
        ks.fit_shrinking(
            network(), X, Y, callbacks=keras.callbacks.CallbackList()
        )
