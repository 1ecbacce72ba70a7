"""What input pipelines cost, side by side in one process."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from keras_sgl0.deployment.latency import take_turns
from keras_sgl0.experiments.benchmarks.tables import StepTimes


def pipeline(
    name: str, data_dir: str | None, batch_size: int, rounds: int, steps: int
) -> StepTimes:
    """Times training batches, augmented and not, and arrays shuffled alike.

    Args:
        name: The data set.
        data_dir: Its folder, as `datasets.load` wants it.
        batch_size: Images a batch.
        rounds: How many turns each variant gets.
        steps: How many batches make a turn.
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
    times = take_turns(drawn, rounds, steps)
    return StepTimes(times, ("none", "arrays"), batch_size)
