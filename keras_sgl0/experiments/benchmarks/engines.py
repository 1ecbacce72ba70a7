"""Which backend, compiler and dtype train a small network the fastest."""

import functools
import multiprocessing
import os
from collections.abc import Callable, Sequence

from keras_sgl0.deployment.latency import take_turns
from keras_sgl0.experiments.benchmarks.tables import StepTimes

BACKENDS = ("tensorflow", "jax", "torch")
# What each backend has: JAX without XLA is one operation after the other, and
# Keras does not compile PyTorch's steps by itself.
_COMPILERS = {
    "tensorflow": {"": False, ", XLA": True},
    "jax": {", XLA": True},
    "torch": {"": False},
}
_PRECISIONS = {"": "float32", ", bfloat16": "mixed_bfloat16"}


def engines(
    network: str,
    batch_size: int,
    rounds: int,
    steps: int,
    backends: Sequence[str] = BACKENDS,
) -> StepTimes:
    """Times a training step of a network on each engine.

    Each backend has a process of its own, which waits while it is not its
    turn. They take turns every few steps, as the speed of a machine drifts.

    Args:
        network: A name in `models.BY_NAME`.
        batch_size: Images a step.
        rounds: How many turns each engine gets.
        steps: How many steps make a turn.
        backends: Names of Keras's backends, all of them installed.

    Example:
        >>> print(engines("lenet5_caffe", 100, rounds=10, steps=5))
    """
    started = [_Backend(name, network, batch_size, steps) for name in backends]
    try:
        turns: dict[str, Callable[[], object]] = {}
        for backend in started:
            turns |= backend.turns()
        whole = take_turns(turns, rounds, calls=1)
    finally:
        for backend in started:
            backend.stop()
    times = {
        name: [turn / steps for turn in seconds]
        for name, seconds in whole.items()
    }
    return StepTimes(times, (next(iter(times)),), batch_size)


class _Backend:
    """A process with a backend, seen from outside."""

    def __init__(self, name, network, batch_size, steps):
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, network, batch_size, steps), daemon=True
        )
        before = os.environ.get("KERAS_BACKEND")
        os.environ["KERAS_BACKEND"] = name  # which the new process inherits
        try:
            self._process.start()
        finally:
            del os.environ["KERAS_BACKEND"]
            if before is not None:
                os.environ["KERAS_BACKEND"] = before
        other.close()  # so that a process that dies ends the waiting

    def turns(self):
        """Returns what runs a turn of each engine, by name."""
        return {
            engine: functools.partial(self._run, engine)
            for engine in self._connection.recv()
        }

    def _run(self, engine):
        self._connection.send(engine)
        self._connection.recv()

    def stop(self):
        """Ends the process."""
        self._connection.close()
        self._process.terminate()
        self._process.join()


def _work(connection, network, batch_size, steps):
    """Runs the engines of this process's backend, each when it is named."""
    # Here, since the backend of the other process may be another one.
    import keras
    import numpy as np

    from keras_sgl0 import models

    rng = np.random.default_rng(0)
    own, runs = keras.backend.backend(), {}
    for kind, jit_compile in _COMPILERS[own].items():
        for suffix, precision in _PRECISIONS.items():
            keras.utils.set_random_seed(0)
            keras.config.set_dtype_policy(precision)
            model = models.BY_NAME[network]()
            model.compile(
                keras.optimizers.Adam(1e-3),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=jit_compile,
            )
            shape = (batch_size, *model.input_shape[1:])
            images = rng.random(shape, "float32")
            labels = rng.integers(0, 10, batch_size)
            runs[own + kind + suffix] = functools.partial(
                model.train_on_batch, images, labels
            )
    connection.send(list(runs))
    while True:
        try:
            run = runs[connection.recv()]
        except EOFError:
            return
        for _ in range(steps):
            run()
        connection.send(None)
