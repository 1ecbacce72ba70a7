"""Reading what runs left: result files and histories."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable

from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.run_folder import HISTORY, RESULT, RunFolder
from keras_sgl0.experiments.sweep_report import FIGURES
from keras_sgl0.utils.validation import InputError, require


def read_result(folder: str | os.PathLike) -> dict:
    """Returns what stands in a run's `result.json`.

    Its recipe has the settings of today: those that came after the run get
    their defaults. The best error of a run older than that figure is taken
    from its history.

    Args:
        folder: The run's folder.

    Returns:
        Sparsities and errors in percent, and all else.

    Raises:
        ValueError: If there is no such file, or if it is damaged.

    Example:
        >>> read_result("docs/results/mnist_sgl0-0")["test_error"]
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
        result = json.loads(path.read_text())
        result["recipe"] = upgrade_settings(result["recipe"])
        for name in FIGURES:
            float(result[name])
        if "best_test_error" not in result:
            rows = RunFolder(folder).history()
            if rows and "val_error" in rows[0]:
                best = min(float(row["val_error"]) for row in rows)
                result["best_test_error"] = round(100 * best, 6)
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"The file {path} cannot be read as a result: {problem!r}"
        ) from problem
    return result


def read_results(folders: Iterable[str | os.PathLike]) -> dict[str, dict]:
    """Returns the results of all runs in or below some folders.

    Args:
        folders: Folders of runs, or of several.

    Returns:
        The results by the path of their folder, each once, sorted.

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
    """Returns the columns of a run's `history.csv`, one number an epoch.

    Args:
        folder: The run's folder.

    Raises:
        ValueError: If it has no line yet, or is damaged.

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


def group(results: Iterable[dict], key: Callable[[dict], object]) -> dict:
    """Returns results in lists, one for each value of a key.

    Args:
        results: What is grouped.
        key: A function of one of them.

    Example:
        >>> group(read_results(["runs"]).values(), lambda r: r["seed"])
    """
    groups = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def settings(result: dict, *but: str) -> str:
    """Returns a text of the settings of a run, equal for equal ones.

    Args:
        result: A result.
        but: The settings to leave out.

    Example:
        >>> group(results, lambda result: settings(result, "seed"))
    """
    recipe = result["recipe"]
    kept = {name: recipe[name] for name in recipe.keys() - set(but)}
    return json.dumps(kept, sort_keys=True)
