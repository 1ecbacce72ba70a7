"""Cuts a trained model to a budget and trains it back, for `compress`."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import keras
import numpy as np
from keras import ops

from keras_sgl0.compression.arguments import DISTILL
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.features import Lineage
from keras_sgl0.compression.prune import Criteria, cut
from keras_sgl0.compression.recovery import (
    number_of_batches,
    recover,
    require_fits,
    some_examples,
)
from keras_sgl0.compression.report import CompressReport, PruneReport, Settings
from keras_sgl0.compression.state import State, fingerprint, write
from keras_sgl0.compression.timing import (
    RUNTIMES,
    compare_on,
    free_multiple,
    kept_for_latency,
)
from keras_sgl0.network.compilation import compile_like
from keras_sgl0.network.optimizers import peak_learning_rate, renewed
from keras_sgl0.structures.families import Cost, Measure, Structures, structures
from keras_sgl0.utils.validation import (
    choice,
    finite_float,
    integer,
    require,
)

# On how many examples scores and repairs are computed.
_EXAMPLES = 1024
# Epochs, where the optimizer does not tell how long the original was trained.
_EPOCHS = 10
_MOST_EPOCHS = 40
# By default a size along a path is trained for this share of what the original
# was.
SHARE_OF_TRAINING = 1 / 7


class Options(NamedTuple):
    """How to train, as a caller gives it; see `compress`.

    Args:
        epochs: For how many epochs, `None` for a default.
        learning_rate: The peak, `None` for a default.
        distillation: The share of the distillation in the loss.
        distill: What of the original is distilled.
        batch_size: How many examples of arrays make a batch.
        runtime: Where the latency is measured.
        share_of_training: How long to train by default, as a share of what the
            optimizer has trained the model.
    """

    epochs: int | None
    learning_rate: float | None
    distillation: float
    distill: str
    batch_size: int
    runtime: str
    share_of_training: float


@dataclasses.dataclass(frozen=True)
class Task:
    """A model to compress, and the data to do it with.

    Attributes:
        model: The compiled model. It is the teacher, and is not changed.
        train: What `fit` takes.
        validation: What `fit` takes, `None` for none.
        criteria: What tells which structures go; the best of several.
        verbose: As for `fit`.
    """

    model: keras.Model
    train: Any
    validation: Any
    criteria: tuple[Criteria, ...]
    verbose: Any

    @functools.cached_property
    def _whole(self) -> Cost:
        """What the model costs, which is not found quickly for a large one."""
        return structures(self.model).cost()

    def compress(
        self,
        settings: Settings,
        start: keras.Model,
        folder: str | None,
        lineage: Lineage | None = None,
    ) -> tuple[keras.Model, CompressReport]:
        """Returns a smaller model, or goes on with it where it was killed.

        Args:
            settings: How far, for how long and so on.
            start: The model to cut: the task's, or one made from it.
            folder: Where to keep the state, `None` for nowhere.
            lineage: What knows the features of the start, `None` for outputs
                alone. It follows the cut.
        """
        key = dataclasses.asdict(settings)
        for name in ("limits", "minimum", "round_to", "scope"):
            key[name] = [str(getattr(own, name)) for own in self.criteria]
        key["model"] = [fingerprint(m) for m in (self.model, start)]
        path = None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, "state.npz")
        state = State(path, key)
        found = structures(start)
        small, pruned = self._cut(settings, start, found, state)
        if lineage is not None:
            lineage.cut(found, cast(np.ndarray, state.kept))
        history = recover(
            small,
            self.model,
            self.train,
            self.validation,
            settings,
            state,
            self.verbose,
            lineage,
        )
        compile_like(small, self.model, renewed(self.model.optimizer))
        # Else a file would be loaded with a warning.
        small.optimizer.build(small.trainable_variables)
        report = self._report(settings, small, pruned, state, history)
        if folder is not None:
            small.save(os.path.join(folder, "model.keras"))
            text = json.dumps(report.to_dict(), indent=2).encode()
            write(
                os.path.join(folder, "report.json"),
                lambda file: file.write(text),
            )
        return small, report

    def evaluate(self, model: keras.Model, batch_size: int) -> dict[str, float]:
        """Returns the loss and the metrics on the validation data.

        Args:
            model: A compiled model.
            batch_size: How many examples of arrays make a batch.
        """
        data = self.validation
        if data is None:
            return {}
        options: dict[str, Any] = {"x": data}
        if isinstance(data, tuple):
            names = ("x", "y", "sample_weight")
            options = dict(zip(names, data, strict=False))
            options["batch_size"] = batch_size
        found = model.evaluate(**options, verbose=0, return_dict=True)
        return {key: float(value) for key, value in found.items()}

    def _cut(
        self,
        settings: Settings,
        start: keras.Model,
        found: Structures,
        state: State,
    ) -> tuple[keras.Model, PruneReport]:
        """Returns the model after the cut.

        Where the cut was made earlier, the state has its weights.
        """
        if state.kept is not None:
            return cut(found, state.kept, settings.importance)
        size = settings.batch_size
        some = some_examples(self.train, settings.examples, size, settings.seed)
        # Scores by the loss need a compiled model.
        if start is not self.model:
            compile_like(start, self.model, renewed(self.model.optimizer))
        scores = self.criteria[0].scores(found, start, some, size)
        others = some_examples(
            self.train, settings.examples, size, settings.seed + 1
        )
        step = self.criteria[0].round_to
        if step is None and settings.measure == "latency":
            step = free_multiple(start, found, settings.share, settings.runtime)
        cuts = []
        for criteria in self.criteria:
            own = dataclasses.replace(criteria, round_to=step or 1)
            kept, predicted = self._kept(settings, found, scores, own)
            small, pruned = cut(found, kept, settings.importance, some, size)
            compile_like(small, self.model, renewed(self.model.optimizer))
            loss = _loss(small, others)
            cuts.append((loss, own.scope, kept, predicted, small, pruned))
        _, scope, kept, predicted, small, pruned = min(cuts, key=lambda c: c[0])
        state.kept = np.asarray(kept)
        state.facts = {
            "original": self.evaluate(self.model, size),
            "cut": self.evaluate(small, size),
            "predicted": predicted,
            "scope": scope,
            "round_to": step or 1,
        }
        return small, pruned

    def _kept(
        self,
        settings: Settings,
        found: Structures,
        scores: np.ndarray,
        criteria: Criteria,
    ) -> tuple[np.ndarray, float | None]:
        """Returns what is kept, and the share of the latency if measured."""
        if settings.measure == "latency":
            return kept_for_latency(
                self.model,
                found,
                scores,
                criteria,
                settings.share,
                settings.runtime,
            )
        # The budget is a share of the task's model, not of the one to cut.
        measure = cast(Measure, settings.measure)
        whole = self._whole.of(measure)
        share = settings.share * whole / found.cost().of(measure)
        budget = Budget(measure, min(share, 1.0))
        return criteria.select(found, budget, scores), None

    def _report(self, settings, small, pruned, state, history):
        before, after = self._whole, structures(small).cost()
        return CompressReport(
            settings=settings,
            families=pruned.families,
            parameters=before.parameters,
            parameters_after=after.parameters,
            macs=before.macs,
            macs_after=after.macs,
            original=state.facts["original"],
            cut=state.facts["cut"],
            recovered=self.evaluate(small, settings.batch_size),
            latency=compare_on(settings.runtime, self.model, small),
            predicted=state.facts["predicted"],
            scope=state.facts["scope"],
            round_to=state.facts["round_to"],
            history=tuple(history),
        )


def _loss(model: keras.Model, data: list[tuple]) -> float:
    """Returns the mean loss over some batches; NaN counts as the largest."""
    total, number = 0.0, 0
    for batch in data:
        size = len(keras.tree.flatten(batch[0])[0])
        values = model.test_on_batch(*batch, return_dict=True)
        model.reset_metrics()
        total += size * float(values["loss"])
        number += size
    return total / number if np.isfinite(total) else np.inf


def resolve(task: Task, budget: Budget, options: Options) -> Settings:
    """Returns the settings, with the defaults that come from the model.

    Args:
        task: What is compressed.
        budget: What it may cost.
        options: What the caller gave.

    Raises:
        ValueError: If an argument is out of range.
    """
    batch_size = options.batch_size
    integer("batch_size", batch_size, at_least=1)
    require(
        isinstance(task.verbose, str | int)
        and task.verbose in ("auto", 0, 1, 2),
        "verbose",
        '"auto", 0, 1 or 2, as `fit` takes it',
        task.verbose,
    )
    require_fits(task.model, task.train, batch_size, "train")
    if task.validation is not None:
        require_fits(task.model, task.validation, batch_size, "validation")
    number = number_of_batches(task.train, batch_size, "train")
    optimizer = task.model.optimizer
    epochs, learning_rate = options.epochs, options.learning_rate
    if epochs is None:
        trained = int(ops.convert_to_numpy(optimizer.iterations)) / number
        epochs = _EPOCHS
        if trained:
            epochs = round(options.share_of_training * trained)
        epochs = min(max(epochs, 1), _MOST_EPOCHS)
    if learning_rate is None:
        learning_rate = peak_learning_rate(optimizer)
    return Settings(
        measure=budget.measure,
        share=budget.share,
        runtime=choice("runtime", options.runtime, RUNTIMES),
        importance=task.criteria[0].name,
        epochs=integer("epochs", epochs, at_least=0),
        learning_rate=finite_float("learning_rate", learning_rate, above=0),
        distillation=finite_float(
            "distillation", options.distillation, at_least=0, below=1
        ),
        distill=choice("distill", options.distill, DISTILL),
        examples=_EXAMPLES,
        batch_size=batch_size,
        seed=task.criteria[0].seed,
    )


def lineage_of(task: Task, distill: str) -> Lineage | None:
    """Returns what follows the features of the original, if asked for.

    Args:
        task: What is compressed.
        distill: What of the original is distilled.

    Raises:
        ValueError: If it is unknown, or there are no features.
    """
    if choice("distill", distill, DISTILL) == "outputs":
        return None
    return Lineage(structures(task.model))


def walk(
    task: Task,
    budgets: Sequence[Budget],
    options: Options,
    folder: str | None,
) -> Iterator[tuple[keras.Model, CompressReport]]:
    """Yields one size after the other, each cut out of the one before.

    Args:
        task: What is compressed.
        budgets: The sizes, falling.
        options: How to train.
        folder: Where each size gets a folder of its own, `None` for nowhere.
    """
    start = task.model
    lineage = lineage_of(task, options.distill)
    for budget in budgets:
        settings = resolve(task, budget, options)
        name = f"{budget.measure}_{budget.share:.4g}"
        own = None if folder is None else os.path.join(folder, name)
        start, report = task.compress(settings, start, own, lineage)
        yield start, report
