"""What of a model can be cut, as a table."""

import dataclasses

from keras_sgl0.utils.tables import Report, as_text, new_table, short_list


@dataclasses.dataclass(frozen=True)
class Family:
    """The structures that run through the same layers.

    Attributes:
        made_by: The layers whose kernels make them, and what they are if they
            are inside a layer: `attention: heads`.
        through: The layers that normalize, scale or filter each of them.
        read_by: The layers whose kernels read them.
        structures: How many there are.
        parameters: What one of them saves, all others kept.
        macs: The multiply-adds it saves for one example, `None` where the
            sizes of the model's inputs are not known.
        share: The share of the model's multiply-adds (of its parameters, where
            those are not known) that is gone without the whole family.
    """

    made_by: tuple[str, ...]
    through: tuple[str, ...]
    read_by: tuple[str, ...]
    structures: int
    parameters: int
    macs: int | None
    share: float


@dataclasses.dataclass(frozen=True)
class FixedChannels:
    """Output channels of a layer that cannot be cut.

    Attributes:
        layer: The layer's path.
        channels: How many.
        reason: Why.
    """

    layer: str
    channels: int
    reason: str


@dataclasses.dataclass(frozen=True)
class StructureReport(Report):
    """What of a model can be cut.

    `print(report)` shows tables, `to_dict()` gives plain values.

    Attributes:
        model: The model's name.
        families: One entry a family, in the order of the model.
        fixed: What cannot be cut, with the reason.
        parameters: The parameters of the model.
        macs: Its multiply-adds for one example, `None` where not known.
        smallest_parameters: The parameters with one structure a family.
        smallest_macs: The multiply-adds then, likewise.
    """

    model: str
    families: tuple[Family, ...]
    fixed: tuple[FixedChannels, ...]
    parameters: int
    macs: int | None
    smallest_parameters: int
    smallest_macs: int | None

    @property
    def structures(self) -> int:
        """The number of structures."""
        return sum(family.structures for family in self.families)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self) | {"structures": self.structures}

    def __str__(self) -> str:
        table = new_table()
        headers = (
            "made by",
            "through",
            "read by",
            "structures",
            "parameters",
            "macs",
            "share",
        )
        for i, header in enumerate(headers):
            table.add_column(header, justify="left" if i < 3 else "right")
        for family in self.families:
            table.add_row(
                short_list(family.made_by),
                short_list(family.through),
                short_list(family.read_by),
                f"{family.structures:,}",
                f"{family.parameters:,}",
                "?" if family.macs is None else f"{family.macs:,}",
                f"{family.share:.1%}",
            )
        drop = ("through", "parameters", "read by", "macs")
        lines = [as_text(table, width=120, drop=drop), *self._summary()]
        if self.fixed:
            fixed = new_table()
            for header in ("layer", "channels", "cannot be cut, since"):
                fixed.add_column(
                    header, justify="right" if header == "channels" else "left"
                )
            for entry in self.fixed:
                fixed.add_row(entry.layer, f"{entry.channels:,}", entry.reason)
            lines.append(as_text(fixed, width=120))
        return "\n".join(lines)

    def _summary(self):
        yield (
            f"{self.structures:,} structures in {len(self.families):,} "
            "families; parameters and macs are what one of them saves."
        )
        least = f"{self.smallest_parameters / max(self.parameters, 1):.2%} of "
        least += f"{self.parameters:,} parameters"
        if self.macs is not None and self.smallest_macs is not None:
            least += f", {self.smallest_macs / max(self.macs, 1):.2%} of "
            least += f"{self.macs:,} multiply-adds"
        yield f"With one structure a family {least} are left."
