"""Trains one model on several devices or machines."""

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
    """The devices that train one model, each on a part of every batch.

    Attributes:
        replicas: The number of devices.
        is_chief: Whether this process writes the files.
        scope: Returns the scope in which to build and compile the model.
        fit_scope: Returns the scope in which to train it.
    """

    replicas: int = 1
    is_chief: bool = True
    scope: Scope = contextlib.nullcontext
    fit_scope: Scope = contextlib.nullcontext

    def whole_shares(self, batch_size: int) -> int:
        """Returns the largest batch size that can be split evenly.

        Args:
            batch_size: The upper limit.
        """
        return batch_size // self.replicas * self.replicas

    def require_whole_shares(self, batch_size: int):
        """Raises if a batch cannot be split evenly among the devices.

        Args:
            batch_size: The number of images in a batch, over all devices.

        Raises:
            ValueError: If it is not a multiple of `replicas`. The message
                names the nearest multiples.
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
        """Makes batch normalization use the statistics of the whole batch.

        On JAX it always does, so nothing is changed.

        Args:
            model: The model to train on these devices.
        """
        if self.replicas > 1 and keras.backend.backend() == "tensorflow":
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True


def devices(strategy: str = "none") -> Devices:
    """Returns the devices of a strategy.

    * `"none"`: one device, the default of Keras.
    * `"mirrored"`: all devices of this process: its GPUs, or its logical CPUs
      if there are none. It is `tf.distribute.MirroredStrategy` on TensorFlow
      and `keras.distribution.DataParallel` on JAX.
    * `"multi_worker"`: several processes or machines, listed in the
      environment variable `TF_CONFIG`. Only on TensorFlow.

    Several devices give the same result as one: gradients are averaged over
    the whole batch, and so is batch normalization, by `Devices.synchronize`.
    Only dropout differs, since each TensorFlow device draws its own mask. For
    one GPU use no strategy, because Keras switches XLA off under any strategy.

    Keras 3.15 fails to train with several workers: TensorFlow refuses the way
    it averages nested batches and scalar logs. The strategy returned here
    fixes both, and is otherwise the stock one.

    Args:
        strategy: One of `STRATEGIES`.

    Raises:
        ValueError: If the strategy is unknown or not available on this
            backend, or if `TF_CONFIG` is missing or malformed.

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
    """Also reduces nested values, and scalars without a batch axis."""

    def reduce(self, reduce_op, value, axis):
        def one(value):
            shapes = [v.shape for v in self.experimental_local_results(value)]
            scalar = all(shape.rank == 0 for shape in shapes)
            reduce = super(_MultiWorker, self).reduce
            return reduce(reduce_op, value, None if scalar else axis)

        return tf.nest.map_structure(one, value)


def _is_chief():
    """Reads TF_CONFIG; with a wrong one TensorFlow would wait for ever."""
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
