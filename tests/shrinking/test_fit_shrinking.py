"""Training on a shrinking network goes as on the whole one."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, QUICK
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.network.compilation import scope_of
from keras_sgl0.structures.families import structures

EPOCHS = 4
# The other backends compute what is float64 partly in float32.
CLOSE = 1e-9 if BACKEND == "tensorflow" else 2e-3
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def _in_float64():
    """Losses and metrics, too."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def data(number=48, dtype="float64"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, 6, 6, 2)).astype(dtype)
    return x, rng.integers(0, 3, number)


def network(dtype="float64", residual=True):
    """A stem, a residual block and a dense layer; no two shapes alike."""
    keras.utils.set_random_seed(1)
    of_inputs = "float32" if dtype.startswith("mixed") else dtype
    inputs = keras.Input((6, 6, 2), dtype=of_inputs)
    with_bias = {"padding": "same", "dtype": dtype}
    x = keras.layers.Conv2D(8, 3, **with_bias, name="stem")(inputs)
    x = keras.layers.BatchNormalization(dtype=dtype, name="bn")(x)
    y = keras.layers.ReLU(dtype=dtype)(x)
    y = keras.layers.Conv2D(9, 3, **with_bias, name="inner")(y)
    y = keras.layers.ReLU(dtype=dtype)(y)
    y = keras.layers.Conv2D(8, 1, dtype=dtype, name="back")(y)
    x = keras.layers.ReLU(dtype=dtype)(keras.layers.Add(dtype=dtype)([x, y]))
    x = keras.layers.Flatten(dtype=dtype)(x)
    x = keras.layers.Dense(7, "relu", dtype=dtype, name="hidden")(x)
    outputs = keras.layers.Dense(3, dtype=dtype, name="top")(x)
    return keras.Model(inputs, outputs)


def compiled(model, optimizer, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **QUICK | settings)
    return model


