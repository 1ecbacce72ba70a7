"""Several devices train as one, and what they refuse."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import time

import keras
import numpy as np
import pytest
from processes import Program

import keras_sgl0.experiments.building  # noqa: F401 (registers the error)
from keras_sgl0.experiments import datasets
from keras_sgl0.experiments import devices as distribute
from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.network.compilation import require_strategy_can_train

BACKEND = keras.backend.backend()
PROGRAM = pathlib.Path(__file__).with_name("run_on_devices.py")
ON_TENSORFLOW = pytest.mark.tensorflow
# How often each strategy's run is killed.
KILLS = int(os.environ.get("KILLS", "2"))
# Nothing that takes long to compile, and seconds of training to be killed in.
SMALL = ["model", "'mlp'", "depth", "0", "width", "0.0", "dropout", "None"]
SMALL += ["epochs", "40" if BACKEND == "tensorflow" else "4"]
SMALL += ["grow_every", "0.25"]


def start(strategy, workdir, *settings, task=None):
    """Starts the program; `task` is its index and the cluster's addresses."""
    environment = dict(os.environ)
    if BACKEND == "jax" and strategy == "mirrored":
        flag = "--xla_force_host_platform_device_count=2"
        environment["XLA_FLAGS"] = flag
    if task:
        environment["TF_CONFIG"] = json.dumps(
            {
                "cluster": {"worker": task[1]},
                "task": {"type": "worker", "index": task[0]},
            }
        )
    return Program(PROGRAM, strategy, workdir, *settings, env=environment)


def free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    addresses = ["{}:{}".format(*s.getsockname()) for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def start_all(strategy, workdir, *settings):
    """Starts one process, or the chief and a worker."""
    if strategy != "multi_worker":
        return [start(strategy, workdir, *settings)]
    addresses = free_addresses(2)
    return [
        start(strategy, workdir, *settings, task=(index, addresses))
        for index in range(2)
    ]


def finish(processes):
    outputs = [process.communicate() for process in processes]
    roles = ["chief", "worker"][: len(processes)]
    for process, output, role in zip(processes, outputs, roles, strict=True):
        assert process.returncode == 0, output[1][-3000:]
        assert output[0].splitlines()[-1] == role


def state(workdir):
    """Returns all weights, optimizer variables among them."""
    model = keras.saving.load_model(workdir / "checkpoint.keras")
    variables = model.weights + model.optimizer.variables
    return [keras.ops.convert_to_numpy(v) for v in variables]


def losses(workdir):
    folder = RunFolder(str(workdir))
    names = ("loss", "error", "weight_sparsity", "threshold")
    return np.array([folder.column(name) for name in names])


def assert_same(workdir, other, tolerance):
    np.testing.assert_allclose(losses(workdir), losses(other), atol=tolerance)
    for ours, theirs in zip(state(workdir), state(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    finish(start_all("none", workdir))
    return workdir


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("small")
    finish(start_all("none", workdir, *SMALL))
    return workdir


@ON_TENSORFLOW
@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_two_devices_train_as_one(tmp_path, alone, strategy):
    finish(start_all(strategy, tmp_path))
    assert_same(tmp_path, alone, 1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {
        p.name for p in alone.iterdir()
    }


@ON_TENSORFLOW
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_two_devices_couple_as_one(tmp_path, strategy):
    settings = ["groups", "'coupled'", "density", "(0.5,)"]
    settings += ["density_of", "'macs'"]
    finish(start_all("none", tmp_path / "alone", *settings))
    finish(start_all(strategy, tmp_path / strategy, *settings))
    assert_same(tmp_path / strategy, tmp_path / "alone", 1e-5)
    assert RunFolder(str(tmp_path / strategy)).column("density")[-1] <= 0.5


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="it is for JAX")
def test_two_jax_devices_train_as_one(tmp_path, small):
    finish(start_all("mirrored", tmp_path, *SMALL))
    assert_same(tmp_path, small, 1e-5)


def kill_at_random(strategy, workdir, victim, draw):
    """Kills one process; the others have to end with a message."""
    processes = start_all(strategy, workdir, *SMALL)
    begun = time.monotonic()
    history = workdir / "history.csv"
    before = history.stat().st_mtime_ns if history.exists() else 0
    # From the first epoch's end on at any moment, else in the imports.
    while processes[victim].poll() is None:
        now = history.stat().st_mtime_ns if history.exists() else 0
        if now != before or time.monotonic() - begun > 60:
            break
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 1.5))
    processes[victim].send_signal(signal.SIGKILL)
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process is not processes[victim] and process.returncode:
            assert "RunError: Another worker was lost" in errors, errors[-3000:]
    for path in workdir.glob("[!n]*.json"):
        json.loads(path.read_text())


@ON_TENSORFLOW
@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "victims"),
    [("none", [0]), ("mirrored", [0]), ("multi_worker", [0, 1])],
)
def test_killed_runs_end_as_the_uninterrupted_one(
    tmp_path, small, strategy, victims
):
    draw = random.Random(len(strategy))
    for number in range(KILLS):
        victim = victims[number % len(victims)]
        kill_at_random(strategy, tmp_path, victim, draw)
    finish(start_all(strategy, tmp_path, *SMALL))
    assert_same(tmp_path, small, 1e-6)
    assert {p.name for p in tmp_path.iterdir()} == {
        p.name for p in small.iterdir()
    }


