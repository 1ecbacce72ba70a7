"""Fills in the figures in the text of Markdown pages from the result files."""

import json
import pathlib
import re
import statistics
from collections.abc import Callable
from typing import Any

from keras_sgl0.utils.validation import InputError

_MARKED = re.compile(r"<!--=(.*?)-->(.*?)<!--/-->", re.DOTALL)
# A field of a file or several, by itself or in the parentheses of a function.
_FIELD = re.compile(
    r"(?:\b(?P<of>max|min|stdev)\(\s*)?"
    r"(?P<field>[A-Za-z_][\w.]*)@(?P<path>(?:[^\s()*+,{}]|\{[^}]*\})+)"
    r"(?(of)\s*\))"
)
_FUNCTIONS: dict[str | None, Callable[[list[float]], float]] = {
    None: statistics.fmean,
    "max": max,
    "min": min,
    "stdev": statistics.stdev,
}
_BRACES = re.compile(r"(.*)\{([^}]*)\}(.*)")
_ARITHMETIC = re.compile(r"[\d.\s+\-*/()e]+")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[\d,]*)(?:\.(?P<decimals>\d+))?"
)


def fill_figures(text: str, folder: pathlib.Path) -> str:
    """Returns a text with the figures in it that are marked.

    A mark is a comment, which a reader does not see, with the figure behind
    it: `<!--= test_error@results/plain-0/ -->11.84<!--/-->`. It names a field
    of a JSON file: `test_error` of `result.json` in this folder. Fields in
    fields have dots, `shrunk.macs`; entries of a list their number. Of several
    files, `plain-{0,1,2}/`, it is the mean; `max(...)`, `min(...)` and
    `stdev(...)` of such a field are what they say. Marks may reckon with
    numbers, `+`, `-`, `*`, `/` and parentheses. The figure keeps its number of
    decimals and its commas, and a leading zero if it has one.

    Args:
        text: The text.
        folder: What paths are relative to.

    Raises:
        ValueError: If a mark cannot be read, or its file or field is missing.

    Example:
        >>> mark = "test_error@results/a/ - test_error@results/b/"
        >>> fill_figures(f"better by <!--= {mark} -->.9<!--/-->", folder)
    """

    def fill(found):
        mark, shown = found.groups()
        value = _value(" ".join(mark.split()), folder)
        return f"<!--={mark}-->{_formatted(value, shown)}<!--/-->"

    return _MARKED.sub(fill, text)


def _value(mark: str, folder: pathlib.Path) -> float:
    """Returns what a mark stands for."""
    numbers = _FIELD.sub(
        lambda found: f"({_measured(found, folder, mark)!r})", mark
    )
    if _FIELD.search(mark) and _ARITHMETIC.fullmatch(numbers):
        try:
            # Nothing but numbers, signs and parentheses.
            return float(eval(numbers, {"__builtins__": {}}))
        except (SyntaxError, TypeError, ArithmeticError):
            pass
    raise InputError(
        "Invalid mark of a figure. Expected fields of files, such as "
        "`test_error@results/plain-0/`, and what to reckon with them. "
        f"Received: {mark!r}"
    )


def _measured(found: re.Match, folder: pathlib.Path, mark: str) -> float:
    """Returns a field of a file, or a mean or the like over several."""
    values = [
        _read(found["field"], folder / path, mark)
        for path in _paths(found["path"])
    ]
    try:
        return _FUNCTIONS[found["of"]](values)
    except statistics.StatisticsError as problem:
        raise InputError(
            f"The figure {mark!r} cannot be filled in: {problem}."
        ) from problem


def _paths(path: str) -> list[str]:
    """Returns the paths that one with braces stands for."""
    braces = _BRACES.fullmatch(path)
    if braces is None:
        return [path]
    before, each, after = braces.groups()
    return [
        one
        for choice in each.split(",")
        for one in _paths(f"{before}{choice}{after}")
    ]


def _read(field: str, path: pathlib.Path, mark: str) -> float:
    file = path / "result.json" if path.is_dir() else path
    try:
        value: Any = json.loads(file.read_text())
        for key in field.split("."):
            value = value[int(key) if isinstance(value, list) else key]
        return float(value)
    except (OSError, KeyError, IndexError, ValueError, TypeError) as problem:
        raise InputError(
            f"The figure {mark!r} cannot be filled in from {file}: {problem!r}"
        ) from problem


def _formatted(value: float, shown: str) -> str:
    """Returns a number in the form of the one that was shown."""
    form = _NUMBER.fullmatch(shown.strip())
    if form is None or not (form["whole"] or form["decimals"]):
        raise InputError(
            "Invalid figure behind a mark. Expected a number whose form is "
            f"kept, such as `.75` or `1,234`. Received: {shown!r}"
        )
    sign = "+" if form["sign"] == "+" else ""
    text = f"{value:{sign},.{len(form['decimals'] or '')}f}"
    if "," not in form["whole"] and len(form["whole"]) > 3:
        text = text.replace(",", "")
    if form["decimals"] and not form["whole"]:
        text = re.sub(r"^([+-]?)0\.", r"\1.", text)
    return text