class Kill(keras.callbacks.Callback):
    """Sets every third structure to zero as the first epoch ends."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            found = structures(self.model)
            with scope_of(self.model):
                found.zero(np.arange(found.size) % 3 == 0)


class Watch(keras.callbacks.Callback):
    """Keeps the ways to smaller models."""

    def on_train_begin(self, logs=None):
        self.transfers, self.done = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch

    def on_shrink(self, transfer):
        self.set_model(transfer.model)
        total = transfer
        if self.transfers:
            total = self.transfers[-1].then(transfer)
        self.transfers.append(total)
        self.done.append(self.epoch)


class Zero(keras.callbacks.Callback):
    """Sets to zero what another training has cut, at the same time."""

    def __init__(self, watch, others):
        super().__init__()
        self.watch = watch
        self.others = others

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.watch.done:
            with scope_of(self.model):
                self.zero(epoch)

    def zero(self, epoch):
        transfer = self.watch.transfers[self.watch.done.index(epoch)]
        order = [id(v) for v in transfer.original.weights]
        weights = self.model.weights
        for one in transfer.kept:
            mine = weights[order.index(id(one.variable))]
            left = np.zeros(tuple(mine.shape))
            left[np.ix_(*one.places)] = 1
            slots = slots_of(self.model, mine)
            # V and U of ADMM; splitting computes V in each step.
            for admm in self.others:
                if isinstance(admm, ks.ADMM) and mine.path in admm.u:
                    slots += [admm.v[mine.path], admm.u[mine.path]]
            for variable in (mine, *slots):
                value = ops.convert_to_numpy(variable)
                if "variance" not in variable.name:
                    variable.assign(value * left)


def slots_of(model, variable):
    """Returns the variables of the optimizer that go with one of the model."""
    name = variable.path.replace("/", "_")
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [
        slot
        for slot in optimizer.variables
        if slot.name.startswith(f"{name}_") and slot.shape == variable.shape
    ]


def both(make, callbacks=list, every=1, **fit):
    """Trains on a shrinking and on the whole network; returns what differs.

    Returns:
        The smaller model, its history, and the largest difference of a weight,
        of a slot of the optimizer and of a logged number.
    """
    x, y = data(dtype=fit.pop("dtype", "float64"))
    common = {"batch_size": 16, "shuffle": False, "verbose": 0} | fit
    watch = Watch()
    small, history = ks.fit_shrinking(
        make(),
        x,
        y,
        shrink_every=every,
        least=0.01,
        epochs=EPOCHS,
        callbacks=[*callbacks(), watch],
        **common,
    )
    whole, others = make(), callbacks()
    zero = Zero(watch, others)
    logged = whole.fit(x, y, epochs=EPOCHS, callbacks=[*others, zero], **common)
    total = watch.transfers[-1]
    assert total.model is small
    worst = [0.0, 0.0]
    for mine, one in zip(ordered(whole, total), total.kept, strict=True):
        places = np.ix_(*one.places)
        pairs = [(mine, one.smaller)]
        pairs += zip(
            slots_of(whole, mine), slots_of(small, one.smaller), strict=True
        )
        for i, (a, b) in enumerate(pairs):
            a, b = ops.convert_to_numpy(a)[places], ops.convert_to_numpy(b)
            worst[i > 0] = max(worst[i > 0], float(np.abs(a - b).max()))
    assert history.history.keys() == logged.history.keys()
    assert history.epoch == logged.epoch == list(range(EPOCHS))
    shown = max(
        float(np.abs(np.subtract(history.history[name], values)).max())
        for name, values in logged.history.items()
    )
    return small, history, (*worst, shown)


def ordered(whole, total):
    order = {id(v): i for i, v in enumerate(total.original.weights)}
    return [whole.weights[order[id(one.variable)]] for one in total.kept]


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(
        0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "accumulation": lambda: keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=2
    ),
    "schedule": lambda: keras.optimizers.RMSprop(
        keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.9)
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "momentum" else slow)
        for name in OPTIMIZERS
    ],
)
def test_what_is_alive_is_trained_as_in_the_whole_network(name):
    small, history, worst = both(
        lambda: compiled(network(), OPTIMIZERS[name]()), lambda: [Kill()]
    )
    assert small.count_params() < 0.6 * network().count_params()
    assert [done for done, _ in history.cuts] == [1]
    assert max(worst) < CLOSE


@slow
@pytest.mark.tensorflow
def test_under_a_mirrored_strategy():
    """In a process of its own, whose two devices are set up first."""
    folder = pathlib.Path(__file__).parent
    script = [sys.executable, str(folder / "shrink_mirrored.py")]
    paths = [*sys.path, str(folder), str(folder.parent)]
    done = subprocess.run(
        script,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [done for done, _ in found["cuts"]] == [1]
    assert max(found["worst"]) < CLOSE


@slow
@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_float16", "mixed_bfloat16"]
)
def test_in_other_precisions(dtype):
    keras.config.set_floatx("float32")

    def optimizer():
        adam = keras.optimizers.Adam(0.003)
        if dtype != "mixed_float16":
            return adam
        return keras.optimizers.LossScaleOptimizer(adam)

    _, _, worst = both(
        lambda: compiled(network(dtype), optimizer()),
        lambda: [Kill()],
        dtype="float32",
    )
    assert worst[0] < (1e-3 if dtype == "float32" else 0.03)


def regularized(penalty, optimizer):
    """Returns a network with a penalty on every kernel but the last."""
    model = network()
    names = ["stem", "inner", "back", "hidden"]
    ks.regularize(model, penalty, layers=names)
    return compiled(model, optimizer)


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def coupled(*more):
    penalty = ks.GroupLasso(0.02)
    return [ks.CoupledGroups(penalty), ks.ProximalStep(), *more]


@pytest.mark.parametrize(
    "callbacks",
    [
        pytest.param(
            lambda: coupled(ks.TargetDensity(0.3, of="macs", settle=0.7)),
            id="coupled",
        ),
        pytest.param(
            lambda: [
                ks.CoupledGroups(ks.SGL0(1e-3), weight="macs"),
                ks.VariableSplitting(0.1, 1.5, 1),
                ks.TargetDensity(0.3, settle=0.7),
                ks.SparsityMonitor(),
            ],
            id="splitting",
            marks=slow,
        ),
        pytest.param(
            lambda: [
                ks.CoupledGroups(ks.SGL0(1e-3)),
                ks.ADMM(0.1, 1.5, 1),
                ks.FactorScheduler(lambda epoch: 1 + epoch),
                Kill(),
            ],
            id="admm",
            marks=slow,
        ),
        pytest.param(
            lambda: [
                ks.CoupledGroups(ks.GroupLasso(1e-2)),
                keras.callbacks.LearningRateScheduler(lambda e: 0.05 / (1 + e)),
                ks.FactorScheduler(lambda epoch: 1 + epoch),
                Kill(),
            ],
            id="subgradient",
            marks=slow,
        ),
        pytest.param(
            lambda: [
                ks.CoupledGroups(ks.SparseGroup(ks.CGES(1e-2), ks.L1(1e-3))),
                Kill(),
            ],
            id="not_by_norms",
            marks=slow,
        ),
    ],
)
def test_callbacks_follow(callbacks):
    _, history, worst = both(lambda: compiled(network(), sgd()), callbacks)
    assert history.cuts
    assert max(worst) < CLOSE


@pytest.mark.parametrize(
    ("penalty", "callbacks"),
    [
        pytest.param(
            ks.SparseGroupLasso(1e-2, axis="auto"),
            lambda: [ks.ProximalStep(), Kill()],
            id="proximal",
        ),
        pytest.param(
            ks.SGL0(1e-3),
            lambda: [
                ks.VariableSplitting(0.1),
                ks.TargetDensity(0.5, settle=0.7),
                Kill(),
            ],
            id="weights",
            marks=slow,
        ),
        pytest.param(
            ks.GroupLasso(1e-2),
            lambda: [ks.TargetDensity(0.5, of="neurons"), Kill()],
            id="neurons",
            marks=slow,
        ),
        pytest.param(
            ks.GroupLasso(1e-2),
            lambda: [ks.TargetDensity(0.5, of="macs"), Kill()],
            id="structures",
            marks=slow,
        ),
    ],
)
def test_penalties_of_kernels_keep_their_strength(penalty, callbacks):
    small, history, worst = both(lambda: regularized(penalty, sgd()), callbacks)
    assert history.cuts
    assert max(worst) < CLOSE
    kernel = small.get_layer("inner").kernel
    assert kernel.regularizer is small.get_layer("inner").kernel_regularizer
    assert kernel.regularizer.group.factor > penalty.group.factor


@slow
def test_zeros_stay():
    """Masks are cut, and are there no longer where no zero is left."""

    def make():
        model = network()
        found = structures(model)
        found.zero(np.arange(found.size) % 3 == 0)
        kernel = model.get_layer("top").kernel
        value = np.array(kernel)
        value[5, 1] = 0
        kernel.assign(value)
        return compiled(model, sgd())

    small, _, worst = both(make, lambda: [ks.KeepZeros()])
    assert max(worst) < CLOSE
    assert (np.array(small.get_layer("top").kernel) == 0).sum() == 1


def test_a_tolerance_declares_what_is_dead():
    def make():
        model = network()
        found = structures(model)
        dead = np.arange(found.size) % 3 == 0
        for variable, value in list(found.without(dead)):
            kept = np.array(value) != 0
            variable.assign(np.where(kept, variable, 1e-4))
        return compiled(model, keras.optimizers.SGD(0.0))

    x, y = data()
    fit = {"verbose": 0, "epochs": 2, "shrink_every": 1}
    model = make()
    same, history = ks.fit_shrinking(model, x, y, **fit)
    assert same is model
    assert not history.cuts
    expected = model.predict(x, verbose=0)
    small, history = ks.fit_shrinking(model, x, y, tolerance=1e-3, **fit)
    assert [done for done, _ in history.cuts] == [1]
    assert history.cuts[0][1] == small.count_params() < model.count_params()
    np.testing.assert_allclose(small.predict(x, verbose=0), expected, atol=0.05)


def test_a_constant_other_than_zero_stays():
    """It would be trained as a part of other biases."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, "relu", name="one")(inputs)
    model = compiled(keras.Model(inputs, keras.layers.Dense(2)(x)), sgd())
    one = model.get_layer("one")
    one.kernel.assign(np.zeros((4, 3)))
    one.bias.assign([1.0, 0.0, -1.0])
    small, _ = ks.fit_shrinking(
        model,
        np.zeros((8, 4)),
        np.zeros(8),
        shrink_every=1,
        epochs=2,
        verbose=0,
    )
    assert small.get_layer("one").units == 1
