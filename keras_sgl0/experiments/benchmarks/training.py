"""How long it takes to a sparse network, on three ways."""

import dataclasses
import functools
import statistics
import threading
import time
from collections.abc import Iterable

import keras

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.building import (
    batches_for,
    build,
    callbacks_for,
)
from keras_sgl0.experiments.datasets import Dataset
from keras_sgl0.experiments.grid import grid_from_text, plan
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.shrinking import fit_shrinking, shrink
from keras_sgl0.utils.tables import Report, as_text, new_table
from keras_sgl0.utils.validation import choice, require


@dataclasses.dataclass(frozen=True)
class Training:
    """How one training went.

    Attributes:
        name: The way.
        seconds: How long each epoch took, with its tests; the first one with
            the tracing, one after a cut with the cut.
        rest: How long all took that followed, such as the last `shrink`.
        parameters: How many are left.
        error: The last test error, in percent.
    """

    name: str
    seconds: list[float]
    rest: float
    parameters: int
    error: float

    @property
    def total(self) -> float:
        """The seconds of all."""
        return sum(self.seconds) + self.rest


@dataclasses.dataclass(frozen=True)
class Trainings(Report):
    """Several trainings side by side; `print(trainings)` shows a table.

    Attributes:
        trainings: The first one is what the others are compared with.
    """

    trainings: tuple[Training, ...]

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        table = new_table()
        table.add_column("training", no_wrap=True)
        for header in (
            *("seconds", "to dense", "an epoch at the end", "to dense"),
            *("min", "max", "parameters", "test error, %"),
        ):
            table.add_column(header, justify="right")
        base = self.trainings[0]
        for one in self.trainings:
            # The last quarter, where the network is as small as it gets.
            last = slice(3 * len(one.seconds) // 4, None)
            ratios = [
                own / dense
                for own, dense in zip(
                    one.seconds[last], base.seconds[last], strict=True
                )
            ]
            table.add_row(
                one.name,
                f"{one.total:.1f}",
                f"{one.total / base.total:.2f}",
                f"{statistics.median(one.seconds[last]):.3f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f}",
                f"{max(ratios):.2f}",
                f"{one.parameters:,}",
                f"{one.error:.2f}",
            )
        return as_text(table, width=110)


def train_recipe(
    name: str,
    settings: Iterable[str],
    every: int,
    data_dir: str | None = None,
) -> Trainings:
    """Loads the data of a recipe, and trains it on three ways.

    Args:
        name: The recipe's.
        settings: `NAME=VALUE` for each of its settings that is another one.
        every: After how many epochs the network shrinks.
        data_dir: The folder of the data, as `datasets.load` wants it.

    Raises:
        ValueError: If there is no such recipe or setting, if a setting has
            several values, and as in `training_times`.
    """
    choice("recipe", name, tuple(RECIPES))
    grid = grid_from_text(settings)
    runs = plan([name], grid=grid)
    require(len(runs) == 1, "set", "one value for each name", grid)
    recipe = runs[0].recipe
    data = datasets.load(recipe.dataset, data_dir)
    return training_times(recipe, data, every)


def training_times(recipe: Recipe, dataset: Dataset, every: int) -> Trainings:
    """Trains without the penalty, with it, and on the shrinking network.

    The three trainings take turns, an epoch each, as the speed of a machine
    drifts. All have the same seed, data and callbacks.

    Args:
        recipe: One with a penalty that makes channels exactly zero.
        dataset: The recipe's data set.
        every: After how many epochs the network shrinks.

    Raises:
        ValueError: If the recipe has no penalty, or one by gates.

    Example:
        >>> recipe = RECIPES["digits_group_lasso_coupled"]
        >>> print(training_times(recipe, datasets.load("digits"), 5))
    """
    has_penalty = recipe.penalty not in ("none", "l0_gates")
    expected = "a recipe with a penalty on weights"
    require(has_penalty, "recipe", expected, recipe.penalty)
    if recipe.normalize:
        dataset = dataset.normalized()
    dense = adapt(recipe, penalty="none", training="subgradient")
    ways = {
        "dense": (dense, None),
        "sparse": (recipe, None),
        "sparse, shrinking": (recipe, every),
    }
    turns = {
        name: _Turns(_Fit(own, dataset, cuts))
        for name, (own, cuts) in ways.items()
    }
    while not all(own.is_over for own in turns.values()):
        for own in turns.values():
            if not own.is_over:
                own.next()
    return Trainings(
        tuple(
            Training(name, own.seconds, own.rest, *own.result)
            for name, own in turns.items()
        )
    )


class _Fit:
    """A training that waits for its turn before each epoch.

    Args:
        recipe: The settings.
        dataset: The data set, as the recipe wants it.
        every: After how many epochs the network shrinks, `None` for never.
    """

    def __init__(self, recipe, dataset, every):
        self.recipe = recipe
        self.dataset = dataset
        self.every = every

    def __call__(self, wait):
        """Trains; returns the parameters that are left and the error.

        Args:
            wait: Is called after each epoch.
        """
        recipe, dataset = self.recipe, self.dataset
        keras.utils.set_random_seed(recipe.seed)
        model, scale = build(recipe, dataset)
        pause = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: wait()
        )
        batches = batches_for(recipe, dataset)
        settings = {
            "epochs": recipe.epochs,
            "steps_per_epoch": dataset.steps_per_epoch(recipe.batch_size),
            "shuffle": False,
            "validation_data": dataset.test_batches(),
            "callbacks": [*callbacks_for(recipe, scale), pause],
            "verbose": 0,
        }
        if self.every is None:
            history = model.fit(batches(0), **settings)
        else:
            model, history = fit_shrinking(
                model,
                batches,
                shrink_every=self.every,
                tolerance=recipe.tolerance,
                **settings,
            )
        if recipe.penalty != "none":
            model, _ = shrink(model, recipe.tolerance)
        return model.count_params(), 100 * history.history["val_error"][-1]


class _Turns:
    """A function in a thread that runs only while `next` waits for it.

    Args:
        function: Is given what it has to call at the end of each turn.

    Attributes:
        seconds: How long each turn took.
        rest: How long it ran after the last one.
        is_over: Whether it has returned.
        result: What it returned.
    """

    def __init__(self, function):
        self.seconds: list[float] = []
        self.rest = 0.0
        self.is_over = False
        self.result = (0, 0.0)
        self._problem: BaseException | None = None
        self._begin, self._end = threading.Semaphore(0), threading.Semaphore(0)
        # A daemon, so that it does not keep a process alive that is stopped.
        run = functools.partial(self._run, function)
        threading.Thread(target=run, daemon=True).start()

    def next(self):
        """Lets the function run up to the end of its turn."""
        start = time.perf_counter()
        self._begin.release()
        self._end.acquire()
        seconds = time.perf_counter() - start
        if self._problem is not None:
            raise self._problem
        if self.is_over:
            self.rest = seconds
        else:
            self.seconds.append(seconds)

    def _wait(self):
        self._end.release()
        self._begin.acquire()

    def _run(self, function):
        self._begin.acquire()
        try:
            self.result = function(self._wait)
        except BaseException as problem:
            self._problem = problem
        self.is_over = True
        self._end.release()
