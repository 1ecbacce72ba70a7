"""The trials of a search: its Pareto front, and what they have cost."""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_sgl0.experiments.objectives import OBJECTIVES
from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.tables import Report, as_text, markdown_row, new_table
from keras_sgl0.utils.validation import InputError, require

JOURNAL, SETUP, TEST = "journal.log", "search.json", "test.json"
STUDY = "search"
PROBLEM = "problem.txt"  # in the folder of a trial that failed


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: Its number.
        state: "complete", "pruned", "failed" or "running".
        settings: The settings that the search has chosen, by name.
        values: Its values of the objectives; none if it is not complete.
        epochs: The number of epochs that it was trained.
        seconds: How long they took.
        test_error: The test error in percent, `None` if it was not measured.
    """

    number: int
    state: str
    settings: dict[str, Any]
    values: list[float]
    epochs: int
    seconds: float
    test_error: float | None = None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"trial-{self.number}"


@dataclasses.dataclass(frozen=True)
class SearchReport(Report):
    """The trials of a search.

    `print(report)` shows the front and what the search has cost.

    Attributes:
        objectives: The names of the objectives.
        trials: All trials, by number.
    """

    objectives: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other one dominates, sorted by the objectives."""
        costs = {t.number: self.costs(t.values) for t in self.complete}
        front = [
            trial
            for trial in self.complete
            if not any(
                dominates(other, costs[trial.number])
                for other in costs.values()
            )
        ]
        return tuple(sorted(front, key=lambda t: (costs[t.number], t.number)))

    @property
    def best(self) -> Trial | None:
        """The best trial by the first objective, then by the next ones."""
        return self.front[0] if self.front else None

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials that have values."""
        return tuple(trial for trial in self.trials if trial.values)

    def costs(self, values: Sequence[float]) -> list[float]:
        """Returns values of the objectives as numbers that are to be small.

        Args:
            values: One for each objective.
        """
        return [
            OBJECTIVES[name].cost(value)
            for name, value in zip(self.objectives, values, strict=True)
        ]

    def summary(self) -> str:
        """Returns what the search has cost, as text."""
        states = collections.Counter(trial.state for trial in self.trials)
        words = {"fail": "failed"}
        texts = [
            f"{n} {words.get(state, state)}" for state, n in states.items()
        ]
        epochs = sum(trial.epochs for trial in self.trials)
        minutes = sum(trial.seconds for trial in self.trials) / 60
        return (
            f"{len(self.trials)} trials ({', '.join(texts)}): {epochs:,} "
            f"epochs in {minutes:.1f} minutes of training"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values, ready for JSON."""
        return {
            "objectives": list(self.objectives),
            "front": [trial.number for trial in self.front],
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SearchReport":
        """Returns the report that `to_dict` described.

        Args:
            values: What it returned.
        """
        trials = tuple(Trial(**trial) for trial in values["trials"])
        return cls(tuple(values["objectives"]), trials)

    def to_markdown(self) -> str:
        """Returns the front as a Markdown table, and the cost below it."""
        header = [*self._header(), "run"]
        lines = [header, ["---"] * len(header)]
        for trial in self.front:
            link = f"[{trial.number}]({trial.folder}/)"
            lines.append([*self._cells(trial), link])
        rows = "".join(f"{markdown_row(line)}\n" for line in lines)
        return f"{rows}\n{self.summary()}.\n"

    def __str__(self) -> str:
        table = new_table()
        for header in self._header():
            table.add_column(header, justify="right")
        for trial in self.front:
            table.add_row(*self._cells(trial))
        return f"{as_text(table, width=160)}\n {self.summary()}"

    def _header(self):
        titles = [OBJECTIVES[name].title for name in self.objectives]
        return ["trial", *self._settings(), *titles, "test error"]

    def _settings(self):
        return list(dict.fromkeys(n for t in self.front for n in t.settings))

    def _cells(self, trial):
        settings = (trial.settings.get(name, "") for name in self._settings())
        values = (
            OBJECTIVES[name].format.format(value)
            for name, value in zip(self.objectives, trial.values, strict=True)
        )
        error = trial.test_error
        return [
            f"{trial.number}",
            *(f"{v:.3g}" if isinstance(v, float) else f"{v}" for v in settings),
            *values,
            "" if error is None else f"{error:.2f}",
        ]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Returns whether costs are as low as others everywhere, and not equal.

    Args:
        one: The costs.
        other: The other costs.
    """
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def open_journal(folder: str | os.PathLike) -> Any:
    """Returns Optuna's storage of a search.

    Args:
        folder: The search's folder.

    Raises:
        ValueError: If Optuna (extra `search`) is not installed, or if the
            journal is damaged.
    """
    with name_extra():
        from optuna.storages import JournalStorage, journal

    path = str(pathlib.Path(folder).expanduser() / JOURNAL)
    # Unlike the default it needs no symbolic links, which some lack.
    lock = journal.JournalFileOpenLock(path)
    try:
        return JournalStorage(journal.JournalFileBackend(path, lock))
    except ValueError as problem:
        raise InputError(
            f"The file {path} cannot be read as a journal ({problem})."
        ) from problem


def search_report(folder: str | os.PathLike) -> SearchReport:
    """Returns the report on a search, which may still be going on.

    Args:
        folder: The search's folder.

    Raises:
        ValueError: If it is not the folder of a search, or damaged.

    Example:
        >>> print(search_report("runs/search"))
    """
    base = pathlib.Path(folder).expanduser()
    required = [base / SETUP, base / JOURNAL]
    require(
        all(path.is_file() for path in required),
        "folder",
        f"the folder of a search, with {SETUP} and {JOURNAL}",
        str(folder),
    )
    storage = open_journal(base)
    import optuna

    study = optuna.load_study(study_name=STUDY, storage=storage)
    tested = read_json(base / TEST) if (base / TEST).exists() else {}
    trials = []
    for own in study.get_trials(deepcopy=False):
        folder = base / f"trial-{own.number}"
        rows = RunFolder(folder).history()
        state = own.state.name.lower()
        failed = state == "fail" or (folder / PROBLEM).exists()
        trial = Trial(
            number=own.number,
            state="failed" if failed else state,
            settings=dict(own.params),
            values=list(own.values or []) if state == "complete" else [],
            epochs=len(rows),
            seconds=round(sum(float(row["seconds"]) for row in rows), 1),
            test_error=tested.get(str(own.number)),
        )
        trials.append(trial)
    objectives = read_json(base / SETUP)["objectives"]
    return SearchReport(tuple(objectives), tuple(trials))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a file of a search.

    Args:
        path: The file.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as problem:
        raise InputError(f"The file {path} cannot be read ({problem}).") from (
            problem
        )
