"""Cuts a trained model to a budget and trains it back, for `compress`."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import keras
import numpy as np

from keras_sgl0.compression.arguments import DISTILL
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.features import Lineage
from keras_sgl0.compression.options import Options, resolve
from keras_sgl0.compression.prune import Criteria, cut
from keras_sgl0.compression.recovery import (
    mean_loss,
    number_of_batches,
    recover,
    some_examples,
    training_loss,
)
from keras_sgl0.compression.report import CompressReport, PruneReport, Settings
from keras_sgl0.compression.search import gate_search, penalty_search
from keras_sgl0.compression.state import State, fingerprint
from keras_sgl0.compression.timing import (
    Beside,
    Latencies,
    free_multiple,
    kept_for_latency,
)
from keras_sgl0.network.compilation import compile_like
from keras_sgl0.network.optimizers import renewed
from keras_sgl0.structures.costs import Cost, Measure
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.values import ThresholdedArrays
from keras_sgl0.utils.files import write
from keras_sgl0.utils.validation import choice


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

    @functools.cached_property
    def _timed(self) -> dict[str, Beside]:
        return {}

    def _beside(self, runtime: str) -> Beside:
        """Returns what times models beside the original."""
        return self._timed.setdefault(runtime, Beside(self.model, runtime))

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
        small, pruned, found, state = self.cut(settings, start, folder)
        if lineage is not None:
            lineage.cut(found, cast(np.ndarray, state.kept))
        history = recover(
            small,
            self.model,
            self.train,
            self.validation,
            dataclasses.replace(
                settings, epochs=settings.epochs - settings.search
            ),
            state,
            self.verbose,
            lineage,
        )
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

    def cut(
        self, settings: Settings, start: keras.Model, folder: str | None
    ) -> tuple[keras.Model, PruneReport, Structures, State]:
        """Returns a smaller model before it is trained.

        Args:
            settings: How far, and so on.
            start: The model to cut: the task's, or one made from it.
            folder: Where to keep the state, `None` for nowhere.

        Returns:
            The model, what went, the structures of the start, and the state.
        """
        key = dataclasses.asdict(settings)
        for name in ("limits", "minimum", "round_to", "scope"):
            key[name] = [str(getattr(own, name)) for own in self.criteria]
        key["model"] = [fingerprint(m) for m in (self.model, start)]

        def state_in(name):
            path = None if folder is None else os.path.join(folder, name)
            return State(path, key)

        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        state = state_in("state.npz")
        found = structures(start)
        searched = found
        if settings.search:
            # One that has ended only gives its model back.
            own = self._search(
                settings, start, found, state_in("search.npz"), state
            )
            searched = structures(own)
        if state.kept is not None:  # the cut was made earlier
            small, pruned = cut(searched, state.kept, settings.method)
        elif settings.search:
            small, pruned = self._cut_searched(settings, own, searched, state)
        else:
            small, pruned = self._cut_at_once(settings, start, found, state)
        return small, pruned, found, state

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

    def _cut_at_once(
        self,
        settings: Settings,
        start: keras.Model,
        found: Structures,
        state: State,
    ) -> tuple[keras.Model, PruneReport]:
        """Returns the model after the best of several cuts.

        The cuts are compared after their repair. The best one is trained from
        where a training begins with the smaller loss, with the repair or
        without.
        """
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
        latencies = Latencies(self._beside(settings.runtime), found)
        if step is None and settings.measure == "latency":
            step = free_multiple(latencies, settings.share, settings.runtime)
        cuts = []
        for criteria in self.criteria:
            own = dataclasses.replace(criteria, round_to=step or 1)
            kept, predicted = self._kept(settings, latencies, scores, own)
            small, pruned = cut(found, kept, settings.importance, some, size)
            compile_like(small, self.model, renewed(self.model.optimizer))
            loss = mean_loss(small, others)
            cuts.append((loss, own.scope, kept, predicted, small, pruned))
        _, scope, kept, predicted, small, pruned = min(cuts, key=lambda c: c[0])
        repaired = True
        if settings.epochs:
            plain = cut(found, kept, settings.importance)
            compile_like(plain[0], self.model, renewed(self.model.optimizer))
            if training_loss(plain[0], others) < training_loss(small, others):
                (small, pruned), repaired = plain, False
        state.kept = np.asarray(kept)
        state.facts = {
            "original": self.evaluate(self.model, size),
            "cut": self.evaluate(small, size),
            "predicted": predicted,
            "scope": scope,
            "round_to": step or 1,
            "repaired": repaired,
        }
        return small, pruned

    def _search(
        self,
        settings: Settings,
        start: keras.Model,
        found: Structures,
        state: State,
        end: State,
    ) -> keras.Model:
        """Returns the model to cut after a training that leaves zeros.

        Args:
            settings: For how long and so on.
            start: The model.
            found: Its structures.
            state: The state of this training.
            end: That of the training after the cut, which gets the logs.
        """
        own = dataclasses.replace(settings, epochs=settings.search)
        number = number_of_batches(self.train, settings.batch_size, "train")
        budget, steps = self._budget(settings, found), number * own.epochs
        if settings.method == "gates":
            search = gate_search(start, budget, steps, settings.seed)
        else:
            rate = settings.learning_rate
            search = penalty_search(settings.method, found, budget, rate, steps)
        end.facts["search"] = recover(
            search.student,
            self.model,
            self.train,
            self.validation,
            own,
            state,
            self.verbose,
            search=search,
        )
        return search.result()

    def _cut_searched(
        self,
        settings: Settings,
        searched: keras.Model,
        found: Structures,
        state: State,
    ) -> tuple[keras.Model, PruneReport]:
        """Returns the model without what a search has set to zero.

        What is above the budget goes by importance.
        """
        size = settings.batch_size
        some = some_examples(self.train, settings.examples, size, settings.seed)
        compile_like(searched, self.model, renewed(self.model.optimizer))
        kept, repair = found.alive(ThresholdedArrays(searched, 0)), None
        measure = cast(Measure, settings.measure)
        most = settings.share * self._whole.of(measure)
        criteria = self.criteria[0]
        if found.cost(kept).of(measure) > most:
            repair = some
            scores = criteria.scores(found, searched, some, size)
            budget = self._budget(settings, found)
            kept = criteria.select(found, budget, scores, kept)
        small, pruned = cut(found, kept, settings.method, repair, size)
        compile_like(small, self.model, renewed(self.model.optimizer))
        state.kept = np.asarray(kept)
        state.facts |= {
            "original": self.evaluate(self.model, size),
            "cut": self.evaluate(small, size),
            "predicted": None,
            "scope": criteria.scope,
            "round_to": 1,
            "repaired": repair is not None,
        }
        return small, pruned

    def _budget(self, settings: Settings, found: Structures) -> Budget:
        """Returns the budget as a share of the model to cut."""
        measure = cast(Measure, settings.measure)
        whole = self._whole.of(measure)
        share = settings.share * whole / found.cost().of(measure)
        return Budget(measure, min(share, 1.0))

    def _kept(
        self,
        settings: Settings,
        latencies: Latencies,
        scores: np.ndarray,
        criteria: Criteria,
    ) -> tuple[np.ndarray, float | None]:
        """Returns what is kept, and the share of the latency if measured."""
        if settings.measure == "latency":
            return kept_for_latency(latencies, scores, criteria, settings.share)
        found = latencies.found
        budget = self._budget(settings, found)
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
            latency=self._beside(settings.runtime).compare(small),
            predicted=state.facts["predicted"],
            scope=state.facts["scope"],
            round_to=state.facts["round_to"],
            repaired=state.facts["repaired"],
            remeasured=state.facts["remeasured"],
            history=(*state.facts.get("search", ()), *history),
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
