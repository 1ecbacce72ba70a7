"""Runs many trainings, several at a time, and keeps tables of the results."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.executors import Executor, Job, LocalExecutor, Task
from keras_sgl0.experiments.grid import Run
from keras_sgl0.experiments.overrides import as_text
from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.run_folder import RunFolder, run_lock
from keras_sgl0.experiments.sweep_report import SweepReport, sweep_report
from keras_sgl0.experiments.trackers import callback_factories
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.files import write_text
from keras_sgl0.utils.validation import InputError

with name_extra():
    from tqdm import tqdm

MARKDOWN, CSV = "sweep.md", "sweep.csv"
_SECONDS_BETWEEN_LOOKS = 0.2


def require_data(runs: list[Run], data_dir: str | None, download: bool):
    """Raises if a data set that the runs need is not available.

    With `download`, missing data sets are downloaded once, before several
    processes would do so at the same time. This happens in its own process:
    in this one, TensorFlow would reserve the GPU.

    Args:
        runs: The runs.
        data_dir: The folder of the data sets, as for `datasets.load`.
        download: Whether to download missing data sets.

    Raises:
        ValueError: If a data set is not available.

    Example:
        >>> require_data(plan(["mnist_sgl0"]), None, download=True)
    """
    names = dict.fromkeys(run.recipe.dataset for run in runs)
    names.pop("digits", None)  # part of scikit-learn, never missing
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        for name in names:
            process.submit(_load, name, data_dir, download).result()


def _load(*arguments):
    # Returns nothing: a data set is too large to send between processes.
    datasets.load(*arguments)


def unfinished(runs: Iterable[Run], folder: str | os.PathLike) -> list[Run]:
    """Returns the runs that are not finished yet.

    Args:
        runs: The runs.
        folder: The sweep's folder, which need not exist.

    Raises:
        ValueError: If a result file is damaged.

    Example:
        >>> unfinished(plan(["digits"]), "runs/sweep")
    """
    base = pathlib.Path(folder).expanduser()
    return [run for run in runs if not _is_finished(run, base / run.name)]


def _is_finished(run, folder):
    result = RunFolder(folder).result()
    if result is None:
        return False
    return upgrade_settings(result.recipe) == run.recipe.to_dict()


def command_of(
    script: str | os.PathLike,
    data_dir: str | None,
    download: bool,
    callbacks: Iterable[str] = (),
) -> Callable[[Run, str], list[str]]:
    """Returns a function that gives the command of a run, for `sweep`.

    Args:
        script: The path of `train.py`.
        data_dir: The folder of the data sets, `None` for the default.
        download: Whether to download a missing data set.
        callbacks: The names of callbacks, as for `callback_factories`.

    Raises:
        ValueError: If there is no such callback.

    Example:
        >>> command = command_of("scripts/train.py", None, download=True)
        >>> report, failed = sweep(runs, "runs/sweep", command)
    """
    shared = ["--download"] if download else []
    if data_dir:
        shared.append(f"--data_dir={data_dir}")
    if callbacks := list(callbacks):
        callback_factories(callbacks)  # raises
        shared.append(f"--callbacks={','.join(callbacks)}")

    def command(run, folder):
        settings = run.settings | {"seed": run.recipe.seed, "workdir": folder}
        own = [f"--{name}={as_text(v)}" for name, v in settings.items()]
        words = [sys.executable, str(script), f"--recipe={run.base}"]
        return [*words, *own, *shared]

    return command


def sweep(
    runs: list[Run],
    folder: str | os.PathLike,
    command: Callable[[Run, str], list[str]],
    executor: Executor | None = None,
    progress: bool = True,
) -> tuple[SweepReport, dict[str, str]]:
    """Trains the runs that are not finished yet, each in its own process.

    Each run has a folder inside the sweep's folder, which its process locks,
    and a log file beside it. If another process is already training a run,
    perhaps one of another machine or one left over from a sweep that was
    killed, the sweep waits for it. After each run, the tables of all finished
    runs are written again.

    Args:
        runs: The runs.
        folder: The sweep's folder, created if it does not exist.
        command: A function that takes a run and its folder and returns the
            command of the run. The command must lock the folder and resume a
            run that was killed, as `scripts/train.py` does.
        executor: Where the commands run. Default: `LocalExecutor()`, one
            process at a time on this machine.
        progress: Whether to show a progress bar, in epochs.

    Returns:
        The report on all finished runs in the folder, and a dict that says
        for each failed run, by name, how it failed.

    Raises:
        ValueError: If the folder cannot be written, or if a result in it is
            damaged.

    Example:
        >>> report, failed = sweep(plan(["digits"]), "runs/sweep", command)
    """
    start_on: Executor = executor or LocalExecutor()
    base = pathlib.Path(folder).expanduser()
    _write_tables(base)
    by_name = {run.name: run for run in runs}
    locks = {run.name: run_lock(base / run.name) for run in runs}
    waiting = unfinished(runs, base)
    jobs: dict[str, Job] = {}
    failed: dict[str, str] = {}
    bar = tqdm(
        initial=sum(_epochs_done(run, base) for run in runs),
        total=sum(run.recipe.epochs for run in runs),
        unit="epoch",
        disable=not progress,
    )
    try:
        while waiting or jobs:
            free = [run for run in waiting if not locks[run.name].holder()]
            starting = free[: start_on.room(len(jobs))]
            if starting:
                tasks = [_task(run, base, command) for run in starting]
                names = [run.name for run in starting]
                jobs |= zip(names, start_on.start(tasks), strict=True)
            waiting = [run for run in waiting if run not in starting]
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for name, job in list(jobs.items()):
                if (how := job.ended()) is not None:
                    del jobs[name]
                    if unfinished([by_name[name]], base):
                        failed[name] = _failure(how, _log(by_name[name], base))
                    _write_tables(base)
            waiting = unfinished(waiting, base)
            _show(bar, runs, base, failed, len(waiting) + len(jobs))
    finally:
        for job in jobs.values():
            job.stop()
        bar.close()
    return sweep_report(base), failed


def _task(run, base, command):
    words = command(run, str(base / run.name))
    return Task(run.name, words, _log(run, base))


def _log(run, base):
    return base / f"{run.name}.log"


def _failure(how, log):
    """Returns how a run failed, with the last line of its log."""
    words = log.read_text(errors="replace").strip().split("\n")[-1]
    return f"{how}, see {log}: {words}" if words else f"{how}, see {log}"


def _show(bar, runs, base, failed, left):
    """Updates the bar: finished epochs out of all that will be trained."""
    done = {run.name: _epochs_done(run, base) for run in runs}
    bar.n = sum(done.values())
    bar.total = sum(
        done[run.name] if run.name in failed else run.recipe.epochs
        for run in runs
    )
    text = f"{len(runs) - left - len(failed)} of {len(runs)} runs done"
    text += f", {len(failed)} failed" if failed else ""
    bar.set_postfix_str(text)


def _epochs_done(run, base):
    history = RunFolder(base / run.name).history()
    return min(len(history), run.recipe.epochs)


def _write_tables(base):
    """Writes the tables of a sweep, if a run is finished."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        report = sweep_report(base)
        if report.rows:
            write_text(base / MARKDOWN, report.to_markdown())
            write_text(base / CSV, report.to_csv())
    except OSError as problem:
        raise InputError(
            "Invalid value for argument `workdir`. Expected a folder that can "
            f"be written. Received: workdir={str(base)!r} ({problem})"
        ) from problem
