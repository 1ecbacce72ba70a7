"""What the gates of a model leave."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import (
    gate_group_size,
    gated_layer,
    gates,
    test_values,
)
from keras_sgl0.utils.tables import as_text, new_table, out_of

# What keeps channels apart, so that a closed gate stays closed behind it.
_CHANNELWISE = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.Flatten,
)


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


def gate_report(model: keras.Model) -> GateReport:
    """Returns which gates of a model are open, layer by layer.

    A gate counts as open if it is not 0 at test time and if the channel it
    gates comes through the gates before it: of LeNet's 800 dense inputs only
    those count whose feature map is there.

    Args:
        model: A built model with gates.

    Returns:
        A `GateReport`; its `architecture` reads like the papers' 20-21-34-407.

    Raises:
        ValueError: If the model is not built or has no gates, or if it is not
            clear which weights a gate rules.

    Example:
        >>> gate_report(model).architecture
        '20-21-34-407'
    """
    return GateReport(
        tuple(
            GatesOfLayer(
                name=gated_layer(gate),
                gates=gate.log_alpha.shape[0],
                open=int(np.count_nonzero(_open(gate))),
                expected_open=float(ops.sum(gate.probability_active())),
                group_size=gate_group_size(gate),
            )
            for gate in gates(model)
        )
    )


def _open(gate):
    """Returns which gates are open and not behind a closed one."""
    here = test_values(gate) > 0
    nodes = gate._inbound_nodes[:1]
    while nodes and len(nodes[0].parent_nodes) == 1:
        node = nodes[0].parent_nodes[0]
        if isinstance(node.operation, HardConcrete):
            before = _open(node.operation)
            return here & np.tile(before, len(here) // len(before))
        if not isinstance(node.operation, _CHANNELWISE):
            break
        nodes = [node]
    return here
