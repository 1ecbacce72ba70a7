"""What was cut out of a model to meet a budget."""

import dataclasses

from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.utils.tables import as_text, change, new_table, short_list


@dataclasses.dataclass(frozen=True)
class FamilyCut:
    """The structures of a family before and after.

    Attributes:
        made_by: The layers whose kernels make them.
        structures: How many there were.
        structures_after: How many there are.
    """

    made_by: tuple[str, ...]
    structures: int
    structures_after: int


@dataclasses.dataclass(frozen=True)
class PruneReport:
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
