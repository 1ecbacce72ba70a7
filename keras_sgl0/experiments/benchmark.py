"""What penalties and input pipelines cost, side by side in one process."""

import functools
import inspect
import statistics
from collections.abc import Callable, Iterator

import keras
import numpy as np
import rich.box
import rich.table

from keras_sgl0 import models
from keras_sgl0.callbacks import (
    CoupledGroups,
    ProximalStep,
    VariableSplitting,
)
from keras_sgl0.deployment.latency import take_turns
from keras_sgl0.regularizers import SGL0, GroupLasso, Penalty
from keras_sgl0.utils.validation import require

Times = dict[str, list[float]]


def network(
    name: str, depth: int | None = None, width: float | None = None
) -> Callable[[Penalty | None], keras.Model]:
    """Returns what builds a network with a penalty.

    Args:
        name: A name in `models.BY_NAME`.
        depth: Its number of layers. Default: that of the network.
        width: The multiplier of its channels. Default: that of the network.

    Raises:
        ValueError: If the network has no such argument.
    """
    builder = models.BY_NAME[name]
    known = inspect.signature(builder).parameters
    size = {"depth": depth, "width": width}
    size = {k: value for k, value in size.items() if value is not None}
    for argument, value in size.items():
        require(argument in known, argument, f"none, as {name} has none", value)
    return lambda penalty: builder(kernel_regularizer=penalty, **size)


def overhead(
    build: Callable[[Penalty | None], keras.Model],
    batch_size: int,
    rounds: int,
    steps: int,
) -> Times:
    """Times a training step of a network under each penalty.

    The variants take turns every few steps, as the speed of a machine drifts.
    So the steps are not left to `fit`, but made one by one through the same
    compiled train function and the same callback hooks that `fit` calls.

    Args:
        build: Returns the network with a penalty, given it or `None`.
        batch_size: Images a step.
        rounds: How many turns each variant gets.
        steps: How many steps make a turn.

    Returns:
        The seconds a step took in each turn, by the variant's name.
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
    return take_turns(started, rounds, steps)


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


def pipeline(
    name: str, data_dir: str | None, batch_size: int, rounds: int, steps: int
) -> Times:
    """Times training batches, augmented and not, and arrays shuffled alike.

    Args:
        name: The data set.
        data_dir: Its folder, as `datasets.load` wants it.
        batch_size: Images a batch.
        rounds: How many turns each variant gets.
        steps: How many batches make a turn.

    Returns:
        The seconds a batch took in each turn, by the variant's name.
    """
    from keras_sgl0.experiments import datasets  # which needs TensorFlow

    dataset = datasets.load(name, data_dir).normalized()
    images, labels = dataset.sample(dataset.num_train)
    rng = np.random.default_rng(0)

    def shuffled() -> Iterator[tuple]:
        while True:
            order = rng.permutation(dataset.num_train)
            for start in range(0, len(order) - batch_size + 1, batch_size):
                indices = order[start : start + batch_size]
                yield images[indices], labels[indices]

    batches = {
        augment: iter(
            dataset.train_batches(batch_size, 10**6, 0, augment=augment)
        )
        for augment in datasets.AUGMENTATIONS
    } | {"arrays": shuffled()}
    drawn: dict[str, Callable[[], object]] = {
        name: functools.partial(next, each) for name, each in batches.items()
    }
    return take_turns(drawn, rounds, steps)


def peak_memory() -> str:
    """Returns the most memory an accelerator used, in words, if it is known.

    It is that of all variants together, which stay on the device in turns.
    """
    if keras.backend.backend() != "jax":
        return ""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return f" peak memory {peak / 2**30:.2f} GiB" if peak else ""


def table(
    times: Times, bases: tuple[str, ...], batch_size: int
) -> rich.table.Table:
    """Returns medians in ms and the medians of the rounds' ratios.

    Args:
        times: The seconds of each turn, by variant.
        bases: The variants to give the ratios to.
        batch_size: Images a step.
    """
    out = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    out.add_column("variant", no_wrap=True)
    headers = ("ms a step", "min", "max", "images/s")
    for header in (*headers, *(f"to {b}" for b in bases)):
        out.add_column(header, justify="right")
    for name, seconds in times.items():
        ratios = [
            statistics.median(
                mine / base
                for mine, base in zip(seconds, times[b], strict=True)
            )
            for b in bases
        ]
        median = statistics.median(seconds)
        out.add_row(
            name,
            f"{1e3 * median:#.4g}",
            f"{1e3 * min(seconds):#.4g}",
            f"{1e3 * max(seconds):#.4g}",
            f"{batch_size / median:,.0f}",
            *(f"{ratio:.3f}" for ratio in ratios),
        )
    return out
