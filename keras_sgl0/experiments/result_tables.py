"""Fills in the tables of runs in Markdown pages from the result files."""

import os
import pathlib
import re
import statistics
from typing import TypeVar

from keras_sgl0.experiments.results import read_result
from keras_sgl0.experiments.run_result import GatesResult, RunResult, Ungated
from keras_sgl0.utils.tables import markdown_row, mean_and_deviation
from keras_sgl0.utils.validation import InputError, require

_T = TypeVar("_T")

_BAR = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[[^]]+\]\(([^)]+)\)")
_LINKS = re.compile(rf"{_LINK.pattern}( {_LINK.pattern})*")
# The header of the column with the links, the last one of a table of runs.
LINKS = "run"


def _measured(numbers):
    """Returns a column of means and deviations of one or more numbers."""

    def cell(results):
        places = zip(*map(numbers, results), strict=True)
        return " ".join(mean_and_deviation(values) for values in places)

    return cell


def _known(figure: _T | None, name: str) -> _T:
    """Returns a figure. A run that is older than the figure lacks it."""
    if figure is None:
        raise KeyError(name)
    return figure


def _figure(result: RunResult, name: str) -> float:
    return _known(getattr(result, name), name)


def _gates(result: RunResult) -> GatesResult:
    return _known(result.gates, "gates")


def _ungated(result: RunResult) -> Ungated:
    return _known(_gates(result).ungated, "ungated")


def _error(key, held_out=False):
    """Returns a column of an error, on the test or on held-out images."""

    def number(result):
        if bool(result.recipe["validation"]) != held_out:
            raise ValueError("the errors are those of other images")
        return [_figure(result, key)]

    return _measured(number)


def _architecture(of):
    """Returns a column of the open gates; for several runs the mean."""

    def cell(results):
        layers = zip(*(of(r).split("-") for r in results), strict=True)
        return "-".join(
            f"{statistics.mean(map(int, layer)):.0f}" for layer in layers
        )

    return cell


def _shrunk(key):
    """Returns a column of the mean size after shrinking."""

    def cell(results):
        sizes = [getattr(result.shrunk, key) for result in results]
        return f"{statistics.mean(sizes):,.0f}"

    return cell


def _stated(text):
    """Returns a column of settings; for several runs all values."""
    return lambda results: ", ".join(dict.fromkeys(map(text, results)))


def _expected_densities(result):
    """Returns the densities that have a target; without gates none."""
    gates = result.gates
    if gates and result.recipe["scope"] == "layer":
        return [100 * layer["density"] for layer in gates.layers]
    return [100 * gates.density] if gates else []


# The columns by name: functions of the results of the linked runs.
COLUMNS = {
    "weight sparsity": _measured(lambda r: [r.weight_sparsity]),
    "neuron sparsity": _measured(lambda r: [r.neuron_sparsity]),
    "test error": _error("test_error"),
    "last error": _error("test_error_unthresholded"),
    "uncut weight sparsity": _measured(
        lambda r: [_figure(r, "weight_sparsity_unthresholded")]
    ),
    "uncut neuron sparsity": _measured(
        lambda r: [_figure(r, "neuron_sparsity_unthresholded")]
    ),
    "best error": _error("best_test_error"),
    "validation error": _error("test_error", held_out=True),
    "expected density": _measured(_expected_densities),
    "density": _measured(
        lambda r: [100 - _figure(r, "weight_sparsity_kernels")]
    ),
    "architecture": _architecture(lambda r: _gates(r).architecture),
    "gates by mean": _architecture(
        lambda r: _known(_gates(r).mean, "mean").architecture
    ),
    "weights without gates": _measured(
        lambda r: [_ungated(r).weight_sparsity_kernels]
    ),
    "neurons without gates": _measured(lambda r: [_ungated(r).neuron_sparsity]),
    "shrunk parameters": _shrunk("parameters_after"),
    "shrunk MACs": _shrunk("macs_after"),
    "target": _stated(
        lambda r: " ".join(f"{100 * d:g}" for d in r.recipe["density"])
    ),
    "factor": _stated(lambda r: f"{r.recipe['factor']:g}"),
    "seed": _stated(lambda r: f"{r.seed}"),
    "epochs": _stated(lambda r: f"{r.epochs}"),
    "runs": lambda results: f"{len(results)}",
}


def fill_tables(page: str | os.PathLike) -> str:
    """Returns the text of a page with its tables of runs filled in.

    A table of runs is one whose last column is named `run`. If the last cell
    of a row links folders of runs, the columns named in `COLUMNS` are filled
    in from their result files, for several runs with the mean and the sample
    standard deviation. Other columns, rows without a link (published figures)
    and the rest of the page are unchanged.

    Args:
        page: The path of a Markdown file. Links are relative to its folder.

    Raises:
        ValueError: If there is no such page, or if a linked run has no result
            or lacks a figure that a column shows.

    Example:
        >>> text = fill_tables("README.md")
    """
    page = pathlib.Path(page).expanduser()
    require(page.is_file(), "page", "a Markdown file that exists", str(page))
    lines: list[str] = []
    header: list[str] = []
    for line in page.read_text().splitlines(keepends=True):
        cells = [cell.strip() for cell in _BAR.split(line.strip())[1:-1]]
        # The first line of a table is its header.
        header = (header or cells) if cells else []
        if header and header[-1] == LINKS and len(cells) == len(header):
            if _LINKS.fullmatch(cells[-1]):
                folders = _LINK.findall(cells[-1])
                cells = _row(page.parent, header, cells, folders)
                line = markdown_row(cells) + "\n"
        lines.append(line)
    return "".join(lines)


def _row(base, header, cells, folders):
    results = [read_result(base / folder) for folder in folders]

    def cell(name, text):
        try:
            return COLUMNS[name](results) if name in COLUMNS else text
        except (KeyError, ValueError, AttributeError, TypeError) as problem:
            raise InputError(
                f"The column {name!r} cannot be filled in from the runs "
                f"{folders}: {problem!r}"
            ) from problem

    return [cell(*pair) for pair in zip(header, cells, strict=True)]
