"""Compares what tells which channels go, on one network and one budget."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import keras

from keras_sgl0.compression import compress, prune, reestimate_batch_norm
from keras_sgl0.compression.arguments import criteria
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.driver import Task
from keras_sgl0.compression.options import Options, resolve
from keras_sgl0.compression.prune import SCOPES
from keras_sgl0.compression.recovery import some_examples
from keras_sgl0.experiments.datasets import Dataset
from keras_sgl0.experiments.importance_rows import (
    COLUMNS,
    ROWS,
    SEARCHES,
    Row,
    read_rows,
)
from keras_sgl0.experiments.run import percent_wrong
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.utils.validation import require

# On how many images scores, repairs and statistics are computed.
_IMAGES = 1024


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A trained classifier, and what it is compressed on.

    Attributes:
        model: The classifier, compiled.
        data: The data set, all training images included.
        share: The share of the multiply-adds to keep.
        epochs: How many epochs the last two columns are trained. A row that is
            a training itself has half of them before the cut.
        validation: The share of the training images to hold out.
        augment: How to augment the others, as in `train_batches`.
        batch_size: How many images make a batch.
        folder: Where the files of the rows go.
        workdir: Where trainings keep their state.
    """

    model: keras.Model
    data: Dataset
    share: float
    epochs: int
    validation: float
    augment: str
    batch_size: int
    folder: str
    workdir: str

    def run(self, name: str, seed: int) -> Row:
        """Fills in one row; what its file has already is left as it is.

        Args:
            name: A name in `ROWS`.
            seed: The seed.

        Raises:
            ValueError: If there is no such row, or its file is of another
                comparison.
        """
        require(name in ROWS, "rows", f"names of {', '.join(ROWS)}", name)
        path = pathlib.Path(self.folder, f"{name}-{seed}.json")
        row = Row(
            name,
            seed,
            self.data.name,
            self.share,
            self.epochs,
            self.validation,
            self._original,
        )
        if path.exists():
            (found,) = read_rows([path])
            for field in ("dataset", "share", "epochs", "validation"):
                expected = getattr(row, field)
                received = getattr(found, field)
                require(expected == received, field, f"{received!r}", expected)
            row = found
        columns = _Columns(self, row, pathlib.Path(self.workdir))
        for column in COLUMNS:
            if column in row.errors:
                continue
            model = columns.model(column)
            row.held_out[column] = row.errors[column] = None
            if model is not None:
                row.held_out[column] = percent_wrong(model, self.seen)
                row.errors[column] = percent_wrong(model, self._test)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dataclasses.asdict(row), indent=2)
            path.write_text(f"{text}\n")
        return row

    @functools.cached_property
    def parts(self) -> Dataset:
        """The training images, some of them held out."""
        return self.data.held_out(self.validation)

    @functools.cached_property
    def seen(self):
        """Batches of the held-out images."""
        return self.parts.test_batches()

    @functools.cached_property
    def _test(self):
        return self.data.test_batches()

    @functools.cached_property
    def _original(self) -> float:
        return percent_wrong(self.model, self._test)


class _Columns:
    """Makes the models of one row."""

    def __init__(self, of: Comparison, row: Row, workdir: pathlib.Path):
        self._of = of
        self._row = row
        self._workdir = workdir / f"{row.row}-{row.seed}"
        self._is_search = row.row in SEARCHES
        self._train = of.parts.epoch_batches(
            of.batch_size, row.seed, of.augment
        )

    def model(self, column: str) -> keras.Model | None:
        """Returns the model of a column, `None` where it does not apply.

        Args:
            column: A name in `COLUMNS`.
        """
        row = self._row
        if not row.scope and not self._is_search:
            row.scope = self._best_scope()
        if column in ("trained", "distilled"):
            return self._trained(column)
        if column == "repaired":
            # After a search nothing is missing that could be repaired.
            return None if self._is_search else self._pruned(row.scope, True)
        if column == "cut":
            return self._cut
        norm = keras.layers.BatchNormalization
        if not any(isinstance(own, norm) for own in all_layers(self._cut)):
            return None
        return reestimate_batch_norm(self._cut, self._some)

    @functools.cached_property
    def _some(self) -> list[tuple]:
        size = self._of.batch_size
        return some_examples(self._train, _IMAGES, size, self._row.seed)

    @functools.cached_property
    def _cut(self) -> keras.Model:
        """The model after the cut alone."""
        if not self._is_search:
            return self._pruned(self._row.scope, False)
        of, row = self._of, self._row
        task = Task(
            of.model,
            self._train,
            of.seen,
            criteria("taylor", "best", 1.0, 1, None, row.seed),
            0,
        )
        options = Options(
            epochs=of.epochs,
            learning_rate=None,
            distillation=0.0,
            distill="outputs",
            batch_size=of.batch_size,
            runtime="keras",
            method=row.row,
            share_of_training=1.0,
        )
        settings = resolve(task, Budget("macs", of.share), options)
        small, *_ = task.cut(settings, of.model, str(self._workdir / "trained"))
        return small

    def _pruned(self, scope: str, repair: bool) -> keras.Model:
        small, _ = prune(
            self._of.model,
            macs=self._of.share,
            importance=self._row.row,
            data=self._some,
            scope=scope,
            repair=self._some if repair else None,
            seed=self._row.seed,
            verify=False,
        )
        return small

    def _best_scope(self) -> str:
        """Returns the scope with the lowest error on held-out images."""
        return min(
            SCOPES,
            key=lambda scope: percent_wrong(
                self._pruned(scope, True), self._of.seen
            ),
        )

    def _trained(self, column: str) -> keras.Model:
        of, row = self._of, self._row
        own: dict[str, Any] = {"method": row.row}
        if not self._is_search:
            own = {"importance": row.row, "scope": row.scope}
        small, report = compress(
            of.model,
            self._train,
            of.seen,
            macs=of.share,
            epochs=of.epochs,
            distillation=0.5 if column == "distilled" else 0.0,
            batch_size=of.batch_size,
            seed=row.seed,
            workdir=self._workdir / column,
            verbose=0,
            **own,
        )
        assert report.macs and report.macs_after  # images have known sizes
        row.macs = report.macs_after / report.macs
        return small
