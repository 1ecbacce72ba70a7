"""The results of a sweep, averaged over the seeds."""

import csv
import dataclasses
import io
import os
import pathlib
import re
import statistics

from keras_sgl0.experiments.results import read_result, settings
from keras_sgl0.experiments.run_folder import RESULT
from keras_sgl0.utils.tables import (
    Report,
    as_text,
    markdown_row,
    mean_and_deviation,
    new_table,
)

FIGURES = {
    "weight_sparsity": "weight sparsity",
    "neuron_sparsity": "neuron sparsity",
    "test_error": "test error",
    "validation_error": "validation error",
}
# The name of a run's folder: RECIPE-SEED-SETTING=VALUE-...
_NAME = re.compile(r"(\w+)-\d+((?:-\w+=.*)?)")
_SETTING = re.compile(r"-(\w+)=(.*?)(?=-\w+=|$)")


@dataclasses.dataclass(frozen=True)
class SweepRow:
    """The runs that differ only in their seed.

    Attributes:
        recipe: The name of the recipe.
        settings: The settings that the sweep set besides the seed, as text by
            name.
        folders: The name of each run's folder, by seed.
        figures: The percentages of each run, by their name in `FIGURES`. Of
            the errors there is the one that was measured.
    """

    recipe: str
    settings: dict[str, str]
    folders: dict[int, str]
    figures: dict[str, list[float]]

    @property
    def count(self) -> int:
        """The number of runs."""
        return len(self.folders)

    def mean(self, figure: str) -> float | None:
        """Returns the mean over the runs, `None` if it was not measured.

        Args:
            figure: A name in `FIGURES`.
        """
        measured = self.figures.get(figure)
        return statistics.mean(measured) if measured else None

    def deviation(self, figure: str) -> float | None:
        """Returns the sample standard deviation, `None` for a single run.

        Args:
            figure: A name in `FIGURES`.
        """
        measured = self.figures.get(figure, [])
        return statistics.stdev(measured) if len(measured) > 1 else None


@dataclasses.dataclass(frozen=True)
class SweepReport(Report):
    """The finished runs of a sweep's folder, averaged over their seeds.

    `print(report)` shows a table. `to_markdown()`, `to_csv()` and `to_dict()`
    return the same numbers for a page, a spreadsheet and JSON.

    Attributes:
        rows: One row for each recipe with its settings.
    """

    rows: tuple[SweepRow, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of all settings that some row sets."""
        return tuple(
            dict.fromkeys(n for row in self.rows for n in row.settings)
        )

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all figures that some row has."""
        return tuple(
            f for f in FIGURES if any(f in r.figures for r in self.rows)
        )

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "rows": [
                {
                    "recipe": row.recipe,
                    "settings": row.settings,
                    "count": row.count,
                    "seeds": list(row.folders),
                    "mean": {name: row.mean(name) for name in row.figures},
                    "deviation": {
                        name: row.deviation(name) for name in row.figures
                    },
                }
                for row in self.rows
            ]
        }

    def to_markdown(self) -> str:
        """Returns a Markdown table whose last column links to the runs.

        `scripts/tables.py` can update such a table in any page.
        """
        header = [*self._header(), "run"]
        lines = [header, ["---"] * len(header)]
        for row in self.rows:
            links = " ".join(f"[{s}]({f}/)" for s, f in row.folders.items())
            lines.append([*self._cells(row), links])
        return "".join(f"{markdown_row(line)}\n" for line in lines)

    def to_csv(self) -> str:
        """Returns a CSV table with means and deviations as numbers."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        figures = [
            f"{f}_{part}" for f in self.figures for part in ("mean", "std")
        ]
        lines.writerow(["recipe", *self.settings, "count", *figures])
        for row in self.rows:
            settings = [row.settings.get(name) for name in self.settings]
            numbers = [
                part(name)
                for name in self.figures
                for part in (row.mean, row.deviation)
            ]
            lines.writerow([row.recipe, *settings, row.count, *numbers])
        return out.getvalue()

    def __str__(self) -> str:
        table = new_table()
        for header in self._header():
            left = header == "recipe"
            table.add_column(header, justify="left" if left else "right")
        for row in self.rows:
            table.add_row(*self._cells(row))
        return as_text(table, width=160)

    def _header(self):
        figures = [FIGURES[name] for name in self.figures]
        return ["recipe", *self.settings, "runs", *figures]

    def _cells(self, row):
        return [
            row.recipe,
            *(row.settings.get(name, "") for name in self.settings),
            f"{row.count}",
            *(
                mean_and_deviation(row.figures[name])
                if name in row.figures
                else ""
                for name in self.figures
            ),
        ]


def sweep_report(folder: str | os.PathLike) -> SweepReport:
    """Returns the averages of the finished runs in a sweep's folder.

    Runs with the same recipe and settings are averaged over their seeds. The
    settings are read from the names of the runs' folders.

    Args:
        folder: The sweep's folder, or any folder with runs directly in it.

    Raises:
        ValueError: If a result in it is damaged.

    Example:
        >>> print(sweep_report("runs/sweep"))
    """
    rows: dict[tuple[str, str, str], list] = {}
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
        figures=_figures([result for _, _, result in runs]),
    )


def _figures(results):
    """Returns the figures of runs with the same settings."""
    measured = {
        name: [getattr(result, name) for result in results]
        for name in ("weight_sparsity", "neuron_sparsity", "test_error")
    }
    errors = measured.pop("test_error")
    name = results[0].error_name.replace(" ", "_")
    return measured | {name: errors}


def _order(row):
    """Returns the sort key of a row: numbers come before text."""

    def value(text):
        try:
            return (0, float(text), "")
        except ValueError:
            return (1, 0.0, text)

    return row.recipe, [(n, *value(text)) for n, text in row.settings.items()]
