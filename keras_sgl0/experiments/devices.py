"""Several devices: how they train as one, and which process writes files."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable

import keras

from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import InputError, choice, require

with name_extra():
    import tensorflow as tf

Scope = Callable[[], contextlib.AbstractContextManager]
STRATEGIES = ("none", "mirrored", "multi_worker")


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that train one model, each on its share of every batch.

    Attributes:
        replicas: How many devices share a batch.
        is_chief: Whether this process is the one that writes files.
        scope: Returns the scope to build and compile a model in.
        fit_scope: Returns the scope to train it in.
    """

    replicas: int = 1
    is_chief: bool = True
    scope: Scope = contextlib.nullcontext
    fit_scope: Scope = contextlib.nullcontext

    def whole_shares(self, batch_size: int) -> int:
        """Returns the largest batch size that is shared out evenly.

        Args:
            batch_size: The most images a batch may have.
        """
        return batch_size // self.replicas * self.replicas

    def require_whole_shares(self, batch_size: int):
        """Raises unless every device gets the same number of images.

        Args:
            batch_size: Images a step, over all devices.

        Raises:
            ValueError: If it is no multiple of `replicas`; the message names
                the nearest ones.
        """
        below = self.whole_shares(batch_size)
        would_do = " or ".join(
            str(n) for n in (below, below + self.replicas) if n
        )
        require(
            batch_size == below,
            "batch_size",
            f"a multiple of the {self.replicas} devices, such as {would_do}",
            batch_size,
        )

    def synchronize(self, model: keras.Model):
        """Lets batch normalization see the whole batch, as on one device.

        Nothing to do on JAX, whose devices compute one program.

        Args:
            model: A model that is to be trained on these devices.
        """
        if self.replicas > 1 and keras.backend.backend() == "tensorflow":
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True


def devices(strategy: str = "none") -> Devices:
    """Returns the devices that a strategy's name stands for.

    * `"none"`: one device, Keras's default.
    * `"mirrored"`: all devices of this process, GPUs if there are any, else
      its logical CPUs. `tf.distribute.MirroredStrategy` on TensorFlow, data
      parallelism by `keras.distribution` on JAX.
    * `"multi_worker"`: the same program on several machines, or in several
      processes, that `TF_CONFIG` names. TensorFlow alone.

    The devices train as one: the mean gradient of the shares of a batch is
    that of the batch, and `Devices.synchronize` does the same for batch
    normalization. Only dropout draws its numbers for the share of each
    TensorFlow device. One GPU is better left without a strategy: under any of
    them Keras switches XLA off.

    Stock Keras 3.15 cannot train with several workers: it averages the nested
    batch, and the scalar logs, in ways TensorFlow refuses. The strategy
    returned here allows both, and is the stock one in all else.

    Args:
        strategy: One of `STRATEGIES`.

    Raises:
        ValueError: If the strategy is unknown or not for this backend, or if
            `TF_CONFIG` is missing or names no such worker.

    Example:
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> with devices("mirrored").scope():
        ...     model = LeNet5Caffe(kernel_regularizer=SGL0(1e-6))
        ...     model.compile("adam", loss)
    """
    choice("strategy", strategy, STRATEGIES)
    if strategy == "none":
        return Devices()
    backend = keras.backend.backend()
    known = ("tensorflow", "jax") if strategy == "mirrored" else ("tensorflow",)
    require(
        backend in known,
        "strategy",
        f"'none' on the {backend} backend; {strategy!r} is for "
        + " and ".join(known),
        strategy,
    )
    if strategy == "multi_worker":
        is_chief = _is_chief()
        strategy = _MultiWorker()
        return Devices(strategy.num_replicas_in_sync, is_chief, strategy.scope)
    if backend == "jax":
        names = keras.distribution.list_devices()
        parallel = keras.distribution.DataParallel(devices=names)
        return Devices(len(names), True, parallel.scope, parallel.scope)
    names = [
        device.name
        for device in tf.config.list_logical_devices("GPU")
        or tf.config.list_logical_devices("CPU")
    ]
    return Devices(
        len(names), scope=tf.distribute.MirroredStrategy(names).scope
    )


class _MultiWorker(tf.distribute.MultiWorkerMirroredStrategy):
    """Reduces nested values, and takes a scalar's mean over devices alone."""

    def reduce(self, reduce_op, value, axis):
        def one(value):
            shapes = [v.shape for v in self.experimental_local_results(value)]
            scalar = all(shape.rank == 0 for shape in shapes)
            reduce = super(_MultiWorker, self).reduce
            return reduce(reduce_op, value, None if scalar else axis)

        return tf.nest.map_structure(one, value)


def _is_chief():
    """Reads TF_CONFIG; TensorFlow would wait for ever where it is wrong."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers = {
            kind: len(addresses)
            for kind, addresses in cluster.items()
            if kind in ("chief", "worker") and isinstance(addresses, list)
        }
        kind, index = task["type"], task["index"]
        named = 0 <= index < workers.get(kind, 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        named, workers = False, {}
    if not named:
        there = ", ".join(
            f"{kind} 0 to {number - 1}" for kind, number in workers.items()
        )
        raise InputError(
            "Invalid value for the environment variable TF_CONFIG. Expected "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
            '"worker", "index": INDEX}} with a task that the cluster has'
            + (f": {there}" if there else "")
            + f". Received: TF_CONFIG={text!r}"
        )
    return kind == "chief" or (index == 0 and "chief" not in workers)
