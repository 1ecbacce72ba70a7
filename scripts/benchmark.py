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
    "rounds", 50, "Rounds; each times every variant once.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
    "steps", 10, "Training steps timed a round and variant.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 100, "Images a step.", lower_bound=1
)


def overhead():
    """Times a training step of LeNet-5-Caffe under each penalty.

    The variants take turns every few steps, as the speed of a machine drifts.
    So the steps are not left to `fit`, but made one by one through the same
    compiled train function and the same callback hooks that `fit` calls.
    """
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
    rng = np.random.default_rng(0)
    images = rng.random((_BATCH_SIZE.value, 28, 28, 1), "float32")
    labels = rng.integers(0, 10, _BATCH_SIZE.value)

    def start(penalty, callbacks):
        keras.utils.set_random_seed(0)
        model = LeNet5Caffe(kernel_regularizer=penalty)
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        hooks = keras.callbacks.CallbackList(callbacks, model=model)
        hooks.on_train_begin()
        hooks.on_epoch_begin(0)
        return model, hooks

    def seconds_per_step(model, hooks):
        begin = time.perf_counter()
        for step in range(_STEPS.value):
            hooks.on_train_batch_begin(step)
            model.train_on_batch(images, labels)
            hooks.on_train_batch_end(step)
        return (time.perf_counter() - begin) / _STEPS.value

    runs = {name: start(*variant) for name, variant in variants.items()}
    for run in runs.values():
        seconds_per_step(*run)  # traces and compiles
    times = {name: [] for name in runs}
    for _ in range(_ROUNDS.value):
        for name, run in runs.items():
            times[name].append(seconds_per_step(*run))
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
