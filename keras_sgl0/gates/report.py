"""Which gates of a model are open."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import (
    gate_group_size,
    gated_layer,
    gates,
    test_values,
)
from keras_sgl0.network.graph import calls_before
from keras_sgl0.structures.rules import Channelwise, rule_for
from keras_sgl0.utils.tables import as_text, new_table, out_of


@dataclasses.dataclass(frozen=True)
class GatesOfLayer:
    """The gates of one layer.

    Attributes:
        name: The name of the gated layer.
        gates: The number of gates.
        open: How many are open at test time, without those behind a closed
            gate.
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
    """Which gates of a model are open, layer by layer and in total.

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


def _open(gate: HardConcrete) -> np.ndarray:
    """Returns which gates are open and not behind a closed one."""
    here = test_values(gate) > 0
    before = _open_before(gate)
    return here if before is None else here & before


def _open_before(gate: HardConcrete) -> np.ndarray | None:
    """Returns which channels come through the gates before a gate.

    `None` where there are none, or where a call between mixes channels.
    """
    calls = calls_before(gate)
    gated = [isinstance(node.operation, HardConcrete) for node in calls]
    if not any(gated):
        return None
    last = len(calls) - 1 - gated[::-1].index(True)
    alive = _open(calls[last].operation)
    for node in calls[last + 1 :]:
        rule = rule_for(node, ops.convert_to_numpy)
        if not isinstance(rule, Channelwise):
            return None
        (y,) = node.outputs
        y.axis = rule.axis()
        # Channels with the same number are one: at all positions, say.
        inward, outward = rule.ties()
        alive = np.isin(outward, inward[alive])
    return alive
