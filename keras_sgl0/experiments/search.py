"""Searches the settings of a recipe for the best trade-offs, by Optuna."""

import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import time
import warnings
from collections.abc import Iterable
from typing import Any

import keras

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.lock import Lock
from keras_sgl0.experiments.objectives import (
    HopelessError,
    StopHopeless,
    objectives_by_name,
)
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.run import percent_wrong, run
from keras_sgl0.experiments.run_folder import MODEL
from keras_sgl0.experiments.search_report import (
    PROBLEM,
    SETUP,
    STUDY,
    TEST,
    SearchReport,
    open_journal,
    read_json,
    search_report,
)
from keras_sgl0.experiments.search_space import (
    Dimension,
    require_space,
    with_values,
)
from keras_sgl0.experiments.trackers import CallbackFactory
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.files import write_text
from keras_sgl0.utils.validation import InputError, RunError, integer, require

with name_extra():
    from tqdm import tqdm

MARKDOWN, JSON = "search.md", "report.json"
_SECONDS_BETWEEN_LOOKS = 1.0


def search(
    recipe: Recipe,
    space: dict[str, Dimension],
    objectives: Iterable[str],
    folder: str | os.PathLike,
    trials: int = 50,
    data_dir: str | None = None,
    download: bool = False,
    progress: bool = True,
    prune: bool = True,
    callbacks: Iterable[CallbackFactory] = (),
) -> SearchReport:
    """Trains a recipe with settings that Optuna chooses by what it has seen.

    All figures are those on held-out training images. Each trial is a run with
    a folder of its own, `trial-NUMBER`. Trials that are worse in all objectives
    than most others at the same epoch are stopped. When all have ended, the
    best one by the first objective is measured on the test images, once.

    Any number of processes, on all machines that share the folder, may call
    this with the same arguments: they share the trials. A trial whose process
    was killed goes on from its last epoch, in another process or when the same
    call is made again. With more `trials` the search goes on.

    Args:
        recipe: The recipe to start from, with a share of held-out images
            (`validation`).
        space: The settings that vary.
        objectives: Names in `objectives.OBJECTIVES`. With one, the front is
            the best trial.
        folder: The search's folder, created if it does not exist.
        trials: The number of trials of all processes together.
        data_dir: The folder of the data set, as for `datasets.load`.
        download: Whether to download a missing data set.
        progress: Whether to show a progress bar, in trials.
        prune: Whether to stop hopeless trials.
        callbacks: As in `run`.

    Returns:
        The report on all trials of all processes.

    Raises:
        ValueError: If the recipe holds no images out, if a setting does not
            exist or a value is out of range, if an objective is unknown, if
            the folder cannot be written or is of another search, or if Optuna
            (extra `search`) is not installed.

    Example:
        >>> report = search(
        ...     adapt(RECIPES["digits"], validation=0.2),
        ...     space_from_text("factor=loguniform(.01,10)"),
        ...     ["validation_error", "macs"],
        ...     "runs/search",
        ... )
        >>> print(report)
    """
    integer("trials", trials, at_least=1)
    expected = "a share of held-out images, as the test images are not used"
    require(recipe.validation, "validation", expected, recipe.validation)
    require_space(recipe, space)
    datasets.load(recipe.dataset, data_dir, download)  # raises
    worker = _Worker(recipe, space, objectives, folder)
    bar = tqdm(total=trials, unit="trial", disable=not progress)
    with contextlib.closing(bar):
        while (trial := worker.next_trial(trials)) is not None:
            number, values = trial
            own = worker.folder / f"trial-{number}"
            stop = [worker.stop_hopeless] if prune else []

            def train(changed, own=own, stop=stop):
                return run(
                    changed,
                    str(own),
                    data_dir,
                    download,
                    progress=False,
                    callbacks=[*stop, *callbacks],
                )

            worker.finish(number, values, train)
            report = worker.report()
            bar.n = len([t for t in report.trials if t.state != "running"])
            bar.set_postfix_str(f"front of {len(report.front)}")
    worker.test_best(data_dir)
    return worker.report()


