"""Reads the result files and histories of runs."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.run_folder import HISTORY, RESULT, RunFolder
from keras_sgl0.experiments.run_result import RunResult
from keras_sgl0.utils.validation import InputError, require

_T = TypeVar("_T")
_Key = TypeVar("_Key")


def read_result(folder: str | os.PathLike) -> RunResult:
    """Returns the content of a run's `result.json`.

    Settings that are newer than the run get their defaults. If the file has no
    `best_test_error`, it is taken from the history.

    Args:
        folder: The run's folder.

    Returns:
        What the run measured, sparsities and errors in percent.

    Raises:
        ValueError: If there is no such file, or if it is damaged.

    Example:
        >>> read_result("docs/results/mnist_sgl0-0").test_error
        0.81
    """
    path = pathlib.Path(folder).expanduser() / RESULT
    require(
        path.is_file(),
        "folder",
        f"a run's folder, with a {RESULT}",
        str(folder),
    )
    try:
        result = RunResult.from_dict(json.loads(path.read_text()))
        recipe = upgrade_settings(result.recipe)
        result = dataclasses.replace(result, recipe=recipe)
        if result.best_test_error is None:
            rows = RunFolder(folder).history()
            if rows and "val_error" in rows[0]:
                best = min(float(row["val_error"]) for row in rows)
                best = round(100 * best, 6)
                result = dataclasses.replace(result, best_test_error=best)
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"The file {path} cannot be read as a result: {problem!r}"
        ) from problem
    return result


def read_results(
    folders: Iterable[str | os.PathLike],
) -> dict[str, RunResult]:
    """Returns the results of all runs in or below some folders.

    Args:
        folders: Folders of runs, or of several.

    Returns:
        The results by the paths of their folders, sorted, without duplicates.

    Raises:
        ValueError: If one of the folders has no run, or a result is damaged.

    Example:
        >>> read_results(["docs/results/targets"])
    """
    found = {}
    for folder in folders:
        paths = sorted(pathlib.Path(folder).expanduser().rglob(RESULT))
        require(paths, "folders", "folders of finished runs", str(folder))
        for path in paths:
            found[path.parent.resolve()] = path.parent
    return {str(path): read_result(path) for path in sorted(found.values())}


def read_history(folder: str | os.PathLike) -> dict[str, list[float]]:
    """Returns the columns of a run's `history.csv`, one number per epoch.

    Args:
        folder: The run's folder.

    Raises:
        ValueError: If it is empty or damaged.

    Example:
        >>> read_history("docs/results/mnist_sgl0-0")["threshold"][0]
        0.2828426957130432
    """
    rows = RunFolder(folder).history()
    expected = f"a run's folder, with a {HISTORY}"
    require(rows, "folder", expected, str(folder))
    try:
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except (ValueError, TypeError) as problem:
        raise InputError(
            f"The {HISTORY} in {folder} cannot be read: {problem!r}"
        ) from problem


def group(
    results: Iterable[_T], key: Callable[[_T], _Key]
) -> dict[_Key, list[_T]]:
    """Returns lists of the results that have the same key.

    Args:
        results: The results.
        key: A function that returns the key of a result.

    Example:
        >>> group(read_results(["runs"]).values(), lambda r: r.seed)
    """
    groups: dict[_Key, list[_T]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def settings(result: RunResult, *but: str) -> str:
    """Returns the settings of a run as text, to compare runs by.

    Args:
        result: A result.
        but: The settings to leave out.

    Example:
        >>> group(results, lambda result: settings(result, "seed"))
    """
    recipe = result.recipe
    kept = {name: recipe[name] for name in recipe.keys() - set(but)}
    return json.dumps(kept, sort_keys=True)
