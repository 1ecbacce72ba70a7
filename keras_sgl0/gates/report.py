"""Which gates of a model are open."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_sgl0.gates.expected_cost import ExpectedCost
from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import (
    gate_group_size,
    gated_layer,
    gates,
    test_values,
)
from keras_sgl0.gates.shared import is_shared
from keras_sgl0.network.neighbours import calls_before
from keras_sgl0.structures.registry import rule_for
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.utils.tables import Report, as_text, new_table, out_of
from keras_sgl0.utils.validation import InputError


@dataclasses.dataclass(frozen=True)
class GatesOfLayer:
    """The gates of one layer, or of one family of structures.

    Attributes:
        name: The name of the gated layer; of the gate layer itself where the
            gates are on structures.
        gates: The number of gates.
        open: How many are open at test time, without those behind a closed
            gate.
        expected_open: The sum of `P(z != 0)`.
        group_size: The parameters one gate rules; for a structure those that
            the model has fewer without it.
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
class GateReport(Report):
    """Which gates of a model are open, layer by layer and in total.

    `print(report)` shows a table, `to_dict()` gives plain numbers.

    Attributes:
        layers: One entry a gated layer, or a family of structures, in the
            model's order.
        parameters: The number of parameters behind gates; of all parameters
            where the gates are on structures.
        density: The share of them that is expected to be left, in [0, 1].
        macs: The multiply-adds of the model for one example, `None` where the
            sizes of its inputs or its calls are not known.
        macs_density: The share of them that is expected to be left.
    """

    layers: tuple[GatesOfLayer, ...]
    parameters: int
    density: float
    macs: int | None
    macs_density: float | None

    @property
    def architecture(self) -> str:
        """The open gates of each layer in the papers' notation."""
        return "-".join(str(layer.open) for layer in self.layers)

    def to_dict(self) -> dict:
        """Returns the report as plain numbers, ready for JSON."""
        return {
            "architecture": self.architecture,
            "parameters": self.parameters,
            "density": self.density,
            "macs": self.macs,
            "macs_density": self.macs_density,
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
        lines = [as_text(table, width=100, drop=("parameters each",))]
        if self.macs is not None:
            lines.append(
                f" expected multiply-adds {self.macs_density:.2%} of "
                f"{self.macs:,}"
            )
        lines.append(
            f" architecture {self.architecture}, expected density "
            f"{self.density:.2%} of {self.parameters:,} gated parameters"
        )
        return "\n".join(lines)


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
    every = gates(model)
    on_structures = any(map(is_shared, every))
    whole = ExpectedCost(model, "parameters") if on_structures else None
    layers = tuple(
        GatesOfLayer(
            name=gated_layer(gate),
            gates=gate.log_alpha.shape[0],
            open=int(np.count_nonzero(_open(gate))),
            expected_open=float(ops.sum(gate.probability_active())),
            group_size=_size(gate, whole),
        )
        for gate in every
    )
    macs = _macs(model)
    if whole is not None:
        parameters, density = whole.total, float(whole.share())
    else:
        parameters = sum(g.gates * g.group_size for g in layers)
        active = sum(g.expected_open * g.group_size for g in layers)
        density = active / parameters
    return GateReport(
        layers,
        parameters,
        density,
        None if macs is None else macs.total,
        None if macs is None else float(macs.share()),
    )


def _macs(model: keras.Model) -> ExpectedCost | None:
    """Returns the multiply-adds, `None` where they cannot be counted."""
    try:
        return ExpectedCost(model, "macs")
    except InputError:
        return None


def _size(gate: HardConcrete, whole: ExpectedCost | None) -> int:
    """Returns how many parameters one gate of a layer rules."""
    if whole is None or not is_shared(gate):
        return gate_group_size(gate)
    opened = np.ones(whole.dependence.number, bool)
    opened[whole.dependence.first_of(gate)] = False
    return whole.total - whole.cost(opened)


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
        if not isinstance(rule, Channelwise) or not rule.carries:
            return None
        (y,) = node.outputs
        y.axes = rule.axes()
        # Channels with the same number are one: at all positions, say.
        inward, outward = rule.ties()
        alive = np.isin(outward, inward[alive])
    return alive