@pytest.mark.parametrize(
    ("config", "there"),
    [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ('{"cluster": {"worker": ["a:1"]}}', ""),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, '
            '"task": {"type": "worker", "index": 2}}',
            ": worker 0 to 1",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, '
            '"task": {"type": "chief", "index": 0}}',
            ": worker 0 to 0",
        ),
    ],
)
@ON_TENSORFLOW
def test_a_cluster_without_this_worker(monkeypatch, config, there):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError) as problem:
        distribute.devices("multi_worker")
    assert str(problem.value) == (
        "Invalid value for the environment variable TF_CONFIG. Expected "
        '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
        '"worker", "index": INDEX}} with a task that the cluster has'
        f"{there}. Received: TF_CONFIG={config!r}"
    )


def test_unknown_strategy():
    with pytest.raises(ValueError, match="one of 'none', 'mirrored', 'multi_w"):
        distribute.devices("tpu")


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it has all")
def test_strategies_of_other_backends():
    refused = ["multi_worker"] if BACKEND == "jax" else ["multi_worker", "mirr"]
    for name in distribute.STRATEGIES:
        if name.startswith(tuple(refused)):
            with pytest.raises(ValueError, match=f"on the {BACKEND} backend"):
                distribute.devices(name)


def test_one_device():
    devices = distribute.devices()
    assert (devices.replicas, devices.is_chief) == (1, True)
    devices.require_whole_shares(7)


def test_batches_that_cannot_be_shared_out():
    devices = distribute.Devices(replicas=3)
    devices.require_whole_shares(129)
    assert devices.whole_shares(1000) == 999
    with pytest.raises(ValueError) as problem:
        devices.require_whole_shares(128)
    assert str(problem.value) == (
        "Invalid value for argument `batch_size`. Expected a multiple of the 3 "
        "devices, such as 126 or 129. Received: batch_size=128"
    )
    with pytest.raises(ValueError, match=re.escape("such as 3. Received")):
        devices.require_whole_shares(2)


@ON_TENSORFLOW
def test_images_that_are_left_over():
    digits = datasets.load("digits")
    shared = digits.divisible_by(4)
    assert (len(shared.train[0]), len(shared.test[1])) == (1436, 356)
    assert digits.divisible_by(1).num_train == digits.num_train


@ON_TENSORFLOW
@pytest.mark.parametrize(
    ("optimizer", "settings", "name"),
    [
        ({}, {"steps_per_execution": 2}, "steps_per_execution"),
        ({}, {"jit_compile": True}, "jit_compile"),
        (
            {"gradient_accumulation_steps": 2},
            {},
            "gradient_accumulation_steps",
        ),
    ],
)
def test_what_keras_cannot_do_under_a_strategy(optimizer, settings, name):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(**optimizer), "mse", **settings)
    require_strategy_can_train(model)  # on one device it can

    class Two:
        num_replicas_in_sync = 2

    model._distribute_strategy = Two()
    with pytest.raises(ValueError, match=f"cannot train with `{name}`"):
        require_strategy_can_train(model)
