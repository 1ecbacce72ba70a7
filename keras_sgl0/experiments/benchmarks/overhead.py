"""What penalties cost, side by side in one process."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from keras_sgl0.callbacks import (
    CoupledGroups,
    ProximalStep,
    VariableSplitting,
)
from keras_sgl0.deployment.latency import take_turns
from keras_sgl0.experiments.benchmarks.tables import StepTimes
from keras_sgl0.regularizers import SGL0, GroupLasso, Penalty


def overhead(
    build: Callable[[Penalty | None], keras.Model],
    batch_size: int,
    rounds: int,
    steps: int,
    clock: Callable[[], float] | None = None,
) -> StepTimes:
    """Times a training step of a network under each penalty.

    The variants take turns every few steps, as the speed of a machine drifts.
    So the steps are not left to `fit`, but made one by one through the same
    compiled train function and the same callback hooks that `fit` calls.

    Args:
        build: Returns the network with a penalty, given it or `None`.
        batch_size: Images a step.
        rounds: How many turns each variant gets.
        steps: How many steps make a turn.
        clock: What tells the seconds, see `take_turns`.
    """
    variants = _variants(0.1 / 60000)
    rng = np.random.default_rng(0)
    shape = build(None).input_shape[1:]
    images = rng.random((batch_size, *shape), "float32")
    labels = rng.integers(0, 10, batch_size)

    def start(penalty, callbacks):
        keras.utils.set_random_seed(0)
        model = build(penalty)
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        hooks = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=1, steps=steps
        )
        hooks.on_train_begin()
        hooks.on_epoch_begin(0)
        return functools.partial(step, model, hooks)

    def step(model, hooks):
        hooks.on_train_batch_begin(0)
        model.train_on_batch(images, labels)
        hooks.on_train_batch_end(0)

    started = {
        name: start(penalty, callbacks)
        for name, (penalty, callbacks) in variants.items()
    }
    times = take_turns(started, rounds, steps, clock)
    return StepTimes(times, ("plain", "group lasso"), batch_size)


def _variants(factor):
    """Returns the penalty and the callbacks of each variant."""
    refreshes = ["step", "batch"]
    if keras.backend.backend() == "jax":
        refreshes.remove("batch")
    group_lasso = GroupLasso(factor, "auto")
    variants: dict[str, tuple] = {
        "plain": (None, []),
        "group lasso": (group_lasso, []),
        "group lasso, proximal": (group_lasso, [ProximalStep()]),
    }
    for refresh in refreshes:
        splitting = VariableSplitting(25 * factor, refresh=refresh)
        sgl0 = SGL0(factor, "auto")
        variants[f'SGL0, refresh="{refresh}"'] = (sgl0, [splitting])
    for name, penalty, trained_by in (
        ("group lasso", GroupLasso(factor), []),
        ("group lasso, proximal", GroupLasso(factor), [ProximalStep()]),
        ("SGL0", SGL0(factor), [VariableSplitting(25 * factor)]),
    ):
        callbacks = [CoupledGroups(penalty), *trained_by]
        variants[f"coupled {name}"] = (None, callbacks)
    return variants
