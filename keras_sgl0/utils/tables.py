"""What the tables of all reports share."""

import html
import io
import shutil
import statistics
import sys
from collections.abc import Sequence

import rich.box
import rich.cells
import rich.console
import rich.table
import rich.text

# These columns hold sentences, which may be broken into lines this wide.
_SENTENCES = ("note", "cannot be cut, since")
_SENTENCE = 16
# A number or percentage that is no part of a name.
_NUMBER = r"(?<![\w.])\d[\d,.]*(e[-+]?\d+)?%?(?!\w)"


class Report:
    """Base of the reports: what `print` shows, a notebook shows as well.

    `print` writes plain text, `rich.print` the same with colours. In a terminal
    that is too narrow for a table, its least important columns are left out.
    """

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre">{html.escape(str(self))}</pre>'

    def __rich__(self) -> rich.text.Text:
        text = rich.text.Text(str(self))
        text.highlight_regex(_NUMBER, "cyan")
        return text


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


def as_text(
    table: rich.table.Table, width: int, drop: Sequence[str] = ()
) -> str:
    """Returns a table as lines of text, without columns that are empty.

    Where the standard output is a terminal, the table fits it: columns are left
    out, and a line below names them, before a cell other than a note is broken.

    Args:
        table: The table.
        width: The most characters a line may have where there is no terminal,
            unless a cell other than a note had to be broken.
        drop: The headers of columns that may be left out, the least important
            first.
    """
    table.columns = [c for c in table.columns if any(c.cells)]
    terminal = _terminal_width()
    dropped = []
    if terminal is not None:
        width = terminal
        columns = table.columns
        headers = [column.header for column in columns]
        for header in filter(headers.__contains__, drop):
            if _least_width(table) <= width:
                break
            dropped.append(header)
            table.columns = [c for c in columns if c.header not in dropped]
        # A wide column that went last may leave room for one before it.
        for header in reversed(dropped[:-1]):
            others = [name for name in dropped if name != header]
            table.columns = [c for c in columns if c.header not in others]
            if _least_width(table) <= width:
                dropped = others
        table.columns = [c for c in columns if c.header not in dropped]
    else:
        width = max(width, _least_width(table))
    fits = _least_width(table) <= width
    for column in table.columns:
        column.no_wrap = fits and column.header not in _SENTENCES
        column.overflow = "fold"
    out = io.StringIO()
    rich.console.Console(file=out, width=width, markup=False).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    if dropped:
        lines.append(f" no room for: {', '.join(dropped)}")
    return "\n".join(filter(None, lines))


def _terminal_width() -> int | None:
    """Returns the columns of the terminal, `None` where there is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _least_width(table: rich.table.Table) -> int:
    """Returns how wide a table is if nothing but sentences is broken."""
    width = 1
    for column in table.columns:
        cells = [str(column.header), *map(str, column.cells)]
        own = max(map(rich.cells.cell_len, cells))
        if column.header in _SENTENCES:
            own = min(own, max(_SENTENCE, len(str(column.header))))
        width += own + 3  # what stands between two columns
    return width


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
