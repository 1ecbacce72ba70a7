"""What the gates of a model leave."""

import dataclasses

from keras_sgl0.reports.tables import as_text, new_table, out_of


@dataclasses.dataclass(frozen=True)
class GatesOfLayer:
    """The gates of one layer.

    Attributes:
        name: The name of the gated layer.
        gates: The number of gates.
        open: How many are open at test time, closed feature maps before them
            left out.
        expected_open: The sum of `P(z != 0)`.
        group_size: The parameters one gate rules.
    """

    name: str
    gates: int
    open: int
    expected_open: float
    group_size: int

    @property
    def density(self) -> float:
        """The expected share of open gates, in [0, 1]."""
        return self.expected_open / self.gates


@dataclasses.dataclass(frozen=True)
class GateReport:
    """What the gates of a model leave, layer by layer and in total.

    `print(report)` shows a table, `to_dict()` gives plain numbers.

    Attributes:
        layers: One entry a gated layer, in the model's order.
    """

    layers: tuple[GatesOfLayer, ...]

    @property
    def architecture(self) -> str:
        """The open gates of each layer in the papers' notation."""
        return "-".join(str(layer.open) for layer in self.layers)

    @property
    def parameters(self) -> int:
        """The number of parameters behind gates."""
        return sum(g.gates * g.group_size for g in self.layers)

    @property
    def density(self) -> float:
        """The expected share of parameters behind open gates, in [0, 1]."""
        active = sum(g.expected_open * g.group_size for g in self.layers)
        return active / self.parameters

    def to_dict(self) -> dict:
        """Returns the report as plain numbers, ready for JSON."""
        return {
            "architecture": self.architecture,
            "parameters": self.parameters,
            "density": self.density,
            "layers": [
                {**dataclasses.asdict(g), "density": g.density}
                for g in self.layers
            ],
        }

    def __str__(self) -> str:
        table = new_table()
        table.add_column("gated layer", no_wrap=True)
        for header in ("open gates", "parameters each", "expected density"):
            table.add_column(header, justify="right", no_wrap=True)
        for g in self.layers:
            table.add_row(
                g.name,
                out_of(g.open, g.gates),
                f"{g.group_size:,}",
                f"{g.density:.2%}",
            )
        summary = (
            f" architecture {self.architecture}, expected density "
            f"{self.density:.2%} of {self.parameters:,} gated parameters"
        )
        return f"{as_text(table, width=100)}\n{summary}"
