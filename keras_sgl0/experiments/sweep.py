"""Many runs: a grid of recipes, settings and seeds, and their averages."""

import concurrent.futures
import dataclasses
import fcntl
import itertools
import multiprocessing
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Callable, Iterable

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.overrides import run_name, with_settings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.results import read_result, settings
from keras_sgl0.experiments.run_folder import RESULT, RunFolder
from keras_sgl0.experiments.sweep_report import FIGURES, SweepReport, SweepRow
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import InputError, choice, integer, require

with name_extra():
    from tqdm import tqdm

MARKDOWN, CSV = "sweep.md", "sweep.csv"
# Of a run's folder: the recipe, the seed and the settings.
_NAME = re.compile(r"(\w+)-\d+((?:-\w+=.*)?)")
_SETTING = re.compile(r"-(\w+)=(.*?)(?=-\w+=|$)")
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 10


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        base: The name of the recipe that it begins with.
        settings: What it sets beside the seed, by name.
        recipe: The recipe it trains.
    """

    base: str
    settings: dict
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its folder: the recipe, the seed and what else is set."""
        return run_name(self.base, self.recipe.seed, self.settings)


def plan(
    recipes: Iterable[str],
    seeds: Iterable[int] = (0,),
    grid: dict[str, list] | None = None,
) -> list[Run]:
    """Returns the runs of a grid: recipes x settings x seeds.

    Args:
        recipes: Names in `RECIPES`.
        seeds: The seeds of every recipe.
        grid: Other settings that vary, and the values of each. Values and
            seeds may be text.

    Raises:
        ValueError: If a recipe, a setting or a value is none, or if there are
            no recipes, no seeds or no values of a setting.

    Example:
        >>> plan(["digits"], [0, 1], {"factor": [0.1, 0.2]})
    """
    recipes, seeds, grid = list(recipes), list(seeds), grid or {}
    grid = {name: list(grid[name]) for name in sorted(grid)}
    for name, values in {"recipes": recipes, "seeds": seeds, **grid}.items():
        require(values, name, "at least one value", values)
    for base in recipes:
        choice("recipes", base, tuple(RECIPES))
    require("seed" not in grid, "set", "a setting but seed", "seed")
    runs = {}
    for base, *values, seed in itertools.product(
        recipes, *grid.values(), seeds
    ):
        given = dict(zip(grid, values, strict=True))
        try:
            recipe = with_settings(RECIPES[base], given | {"seed": seed})
        except InputError as problem:
            raise InputError(f"{problem} (recipe {base!r})") from problem
        chosen = {name: getattr(recipe, name) for name in given}
        run = Run(base=base, settings=chosen, recipe=recipe)
        runs[run.name] = run
    return list(runs.values())


def grid_from_text(texts: Iterable[str]) -> dict[str, list[str]]:
    """Returns the grid that a command line describes.

    Args:
        texts: `NAME=VALUE,VALUE,...`, one text a setting.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> grid_from_text(["factor=.1,.2", "axis=auto"])
        {'factor': ['.1', '.2'], 'axis': ['auto']}
    """
    grid = {}
    for text in texts:
        name, mark, values = text.partition("=")
        valid = mark and name not in grid
        require(valid, "set", "NAME=VALUE,VALUE,... once for each name", text)
        grid[name] = values.split(",")
    return grid


def require_data(runs: list[Run], data_dir: str | None, download: bool):
    """Raises unless every data set that the runs need can be had.

    Fetches it if need be, before several processes would. It happens in a
    process of its own, since TensorFlow would take hold of a GPU here.

    Args:
        runs: What is to run.
        data_dir: The folder of the data sets, as `datasets.load` wants it.
        download: Whether a data set that is not there may be fetched.

    Raises:
        ValueError: If a data set cannot be had.

    Example:
        >>> require_data(plan(["mnist_sgl0"]), None, download=True)
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        for name in dict.fromkeys(run.recipe.dataset for run in runs):
            process.submit(_load, name, data_dir, download).result()


def _load(*arguments):
    datasets.load(*arguments)  # and not returned to the other process


def unfinished(runs: Iterable[Run], folder: str | os.PathLike) -> list[Run]:
    """Returns the runs that are not finished in a sweep's folder.

    Args:
        runs: What is to run.
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