class _Worker:
    """One of the processes of a search."""

    def __init__(self, recipe, space, objectives, folder):
        self.recipe, self.space = recipe, space
        self.objectives = objectives_by_name(objectives)
        self.folder = pathlib.Path(folder).expanduser()
        self._locks: dict[int, Lock] = {}
        # Held while a trial is chosen, or while files of all trials change.
        self._lock = Lock(self.folder / "lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._require_same_search()
                self._study = self._open()
        except OSError as problem:
            raise InputError(
                "Invalid value for argument `folder`. Expected a folder that "
                f"can be written. Received: folder={str(folder)!r} ({problem})"
            ) from problem

    def _require_same_search(self):
        setup = {
            "recipe": self.recipe.to_dict(),
            "space": {name: str(own) for name, own in self.space.items()},
            "objectives": list(self.objectives),
        }
        path = self.folder / SETUP
        if not path.exists():
            _write_json(path, setup)
        there = read_json(path)
        require(
            there == setup,
            "folder",
            "a new folder or one of the same recipe, space and objectives",
            f"{self.folder}, where {SETUP} says {there}",
        )

    def _open(self):
        storage = open_journal(self.folder)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        names = ["MINIMIZE", "MAXIMIZE"]
        directions = [
            optuna.study.StudyDirection[names[own.maximize]]
            for own in self.objectives.values()
        ]
        return optuna.create_study(
            storage=storage,
            study_name=STUDY,
            directions=directions,
            load_if_exists=True,
        )

    def next_trial(self, trials: int) -> tuple[int, dict] | None:
        """Returns the number and the values of a trial that this one has now.

        A trial whose process has died comes first. If others train the last
        ones, it waits for them, in case that they die. `None` if none is left.
        """
        while True:
            with self._lock:
                running = self._trials("RUNNING")
                for trial in running:
                    if self._lock_of(trial.number).acquire():
                        if trial.params.keys() == self.space.keys():
                            return trial.number, trial.params
                        # Killed while its values were chosen: there is no run.
                        self._tell(trial.number, state="FAIL")
                if len(self._trials()) < trials:
                    return self._ask()
            if not running:
                return None
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _ask(self):
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", optuna.exceptions.ExperimentalWarning
            )
            # A seed for each trial: different ones in different processes, and
            # the same when a killed search of one process goes on.
            self._study.sampler = optuna.samplers.TPESampler(
                seed=10**6 * self.recipe.seed + len(self._trials()),
                constant_liar=True,
            )
            trial = self._study.ask(
                {name: own.distribution() for name, own in self.space.items()}
            )
        self._lock_of(trial.number).wait()
        return trial.number, trial.params

    def finish(self, number, values, train):
        """Trains a trial and notes what came out."""
        told: dict[str, Any]
        try:
            result = train(with_values(self.recipe, values))
            figures = [own.figure(result) for own in self.objectives.values()]
            if None in figures:
                raise RunError(f"It could not be shrunk: {result.shrunk}")
            told = {"values": figures}
        except HopelessError:
            told = {"state": "PRUNED"}
        except (InputError, RunError) as problem:
            if self._lock_of(number).lost:
                return  # to another process, which goes on with the trial
            # Such as a NaN loss, or a density that the network cannot have.
            # Optuna learns from a pruned trial, but not from a failed one.
            told = {"state": "PRUNED"}
            own = self.folder / f"trial-{number}"
            own.mkdir(exist_ok=True)
            (own / PROBLEM).write_text(f"{problem}\n")
        with self._lock:
            self._tell(number, **told)
            self._write_report()
        keras.utils.clear_session()
        gc.collect()

    def stop_hopeless(self, recipe, folder):
        """Returns the callback that stops a hopeless trial."""
        finished = self._trials("COMPLETE")
        return StopHopeless(
            self.objectives.values(),
            [str(self.folder / f"trial-{own.number}") for own in finished],
            folder,
            recipe.epochs,
        )

    def report(self) -> SearchReport:
        """Returns the report on all trials."""
        return search_report(self.folder)

    def test_best(self, data_dir):
        """Measures the best trial on the test images, unless it was before."""
        with self._lock:
            best = self.report().best
            if best is None or best.test_error is not None:
                return
            path = self.folder / TEST
            tested = read_json(path) if path.exists() else {}
            recipe = with_values(self.recipe, best.settings)
            data = datasets.load(recipe.dataset, data_dir)
            if recipe.normalize:
                trained_on = data.held_out(recipe.validation).normalized()
                data = dataclasses.replace(
                    data, mean=trained_on.mean, stddev=trained_on.stddev
                )
            model = keras.saving.load_model(
                self.folder / best.folder / MODEL, compile=False
            )
            error = percent_wrong(model, data.test_batches())
            _write_json(path, tested | {str(best.number): error})
            self._write_report()

    def _write_report(self):
        report = self.report()
        write_text(self.folder / MARKDOWN, report.to_markdown())
        _write_json(self.folder / JSON, report.to_dict())

    def _trials(self, *states):
        import optuna

        wanted = [optuna.trial.TrialState[name] for name in states] or None
        return self._study.get_trials(deepcopy=False, states=wanted)

    def _tell(self, number, values=None, state="COMPLETE"):
        import optuna

        self._study.tell(number, values, optuna.trial.TrialState[state])
        self._lock_of(number).release(remove=True)

    def _lock_of(self, number):
        if number not in self._locks:
            self._locks[number] = Lock(self.folder / f"trial-{number}.lock")
        return self._locks[number]


def _write_json(path, content):
    write_text(path, json.dumps(content, indent=2) + "\n")
