"""What `shrink` did to a model."""

import dataclasses

from keras_sgl0.network.cost import total
from keras_sgl0.utils.tables import Report, as_text, change, new_table


@dataclasses.dataclass(frozen=True)
class ShrunkLayer:
    """A layer before and after `shrink`.

    Attributes:
        layer: The layer's name, after those of the models it is in.
        type: The layer's class.
        channels: How many output channels it had.
        channels_after: How many it has.
        parameters: How many parameters it had.
        parameters_after: How many it has.
        macs: Its multiply-adds for one example before, `None` where the size
            of its input is not known.
        macs_after: Its multiply-adds after, likewise.
        note: Why it stayed whole, empty where it did not.
        not_counted: What its multiply-adds leave out, empty for nothing.
    """

    layer: str
    type: str
    channels: int
    channels_after: int
    parameters: int
    parameters_after: int
    macs: int | None
    macs_after: int | None
    note: str = ""
    not_counted: str = ""


@dataclasses.dataclass(frozen=True)
class KeptChannels:
    """Dead channels of a layer that could not be cut.

    Attributes:
        layer: The layer's name, after those of the models it is in.
        channels: Their indices before shrinking.
        reason: Why they stay.
    """

    layer: str
    channels: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class ShrinkReport(Report):
    """What `shrink` did to a model.

    `print(report)` shows tables, `to_dict()` gives plain values.

    Attributes:
        layers: One entry for each layer with parameters and each layer that
            stayed whole.
        kept: The dead channels that could not be cut, with the reason.
        dead_branches: The layers without a channel that was needed.
        difference: The largest absolute difference between an output of the
            model and of the smaller one, `None` if not verified.
        relative_difference: The same, as a share of the largest absolute
            output.
        tolerance: Below this a weight counted as zero.
        remark: What to know about the difference, empty for nothing.
    """

    layers: tuple[ShrunkLayer, ...]
    kept: tuple[KeptChannels, ...]
    dead_branches: tuple[str, ...]
    difference: float | None
    relative_difference: float | None
    tolerance: float
    remark: str = ""

    @property
    def parameters(self) -> int:
        """The number of parameters before."""
        return sum(entry.parameters for entry in self.layers)

    @property
    def parameters_after(self) -> int:
        """The number of parameters after."""
        return sum(entry.parameters_after for entry in self.layers)

    @property
    def macs(self) -> int | None:
        """The multiply-adds for one example before, `None` if unknown."""
        return total(entry.macs for entry in self.layers)

    @property
    def macs_after(self) -> int | None:
        """The multiply-adds for one example after, `None` if unknown."""
        return total(entry.macs_after for entry in self.layers)

    @property
    def whole(self) -> tuple[ShrunkLayer, ...]:
        """The layers that stayed whole, each with the reason."""
        return tuple(entry for entry in self.layers if entry.note)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "layers": [dataclasses.asdict(entry) for entry in self.layers],
            "kept": [
                {**dataclasses.asdict(entry), "channels": list(entry.channels)}
                for entry in self.kept
            ],
            "dead_branches": list(self.dead_branches),
            "parameters": self.parameters,
            "parameters_after": self.parameters_after,
            "macs": self.macs,
            "macs_after": self.macs_after,
            "difference": self.difference,
            "relative_difference": self.relative_difference,
            "tolerance": self.tolerance,
            "remark": self.remark,
        }

    def __str__(self) -> str:
        table = new_table()
        for header in ("layer", "type", "channels", "parameters", "macs"):
            left = header in ("layer", "type")
            table.add_column(header, justify="left" if left else "right")
        table.add_column("note")
        for e in self.layers:
            table.add_row(
                e.layer,
                e.type,
                change(e.channels, e.channels_after),
                change(e.parameters, e.parameters_after),
                change(e.macs, e.macs_after),
                "; ".join(part for part in (e.note, e.not_counted) if part),
            )
        table.add_section()
        table.add_row(
            "total",
            "",
            "",
            change(self.parameters, self.parameters_after),
            change(self.macs, self.macs_after),
            "",
        )
        drop = ("type", "parameters", "macs")
        lines = [as_text(table, width=140, drop=drop)]
        for k in self.kept:
            number = len(k.channels)
            what = "channel stays" if number == 1 else "channels stay"
            lines.append(f" {k.layer}: {number} dead {what}: {k.reason}")
        for name in self.dead_branches:
            lines.append(f" {name}: no channel of it was needed")
        if self.difference is not None:
            lines.append(
                f" largest difference of an output {self.difference:.2g}, "
                f"relative {self.relative_difference:.2g}"
            )
        if self.remark:
            lines.append(f" {self.remark}")
        return "\n".join(lines)
