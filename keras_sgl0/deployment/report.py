"""What `export` and the comparison of two models report."""

import dataclasses

from keras_sgl0.utils.tables import Report, as_text, new_table


@dataclasses.dataclass(frozen=True)
class ExportReport(Report):
    """What `export` wrote.

    `print(report)` shows a line, `to_dict()` gives plain values.

    Attributes:
        path: The file or folder.
        format: `"keras"`, `"saved_model"`, `"litert"` or `"onnx"`.
        quantize: `"float16"`, `"int8"` or `None`.
        bytes: The size of the file, or of all files in the folder.
        difference: The largest absolute difference between an output of the
            model and of what was read back, `None` if not compared.
        relative_difference: The same, as a share of the largest absolute
            output.
        unchecked: Why it was not compared, empty where it was.
        remark: What to know about the difference, empty for nothing.
    """

    path: str
    format: str
    quantize: str | None
    bytes: int
    difference: float | None
    relative_difference: float | None
    unchecked: str = ""
    remark: str = ""

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        kind = " ".join(filter(None, [self.format, self.quantize]))
        if self.unchecked:
            check = f"not read back: {self.unchecked}"
        else:
            check = (
                f"read back with a largest difference of {self.difference:.2g}"
                f", relative {self.relative_difference:.2g}"
            )
        if self.remark:
            check += f". {self.remark}"
        return f"{self.path} ({kind}): {self.bytes:,} bytes, {check}"


@dataclasses.dataclass(frozen=True)
class Change:
    """A figure of a model before and after.

    Attributes:
        name: What it is.
        before: The figure before.
        after: The figure after.
        unit: `"bytes"`, `"ms"`, `"%"`, or empty for a count.
        ratio: How many times smaller it became. `None` where nobody asks: for
            errors, and where a figure is 0 or not known.
        spread: The quartiles of the ratio over the turns, `None` where it was
            not measured in turns.
    """

    name: str
    before: float | None
    after: float | None
    unit: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None

    @classmethod
    def between(
        cls,
        name: str,
        before: float | None,
        after: float | None,
        unit: str = "",
    ) -> "Change":
        """Returns a change with the plain ratio of its figures.

        Args:
            name: What it is.
            before: The figure before.
            after: The figure after.
            unit: As above.
        """
        ratio = before / after if before and after else None
        return cls(name, before, after, unit, ratio)

    def __str__(self) -> str:
        def text(figure):
            if figure is None:
                return "?"
            return f"{figure:,.4g}" if self.unit else f"{figure:,}"

        unit = f" {self.unit}" if self.unit else ""
        ratio = "" if self.ratio is None else f" (/ {self.ratio:.2f})"
        figures = f"{text(self.before)} -> {text(self.after)}"
        return f"{self.name}: {figures}{unit}{ratio}"


@dataclasses.dataclass(frozen=True)
class Comparison(Report):
    """Two models side by side, figure by figure.

    `print(comparison)` shows a table, `to_dict()` gives plain values.

    Attributes:
        changes: One entry a figure.
        files: One entry a file that was kept.
        remarks: What was not measured, and why.
    """

    changes: tuple[Change, ...]
    files: tuple[ExportReport, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Returns the comparison as plain values, ready for JSON."""
        return {
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "files": [file.to_dict() for file in self.files],
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        table = new_table()
        table.add_column("")
        for header in ("before", "after", "ratio", "quartiles"):
            table.add_column(header, justify="right")
        for c in self.changes:
            table.add_row(
                f"{c.name}, {c.unit}".rstrip(", "),
                _figure(c.before, c.unit),
                _figure(c.after, c.unit),
                "" if c.ratio is None else f"{c.ratio:.2f}",
                "" if c.spread is None else "{:.2f}-{:.2f}".format(*c.spread),
            )
        text = as_text(table, width=100)
        if any(c.unit == "ms" and c.ratio for c in self.changes):
            # Else a reader would divide the medians, which drift apart.
            text += (
                "\n ms are medians; their ratio is the median of the ratios of "
                "paired turns"
            )
        return "\n ".join([text, *self.remarks, *map(str, self.files)])


def _figure(value: float | None, unit: str) -> str:
    digits = {"ms": 3, "%": 2}.get(unit, 0)
    return "?" if value is None else f"{value:,.{digits}f}"
