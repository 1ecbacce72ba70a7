"""What a model costs."""

import dataclasses

from keras_sgl0.utils.tables import Report, as_text, new_table


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one example, all its calls together.

    Attributes:
        layer: The layer's name, after those of the models it is in.
        type: The layer's class.
        parameters: The number of its parameters.
        macs: The number of its multiply-adds, `None` where it is not known;
            `count_macs` takes no such models.
        note: What the count leaves out.
    """

    layer: str
    type: str
    parameters: int
    macs: int | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class CostReport(Report):
    """The parameters and multiply-adds of a model for one example.

    `print(report)` shows a table, `to_dict()` gives plain values.

    Attributes:
        layers: One entry a layer.
    """

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(entry.parameters for entry in self.layers)

    @property
    def macs(self) -> int:
        """The number of multiply-adds."""
        return sum(entry.macs or 0 for entry in self.layers)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "layers": [dataclasses.asdict(entry) for entry in self.layers],
            "parameters": self.parameters,
            "macs": self.macs,
        }

    def __str__(self) -> str:
        table = new_table()
        for header in ("layer", "type", "parameters", "macs", "note"):
            right = header in ("parameters", "macs")
            table.add_column(header, justify="right" if right else "left")
        for e in self.layers:
            if e.parameters or e.macs or e.note:
                table.add_row(
                    e.layer,
                    e.type,
                    f"{e.parameters:,}",
                    f"{e.macs:,}",
                    e.note,
                )
        table.add_section()
        table.add_row("total", "", f"{self.parameters:,}", f"{self.macs:,}", "")
        return as_text(table, width=120, drop=("type",))
