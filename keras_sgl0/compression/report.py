"""What was cut out of a model to meet a budget, and what that cost."""

import dataclasses

from keras_sgl0.deployment.report import Change
from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.utils.tables import (
    Report,
    as_text,
    change,
    new_table,
    short_list,
)


@dataclasses.dataclass(frozen=True)
class FamilyCut:
    """The structures of a family before and after.

    Attributes:
        made_by: The layers whose kernels make them, and what they are if they
            are inside a layer: `attention: heads`.
        structures: How many there were.
        structures_after: How many there are.
    """

    made_by: tuple[str, ...]
    structures: int
    structures_after: int


@dataclasses.dataclass(frozen=True)
class PruneReport(Report):
    """What `prune` did to a model.

    `print(report)` shows tables, `to_dict()` gives plain values.

    Attributes:
        families: One entry a family, in the order of the model.
        importance: By what the structures were chosen.
        shrunk: The layers before and after, and whether the cut was exact.
    """

    families: tuple[FamilyCut, ...]
    importance: str
    shrunk: ShrinkReport

    @property
    def parameters(self) -> int:
        """The number of parameters before."""
        return self.shrunk.parameters

    @property
    def parameters_after(self) -> int:
        """The number of parameters after."""
        return self.shrunk.parameters_after

    @property
    def macs(self) -> int | None:
        """The multiply-adds for one example before, `None` if unknown."""
        return self.shrunk.macs

    @property
    def macs_after(self) -> int | None:
        """The multiply-adds for one example after, `None` if unknown."""
        return self.shrunk.macs_after

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "families": [dataclasses.asdict(entry) for entry in self.families],
            "importance": self.importance,
            "shrunk": self.shrunk.to_dict(),
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                family_table(self.families),
                f"By {self.importance}: {costs(self)}.",
            ]
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is compressed.

    Attributes:
        measure: What the budget counts, or `"latency"`.
        share: The share of the original that the model may cost.
        runtime: Where the latency is measured: `"keras"` for the backend, or
            `"litert"` or `"onnx"`.
        importance: By what the structures are chosen, or those that a search
            leaves too many.
        method: What tells what goes: importance, or a search by training.
        epochs: How many epochs the model is trained.
        search: How many of them are for the search, before the cut.
        learning_rate: The peak of the learning rate, before and after.
        distillation: The share of the distillation in the loss.
        distill: What of the original is distilled.
        examples: On how many examples scores and repairs are computed.
        batch_size: How many examples of arrays make a batch.
        seed: The seed of all that is random.
    """

    measure: str
    share: float
    runtime: str
    importance: str
    method: str
    epochs: int
    search: int
    learning_rate: float
    distillation: float
    distill: str
    examples: int
    batch_size: int
    seed: int


@dataclasses.dataclass(frozen=True)
class CompressReport(Report):
    """What `compress` did to a model.

    `print(report)` shows tables, `to_dict()` gives plain values.

    Attributes:
        settings: How it was done, defaults included.
        families: What was cut. Along a path, since the size before.
        parameters: The number of parameters of the original.
        parameters_after: That of the smaller model.
        macs: The multiply-adds of the original for one example, `None` if
            unknown.
        macs_after: Those of the smaller model, likewise.
        original: The loss and the metrics of the original, on the validation
            data; empty without such data.
        cut: The same after the cut, before training.
        recovered: The same after training.
        latency: The milliseconds of one example, before and after.
        predicted: The share of the latency that the cut was measured to have
            before it was trained; `None` if the budget is no latency.
        scope: What importance was compared to in the cut that was kept.
        round_to: Of which number of channels each family that was cut keeps a
            multiple.
        repaired: Whether what reads the cut layers was refit before the
            training.
        remeasured: Whether the statistics of batch normalization were measured
            anew after training, as the loss was smaller with them.
        history: The logs of each epoch.
    """

    settings: Settings
    families: tuple[FamilyCut, ...]
    parameters: int
    parameters_after: int
    macs: int | None
    macs_after: int | None
    original: dict[str, float]
    cut: dict[str, float]
    recovered: dict[str, float]
    latency: Change
    predicted: float | None
    scope: str
    round_to: int
    repaired: bool
    remeasured: bool
    history: tuple[dict[str, float], ...]

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [
            family_table(self.families),
            f"By {self._criterion()}: {costs(self)}.",
        ]
        if self.original:
            table = new_table()
            table.add_column("on the validation data")
            columns = (self.original, self.cut, self.recovered)
            for header in ("original", "after the cut", "after training"):
                table.add_column(header, justify="right")
            for name in self.original:
                table.add_row(name, *(f"{own[name]:.4f}" for own in columns))
            lines.append(as_text(table, width=80))
        own = self.settings
        lines += [
            f"A call takes {self.latency.before:.3g} ms before and "
            f"{self.latency.after:.3g} ms after on {self.latency.name}: "
            f"{self.latency.ratio:.2f} times as fast.",
            f"Budget: {own.share:.1%} of the {own.measure}. Trained for "
            f"{own.epochs} epochs"
            + (f", {own.search} of them before the cut," if own.search else "")
            + " with a learning rate of "
            f"{own.learning_rate:.3g}, falling to zero, and a share of "
            f"{own.distillation:.0%} of distillation (of {own.distill}) in "
            "the loss."
            + (
                " Then the statistics of batch normalization were measured "
                "anew."
                if self.remeasured
                else ""
            ),
        ]
        if own.method == "importance" and not self.repaired:
            lines.append(
                "What reads the cut layers was not refit: without it the "
                "training begins with a smaller loss."
            )
        if self.predicted is not None:
            measured = 1 / (self.latency.ratio or 1)
            lines.append(
                f"Predicted before training: {self.predicted:.1%} of the "
                f"latency; measured after it: {measured:.1%}. Channels are "
                f"kept in multiples of {self.round_to}."
            )
        return "\n".join(lines)

    def _criterion(self) -> str:
        own = self.settings
        if own.method == "importance":
            return f"{own.importance}, scope {self.scope}"
        return own.method


@dataclasses.dataclass(frozen=True)
class PathReport(Report):
    """The sizes along a path, from the largest to the smallest.

    `print(report)` shows a table, `to_dict()` gives plain values.

    Attributes:
        sizes: What `compress` reports of each.
    """

    sizes: tuple[CompressReport, ...]

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {"sizes": [size.to_dict() for size in self.sizes]}

    def __str__(self) -> str:
        table = new_table()
        first = self.sizes[0]
        names = list(first.original)
        for header in ("budget", "parameters", "macs", "ms", *names):
            table.add_column(header, justify="right")
        table.add_row(
            "original",
            f"{first.parameters:,}",
            _number(first.macs),
            f"{first.latency.before:.3g}",
            *(f"{first.original[name]:.4f}" for name in names),
        )
        for size in self.sizes:
            table.add_row(
                f"{size.settings.share:.1%}",
                f"{size.parameters_after:,}",
                _number(size.macs_after),
                f"{size.latency.after:.3g}",
                *(f"{size.recovered[name]:.4f}" for name in names),
            )
        return as_text(table, width=100)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def family_table(families: tuple[FamilyCut, ...]) -> str:
    """Returns a table of families before and after.

    Args:
        families: The families.
    """
    table = new_table()
    table.add_column("made by")
    table.add_column("channels", justify="right")
    table.add_column("left", justify="right")
    for family in families:
        table.add_row(
            short_list(family.made_by),
            change(family.structures, family.structures_after),
            f"{family.structures_after / family.structures:.0%}",
        )
    return as_text(table, width=80)


def costs(report) -> str:
    """Returns a sentence on what a model costs before and after.

    Args:
        report: Has the parameters and multiply-adds.
    """
    share = report.parameters_after / max(report.parameters, 1)
    text = (
        f"{change(report.parameters, report.parameters_after)} parameters "
        f"({share:.1%})"
    )
    if report.macs is None or report.macs_after is None:
        return text
    share = report.macs_after / max(report.macs, 1)
    return (
        f"{text}, {change(report.macs, report.macs_after)} multiply-adds "
        f"({share:.1%})"
    )
