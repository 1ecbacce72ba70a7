"""What the tables of all reports share."""

import html
import io
import statistics
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table


class Report:
    """Base of the reports: what `print` shows, a notebook shows as well."""

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre">{html.escape(str(self))}</pre>'


def new_table() -> rich.table.Table:
    """Returns an empty table."""
    return rich.table.Table(box=rich.box.SIMPLE_HEAD)


def out_of(alive: int, total: int) -> str:
    """Returns the text of a cell, how many of all are alive.

    Args:
        alive: How many are alive.
        total: How many there are.
    """
    return f"{alive:,} / {total:,}"


def change(before: int | None, after: int | None) -> str:
    """Returns the text of a cell, a number that may have changed.

    Args:
        before: What it was, `None` if that is not known.
        after: What it is, likewise.
    """
    if before is None or after is None:
        return "?"
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """Returns a figure over several runs as the papers write it.

    Args:
        values: One number a run. One alone has no deviation.
        digits: How many follow the point.

    Returns:
        The mean, and the sample standard deviation without a leading zero.

    Example:
        >>> mean_and_deviation([89.03, 89.29])
        '89.16 ± .18'
    """
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    deviation = f"{statistics.stdev(values):.{digits}f}"
    return " ± ".join(n.removeprefix("0") for n in (mean, deviation))


def markdown_row(cells: list[str]) -> str:
    """Returns a line of a Markdown table.

    Args:
        cells: The text of each.

    Example:
        >>> markdown_row(["SGL0", "", "0.81"])
        '| SGL0 | | 0.81 |'
    """
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def as_text(table: rich.table.Table, width: int) -> str:
    """Returns a table as lines of text, without columns that are empty.

    Args:
        table: The table.
        width: The most characters a line may have.
    """
    table.columns = [c for c in table.columns if any(c.cells)]
    out = io.StringIO()
    rich.console.Console(file=out, width=width, markup=False).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(filter(None, lines))


def short_list(names: Sequence[str]) -> str:
    """Returns the first two of some names, and how many more there are.

    Args:
        names: The names.

    Example:
        >>> short_list(["conv1", "conv2", "conv3"])
        'conv1, conv2 + 1'
    """
    more = f" + {len(names) - 2}" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def counted(number: int, noun: str) -> str:
    """Returns how many there are of something.

    Args:
        number: How many.
        noun: Of what, in the singular; the plural ends in s.

    Example:
        >>> counted(1, "kernel"), counted(2000, "kernel")
        ('1 kernel', '2,000 kernels')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
