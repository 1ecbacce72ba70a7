"""Times what penalties and input pipelines cost, side by side in one process.

python scripts/benchmark.py overhead
python scripts/benchmark.py pipeline --dataset=cifar10
python scripts/benchmark.py overhead --network=wide_resnet --batch_size=128

The first needs no TensorFlow where KERAS_BACKEND says jax or torch.
"""

import functools
import statistics

from _extras import name_extra

with name_extra():
    import keras
    import numpy as np
    import rich.box
    import rich.console
    import rich.table
    from absl import app, flags

    from keras_sgl0 import SGL0, GroupLasso, VariableSplitting
    from keras_sgl0.deployment.latency import take_turns
    from keras_sgl0.models import LeNet5Caffe, WideResNet

_NETWORK = flags.DEFINE_enum(
    "network", "lenet5_caffe", ["lenet5_caffe", "wide_resnet"], "Network."
)
_DEPTH = flags.DEFINE_integer("depth", 28, "Layers; for wide_resnet.")
_WIDTH = flags.DEFINE_float("width", 10, "Widening; for wide_resnet.")
_DATASET = flags.DEFINE_string("dataset", "digits", "Data set; for pipeline.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "The tensorflow-datasets folder; for pipeline."
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "What the layers compute in.",
)
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
    """Times a training step of a network under each penalty.

    The variants take turns every few steps, as the speed of a machine drifts.
    So the steps are not left to `fit`, but made one by one through the same
    compiled train function and the same callback hooks that `fit` calls.
    """
    keras.config.set_dtype_policy(_PRECISION.value)
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
    shape = _build(None).input_shape[1:]
    images = rng.random((_BATCH_SIZE.value, *shape), "float32")
    labels = rng.integers(0, 10, _BATCH_SIZE.value)

    def start(penalty, callbacks):
        keras.utils.set_random_seed(0)
        model = _build(penalty)
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        hooks = keras.callbacks.CallbackList(callbacks, model=model)
        hooks.on_train_begin()
        hooks.on_epoch_begin(0)
        return model, hooks

    def step(model, hooks):
        hooks.on_train_batch_begin(0)
        model.train_on_batch(images, labels)
        hooks.on_train_batch_end(0)

    steps = {
        name: functools.partial(step, *start(*variant))
        for name, variant in variants.items()
    }
    return take_turns(steps, _ROUNDS.value, _STEPS.value)


def pipeline():
    """Times training batches, augmented and not, and arrays shuffled alike."""
    with name_extra():  # which `overhead` does without
        from keras_sgl0.experiments import datasets

    dataset = datasets.load(_DATASET.value, _DATA_DIR.value).normalized()
    size = _BATCH_SIZE.value
    images, labels = dataset.sample(dataset.num_train)
    rng = np.random.default_rng(0)

    def shuffled():
        while True:
            order = rng.permutation(dataset.num_train)
            for start in range(0, len(order) - size + 1, size):
                indices = order[start : start + size]
                yield images[indices], labels[indices]

    batches = {
        augment: iter(dataset.train_batches(size, 10**6, 0, augment=augment))
        for augment in datasets.AUGMENTATIONS
    } | {"arrays": shuffled()}
    return take_turns(
        {k: functools.partial(next, v) for k, v in batches.items()},
        _ROUNDS.value,
        _STEPS.value,
    )


def _build(penalty):
    if _NETWORK.value == "lenet5_caffe":
        return LeNet5Caffe(kernel_regularizer=penalty)
    return WideResNet(
        kernel_regularizer=penalty, depth=_DEPTH.value, width=_WIDTH.value
    )


def peak_memory():
    """Returns the most memory an accelerator used, in words, if it is known.

    It is that of all variants together, which stay on the device in turns.
    """
    if keras.backend.backend() != "jax":
        return ""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return f" peak memory {peak / 2**30:.2f} GiB" if peak else ""


def table(times, bases):
    """Returns medians in ms and the medians of the rounds' ratios."""
    out = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    out.add_column("variant", no_wrap=True)
    headers = ("ms a step", "min", "max", "images/s")
    for header in (*headers, *(f"to {b}" for b in bases)):
        out.add_column(header, justify="right")
    for name, seconds in times.items():
        row = [1e3 * f(seconds) for f in (statistics.median, min, max)]
        ratios = [
            statistics.median(
                mine / base
                for mine, base in zip(seconds, times[b], strict=True)
            )
            for b in bases
        ]
        images = _BATCH_SIZE.value / statistics.median(seconds)
        texts = [f"{number:.3f}" for number in (*row, *ratios)]
        out.add_row(name, *texts[:3], f"{images:,.0f}", *texts[3:])
    return out


def main(argv):
    commands = {
        "overhead": (overhead, ("plain", "group lasso")),
        "pipeline": (pipeline, ("none", "arrays")),
    }
    if len(argv) != 2 or argv[1] not in commands:
        raise app.UsageError(f"Expected one command: {', '.join(commands)}.")
    console = rich.console.Console(width=90)
    command, bases = commands[argv[1]]
    console.print(table(command(), bases))
    console.print(peak_memory(), end="")


if __name__ == "__main__":
    app.run(main)
