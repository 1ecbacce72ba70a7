"""Trains a cut network back to the accuracy of the original."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.compression.distillation import (
    Distilled,
    FeaturesDistilled,
)
from keras_sgl0.compression.features import Lineage
from keras_sgl0.compression.repair import (
    reestimate_batch_norm,
    statistics_of,
)
from keras_sgl0.compression.report import Settings
from keras_sgl0.compression.search import Search
from keras_sgl0.compression.state import State
from keras_sgl0.network.batches import batches
from keras_sgl0.network.compilation import (
    compile_like,
    losses_of_outputs,
)
from keras_sgl0.network.optimizers import renewed
from keras_sgl0.utils.validation import InputError, RunError, require

# The share of the steps in which the learning rate rises.
_WARMUP = 0.05


class Shuffled(keras.utils.PyDataset):
    """Arrays in batches, in an order that the seed and the epoch tell.

    So a training that was killed goes on with the batches it would have had.

    Args:
        arrays: A tuple `(x, y)` or `(x, y, sample_weight)`.
        batch_size: The number of examples of a batch.
        seed: The seed of the order.
        epoch: The number of the first epoch.
    """

    def __init__(self, arrays: tuple, batch_size: int, seed: int, epoch: int):
        super().__init__()
        # As for arrays in `fit`; TensorFlow's data sets know no lists.
        self._arrays = tree.lists_to_tuples(arrays)
        self._batch_size = batch_size
        self._seed = seed
        self._number = len(tree.flatten(arrays)[0])
        self._start(epoch)

    def __len__(self) -> int:
        return math.ceil(self._number / self._batch_size)

    def __getitem__(self, i: int) -> tuple:
        start = i * self._batch_size
        own = self._order[start : start + self._batch_size]
        return tree.map_structure(
            lambda array: None if array is None else np.asarray(array)[own],
            self._arrays,
        )

    def on_epoch_end(self):
        """Draws the order of the next epoch."""
        self._start(self._epoch + 1)

    def _start(self, epoch):
        self._epoch = epoch
        draw = np.random.default_rng((self._seed, epoch))
        self._order = draw.permutation(self._number)


def with_schedule(
    optimizer: keras.optimizers.Optimizer, peak: float, steps: int
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer of the same kind, with a cosine schedule.

    The learning rate rises to its peak and falls to zero along a cosine.

    Args:
        optimizer: The optimizer of the original.
        peak: The largest learning rate.
        steps: The number of steps.
    """
    warmup = max(1, round(_WARMUP * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.1 * peak,
        decay_steps=max(steps - warmup, 1),
        warmup_target=peak,
        warmup_steps=warmup,
    )
    new = renewed(optimizer)
    new.learning_rate = schedule
    return new


def number_of_batches(data: object, batch_size: int, name: str) -> int:
    """Returns how many batches an epoch has.

    Args:
        data: What `fit` takes.
        batch_size: How many examples of arrays make a batch.
        name: What the argument is called in errors.

    Raises:
        ValueError: If it is not known.
    """
    if isinstance(data, tuple):
        return math.ceil(len(tree.flatten(data)[0]) / batch_size)
    number: Any = None
    if isinstance(data, keras.utils.PyDataset):
        number = data.num_batches
    elif hasattr(data, "cardinality"):
        number = int(data.cardinality())
    elif hasattr(data, "__len__"):
        number = len(data)
    if number is None or number < 1:
        raise InputError(
            f"Invalid value for argument `{name}`. Expected a tuple (x, y) of "
            "arrays, or batches of a known, finite number. Give an endless "
            "data set by `take(n)`, and one of unknown length by "
            f"`apply(tf.data.experimental.assert_cardinality(n))`. Received: "
            f"{data!r}"
        )
    return number


def some_examples(
    data: Any, examples: int, batch_size: int, seed: int
) -> list[tuple]:
    """Returns the first batches of data, or random ones of arrays.

    Args:
        data: What `fit` takes.
        examples: How many examples to take, at least.
        batch_size: How many examples of arrays make a batch.
        seed: The seed of the choice.
    """
    if isinstance(data, tuple):
        data = Shuffled(data, batch_size, seed, 0)
    found, number = [], 0
    for batch in batches(data, batch_size, "train"):
        found.append(batch)
        number += len(tree.flatten(batch[0])[0])
        if number >= examples:
            break
    return found


def require_fits(model: keras.Model, data: object, batch_size: int, name: str):
    """Raises unless a model and its losses can take the first batch of data.

    Args:
        model: A compiled model.
        data: What `fit` takes.
        batch_size: How many examples of arrays make a batch.
        name: What the argument is called in errors.

    Raises:
        ValueError: If they cannot, or there is no batch.
    """
    first = next(batches(data, batch_size, name), ())
    require(first, name, "at least one batch", data)
    try:
        model.test_on_batch(*first)
    except Exception as error:  # a loss may raise anything
        raise InputError(
            f"Invalid value for argument `{name}`. Expected what the model and "
            f"its losses can take: {error}"
        ) from error
    model.reset_metrics()


def recover(
    student: keras.Model,
    teacher: keras.Model,
    train: object,
    validation: object,
    settings: Settings,
    state: State,
    verbose: object,
    lineage: Lineage | None = None,
    search: Search | None = None,
) -> list[dict]:
    """Trains a student by its labels and by the outputs of its teacher.

    Moving averages lag behind a short training. So at the end, the statistics
    of batch normalization are measured anew, and kept where the loss on
    training data is smaller with them. It is not done at the end of a search.

    Args:
        student: The model to train. It is compiled like the teacher.
        teacher: The compiled model that it came from.
        train: What `fit` takes.
        validation: What `fit` takes, `None` for none.
        settings: For how long, how fast and so on.
        state: Where to begin, and where to keep what each epoch leaves.
        verbose: As for `fit`.
        lineage: Where features to compare come from, `None` for none.
        search: What makes the student sparse, `None` for nothing.

    Returns:
        The logs of each epoch.
    """
    losses = losses_of_outputs(teacher)
    model: keras.Model
    if lineage is None:
        model = Distilled(student, teacher, losses, settings.distillation)
    else:
        model = FeaturesDistilled(
            student,
            lineage.teacher,
            losses,
            lineage.features(student),
            settings.distillation,
        )
    batch_size = settings.batch_size
    steps = settings.epochs * number_of_batches(train, batch_size, "train")
    optimizer = with_schedule(teacher.optimizer, settings.learning_rate, steps)
    callbacks: list[keras.callbacks.Callback] = [_Keep(state)]
    if search is not None:
        optimizer = search.optimizer(optimizer)
        # Behind what cuts at the end of an epoch.
        callbacks = [*search.callbacks, *callbacks]
    compile_like(model, teacher, optimizer)
    first = state.begin(model)
    if first < settings.epochs:
        ordered = train
        if isinstance(train, tuple):
            ordered = Shuffled(train, batch_size, settings.seed, first)
        model.fit(
            ordered,
            validation_data=validation,
            epochs=settings.epochs,
            initial_epoch=first,
            shuffle=False,  # of arrays `Shuffled` does it
            callbacks=callbacks,
            verbose=verbose,
        )
    if search is not None:
        return state.history
    compile_like(student, teacher, renewed(teacher.optimizer))
    if "remeasured" not in state.facts:
        state.facts["remeasured"] = _remeasure(student, train, settings)
        state.save(model)
    return state.history


def mean_loss(model: keras.Model, data: list[tuple]) -> float:
    """Returns the mean loss over some batches; NaN counts as the largest.

    Args:
        model: A compiled model.
        data: The batches.
    """

    def loss(x, y, weights):
        return model.test_on_batch(x, y, weights, return_dict=True)["loss"]

    return _mean_over(model, data, loss)


def training_loss(model: keras.Model, data: list[tuple]) -> float:
    """Returns the mean loss with which a training would begin.

    Batch normalization takes the statistics of the batch, dropout draws. No
    variable is another one afterwards.

    Args:
        model: A compiled model.
        data: The batches.
    """
    states = model.non_trainable_variables
    before = [ops.convert_to_numpy(variable) for variable in states]

    def loss(x, y, weights):
        outputs = model(x, training=True)
        return ops.convert_to_numpy(model.compute_loss(x, y, outputs, weights))

    found = _mean_over(model, data, loss)
    for variable, value in zip(states, before, strict=True):
        variable.assign(value)
    return found


def _mean_over(model, data, loss) -> float:
    """Returns the mean of a loss over the examples; inf if it is not finite."""
    losses, sizes = [], []
    for x, y, weights in data:
        losses.append(float(loss(x, y, weights)))
        sizes.append(len(tree.flatten(x)[0]))
        model.reset_metrics()
    mean = np.average(losses, weights=sizes)
    return float(mean) if np.isfinite(mean) else np.inf


def _remeasure(model, train, settings) -> bool:
    """Measures the statistics of batch normalization anew, if that is better.

    Returns:
        Whether it was.
    """
    statistics = statistics_of(model)
    if not statistics:
        return False
    # As for the choice among several cuts, judged on other examples.
    some, others = (
        some_examples(
            train, settings.examples, settings.batch_size, settings.seed + i
        )
        for i in range(2)
    )
    before = [ops.convert_to_numpy(variable) for variable in statistics]
    loss = mean_loss(model, others)
    reestimate_batch_norm(model, some, settings.batch_size)
    if mean_loss(model, others) < loss:
        return True
    for variable, value in zip(statistics, before, strict=True):
        variable.assign(value)
    return False


class _Keep(keras.callbacks.Callback):
    """Writes the state after every epoch."""

    def __init__(self, state):
        super().__init__()
        self._state = state

    def on_epoch_end(self, epoch, logs=None):
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not np.isfinite(logs["loss"]):
            raise RunError(
                f"The loss became {logs['loss']} in epoch {epoch + 1} of the "
                "recovery. Try a smaller `learning_rate`."
            )
        self._state.save(self.model, logs)