def sweep(
    runs: list[Run],
    folder: str | os.PathLike,
    command: Callable[[Run, str], list[str]],
    parallel: int = 1,
    progress: bool = True,
) -> tuple[SweepReport, dict[str, str]]:
    """Makes the runs that are not finished yet, each in a process of its own.

    Each run has a folder in the sweep's, and a log file beside it which its
    process keeps locked. So a run that another sweep is at, or whose process
    outlived a sweep that was killed, is waited for. The tables are written
    anew after every run, of all the runs that are in the folder.

    Args:
        runs: What to run.
        folder: The sweep's folder, made if need be.
        command: A function that returns the command of a run, given the run
            and its folder. The command must take up again a run that was
            killed, as `scripts/train.py` does.
        parallel: How many processes at a time. Each gets its share of cores.
        progress: Whether to show a progress bar, in epochs.

    Returns:
        The report on all runs in the folder; and for the runs that failed, by
        name, how.

    Raises:
        ValueError: If `parallel` is less than 1, the folder cannot be written,
            or a result in it is damaged.

    Example:
        >>> report, failed = sweep(plan(["digits"]), "runs/sweep", command)
    """
    integer("parallel", parallel, at_least=1)
    base = pathlib.Path(folder).expanduser()
    _write_tables(base)
    environment = os.environ | _environment(parallel)
    by_name = {run.name: run for run in runs}
    waiting, running, failed = unfinished(runs, base), {}, {}
    bar = tqdm(
        initial=sum(_epochs_done(run, base) for run in runs),
        total=sum(run.recipe.epochs for run in runs),
        unit="epoch",
        disable=not progress,
    )
    try:
        while waiting or running:
            for run in waiting[:]:
                if len(running) < parallel:
                    words = command(run, str(base / run.name))
                    process = _start(words, _log(run, base), environment)
                    if process:
                        running[run.name] = process
                        waiting.remove(run)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if unfinished([by_name[name]], base):
                        log = _log(by_name[name], base)
                        failed[name] = _failure(process, log)
                    _write_tables(base)
            waiting = unfinished(waiting, base)
            _show(bar, runs, base, failed, len(waiting) + len(running))
    finally:
        _stop(list(running.values()))
        bar.close()
    return sweep_report(base), failed


def _environment(parallel):
    """Returns what the processes of the runs find in their environment."""
    share = str(max(1, (os.cpu_count() or 1) // parallel))
    shared = {
        "OMP_NUM_THREADS": share,
        "TF_NUM_INTRAOP_THREADS": share,
        "TF_NUM_INTEROP_THREADS": share,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    # A log is no place for a progress bar.
    return {"TQDM_DISABLE": "1"} | (shared if parallel > 1 else {})


def _log(run, base):
    return base / f"{run.name}.log"


def _start(command, log, environment):
    """Returns a new process, `None` if another one has the log's lock."""
    with open(log, "a") as file:
        try:
            # The process inherits the lock with the file, and keeps it as
            # long as it lives.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def _stop(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(process, log):
    """Returns how a run failed, with the last words of its log."""
    words = log.read_text(errors="replace").strip().split("\n")[-1]
    text = f"exit status {process.returncode}, see {log}"
    return f"{text}: {words}" if words else text


def _show(bar, runs, base, failed, left):
    """Sets the bar to the epochs that are done, out of those to come."""
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


def sweep_report(folder: str | os.PathLike) -> SweepReport:
    """Returns the averages of the finished runs in a sweep's folder.

    Runs of one recipe and with the same settings are averaged over their
    seeds. Their names tell what was set.

    Args:
        folder: The sweep's folder, or any with runs directly in it.

    Raises:
        ValueError: If a result in it is damaged.

    Example:
        >>> print(sweep_report("runs/sweep"))
    """
    rows = {}
    for path in pathlib.Path(folder).expanduser().glob(f"*/{RESULT}"):
        result, name = read_result(path.parent), path.parent.name
        match = _NAME.fullmatch(name)
        base, ends = match.groups() if match else (name, "")
        key = base, ends, settings(result, "seed")
        rows.setdefault(key, []).append((result.seed, name, result))
    return SweepReport(
        tuple(
            sorted(
                (
                    _row(base=base, ends=ends, runs=runs)
                    for (base, ends, _), runs in rows.items()
                ),
                key=_order,
            )
        )
    )


def _row(base, ends, runs):
    runs = sorted(runs, key=lambda run: run[0])
    return SweepRow(
        recipe=base,
        settings=dict(_SETTING.findall(ends)),
        folders={seed: name for seed, name, _ in runs},
        figures={
            figure: [getattr(result, figure) for _, _, result in runs]
            for figure in FIGURES
        },
    )


def _order(row):
    """Returns what rows are sorted by: numbers come before text."""

    def value(text):
        try:
            return (0, float(text), "")
        except ValueError:
            return (1, 0.0, text)

    return row.recipe, [(n, *value(text)) for n, text in row.settings.items()]


def _write_tables(base):
    """Writes the tables of a sweep, if there is anything to write."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        report = sweep_report(base)
        if report.rows:
            _write(base / MARKDOWN, report.to_markdown())
            _write(base / CSV, report.to_csv())
    except OSError as problem:
        raise InputError(
            "Invalid value for argument `workdir`. Expected a folder that can "
            f"be written. Received: workdir={str(base)!r} ({problem})"
        ) from problem


def _write(path, text):
    new = path.with_name(f"new.{os.getpid()}.{path.name}")
    new.write_text(text)
    new.replace(path)
