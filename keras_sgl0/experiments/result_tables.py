"""Fills in tables of runs and figures in Markdown pages from result files."""

import json
import os
import pathlib
import re
import statistics
from collections.abc import Callable
from typing import TypeVar

from keras_sgl0.experiments.importance_rows import COLUMNS as CUTS
from keras_sgl0.experiments.importance_rows import read_rows
from keras_sgl0.experiments.result_figures import fill_figures
from keras_sgl0.experiments.results import read_result
from keras_sgl0.experiments.run_result import GatesResult, RunResult, Ungated
from keras_sgl0.utils.tables import markdown_row, mean_and_deviation
from keras_sgl0.utils.validation import InputError, require

_T = TypeVar("_T")

_BAR = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[[^]]+\]\(([^)]+)\)")
_LINKS = re.compile(rf"{_LINK.pattern}( {_LINK.pattern})*")
# The headers of the column with the links, the last one: of a table of runs, of
# a comparison of importances, and of files of other figures.
LINKS, CUT_LINKS, FILE_LINKS = "run", "cut", "files"


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


def _cut_error(column):
    """Returns a column of a comparison, empty where it does not apply."""

    def cell(rows):
        errors = [row.errors[column] for row in rows]
        return "" if None in errors else mean_and_deviation(errors)

    return cell


# The same for a comparison of importances, from its rows.
CUT_COLUMNS = {
    "scope": lambda rows: ", ".join(dict.fromkeys(r.scope for r in rows)),
    "MACs": _measured(lambda row: [100 * row.macs]),
    "seeds": lambda rows: f"{len(rows)}",
    **{title: _cut_error(name) for name, title in CUTS.items()},
}


def _number(key, digits=0):
    """Returns a column of the field of a file, or of a field in a field."""

    def number(file):
        for part in key.split("."):
            file = file[part]
        return file

    def cell(files):
        numbers = list(map(number, files))
        if not digits:
            return f"{statistics.mean(numbers):,.0f}"
        return mean_and_deviation(numbers, digits)

    return cell


def _channels(files):
    """Returns the channels of each layer that are left, for one network."""
    (file,) = files
    left = file.get("channels") or [
        family["structures_after"] for family in file["report"]["families"]
    ]
    return "-".join(map(str, left))


# The same for other files: of `benchmarks/transformers.py` and `frontier.py`,
# and of `scripts/compress.py`.
FILE_COLUMNS = {
    "multiply-adds": _number("macs"),
    "parameters": _number("parameters"),
    "weights": _number("weights"),
    "error": _number("error", digits=2),
    "loss": _number("loss", digits=3),
    "loss, nats a character": _number("loss", digits=3),
    "accuracy": _number("accuracy", digits=3),
    "multiply-adds left": _number("report.macs_after"),
    "parameters left": _number("report.parameters_after"),
    "channels": _channels,
    "times as fast": _number("report.latency.ratio", digits=2),
    "test error before": _number("test_error", digits=2),
    "after": _number("test_error_after", digits=2),
}


def _results(base: pathlib.Path, folders: list[str]) -> list:
    return [read_result(base / folder) for folder in folders]


def _rows(base: pathlib.Path, files: list[str]) -> list:
    return read_rows(base / file for file in files)


def _files(base: pathlib.Path, files: list[str]) -> list:
    try:
        return [json.loads((base / file).read_text()) for file in files]
    except (OSError, ValueError) as problem:
        raise InputError(
            f"A linked file cannot be read as JSON: {problem}"
        ) from problem


_KINDS: dict[str, tuple[dict, Callable]] = {
    LINKS: (COLUMNS, _results),
    CUT_LINKS: (CUT_COLUMNS, _rows),
    FILE_LINKS: (FILE_COLUMNS, _files),
}


def fill_page(page: str | os.PathLike) -> str:
    """Returns the text of a page with its tables and figures filled in.

    A table of runs is one whose last column is named `run`. If the last cell
    of a row links folders of runs, the columns named in `COLUMNS` are filled
    in from their result files, for several runs with the mean and the sample
    standard deviation. A table whose last column is named `cut` is filled in
    alike, from files of a comparison of importances, and one named `files` from
    JSON files of benchmarks and of `compress`. Other columns, rows
    without a link (published figures) and the rest of the page are unchanged,
    but for figures that are marked, see `fill_figures`.

    Args:
        page: The path of a Markdown file. Links are relative to its folder.

    Raises:
        ValueError: If there is no such page, if a linked run has no result or
            lacks a figure that a column shows, or a mark cannot be filled in.

    Example:
        >>> text = fill_page("README.md")
    """
    page = pathlib.Path(page).expanduser()
    require(page.is_file(), "page", "a Markdown file that exists", str(page))
    lines: list[str] = []
    header: list[str] = []
    for line in page.read_text().splitlines(keepends=True):
        cells = [cell.strip() for cell in _BAR.split(line.strip())[1:-1]]
        # The first line of a table is its header.
        header = (header or cells) if cells else []
        if header and header[-1] in _KINDS and len(cells) == len(header):
            if _LINKS.fullmatch(cells[-1]):
                cells = _row(page.parent, header, cells)
                line = markdown_row(cells) + "\n"
        lines.append(line)
    return fill_figures("".join(lines), page.parent)


def _row(base, header, cells):
    columns, read = _KINDS[header[-1]]
    links = _LINK.findall(cells[-1])
    results = read(base, links)

    def cell(name, text):
        try:
            return columns[name](results) if name in columns else text
        except (KeyError, ValueError, AttributeError, TypeError) as problem:
            raise InputError(
                f"The column {name!r} cannot be filled in from the runs "
                f"{links}: {problem!r}"
            ) from problem

    return [cell(*pair) for pair in zip(header, cells, strict=True)]
