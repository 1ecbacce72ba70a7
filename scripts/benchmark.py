"""Times what the penalties cost, side by side in one process.

python scripts/benchmark.py overhead
"""

import statistics
import time

import keras
import numpy as np
import rich.box
import rich.console
import rich.table
from absl import app, flags

from keras_sgl0 import SGL0, GroupLasso, VariableSplitting
from keras_sgl0.models import LeNet5Caffe

_ROUNDS = flags.DEFINE_integer(
    "rounds", 7, "Rounds; each times every variant once.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
    "steps", 100, "Training steps timed a round and variant.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 100, "Images a step.", lower_bound=1
)


class _StepTimer(keras.callbacks.Callback):
    """Times an epoch, a step at a time on average."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        elapsed = time.perf_counter() - self._start
        self.seconds_per_step = elapsed / self.params["steps"]


def overhead():
    """Times a training step of LeNet-5-Caffe under each penalty."""
    factor = 0.1 / 60000
    refreshes = ["step", "batch"]
    if keras.backend.backend() == "jax":
        refreshes.remove("batch")
    variants = {
        "plain": (None, []),
        "group lasso": (GroupLasso(factor, "auto"), []),
    } | {
        f'SGL0, refresh="{refresh}"': (
            SGL0(factor, "auto"),
            [VariableSplitting(25 * factor, refresh=refresh)],
        )
        for refresh in refreshes
    }
    models = {}
    for name, (penalty, _) in variants.items():
        keras.utils.set_random_seed(0)
        models[name] = LeNet5Caffe(kernel_regularizer=penalty)
        models[name].compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    rng = np.random.default_rng(0)
    number = _STEPS.value * _BATCH_SIZE.value
    images = rng.random((number, 28, 28, 1), "float32")
    labels = rng.integers(0, 10, number)
    times = {name: [] for name in variants}
    for _ in range(_ROUNDS.value):
        for name, (_, callbacks) in variants.items():
            timer = _StepTimer()
            # `fit` traces anew under the splitting: time the second epoch.
            models[name].fit(
                images,
                labels,
                batch_size=_BATCH_SIZE.value,
                epochs=2,
                verbose=0,
                callbacks=[*callbacks, timer],
            )
            times[name].append(timer.seconds_per_step)
    return times


def table(times):
    """Returns medians in ms and the medians of the rounds' ratios."""
    bases = ("plain", "group lasso")
    out = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    out.add_column("variant", no_wrap=True)
    for header in ("ms a step", "min", "max", *(f"to {b}" for b in bases)):
        out.add_column(header, justify="right")
    for name, seconds in times.items():
        row = [1e3 * f(seconds) for f in (statistics.median, min, max)]
        row += [
            statistics.median(
                mine / base
                for mine, base in zip(seconds, times[b], strict=True)
            )
            for b in bases
        ]
        out.add_row(name, *(f"{number:.3f}" for number in row))
    return out


def main(argv):
    commands = {"overhead": overhead}
    if len(argv) != 2 or argv[1] not in commands:
        raise app.UsageError(f"Expected one command: {', '.join(commands)}.")
    rich.console.Console().print(table(commands[argv[1]]()))


if __name__ == "__main__":
    app.run(main)
