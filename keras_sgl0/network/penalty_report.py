"""What carries a penalty in a model, in a table."""

import dataclasses

from keras_sgl0.utils.tables import Report, as_text, counted, new_table

# Notes on layers of which a table says nothing else.
NO_KERNEL = "no kernel"
NO_KERNEL_OF_ITS_OWN = "no kernel of its own"


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """What `regularize` did to one kernel, or to one layer without any.

    Attributes:
        layer: The layer's name, after those of the layers it is part of.
        type: The layer's class.
        kernel: The name of the kernel, empty where the layer has none.
        shape: The kernel's shape.
        penalty: The penalty it carries now, empty where it was left alone.
        axis: The group axis of that penalty, `None` where it has none.
        note: Why the layer was left alone, or what to know about the penalty.
    """

    layer: str
    type: str
    kernel: str = ""
    shape: tuple[int, ...] = ()
    penalty: str = ""
    axis: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class RegularizationReport(Report):
    """What carries a penalty in a model after `regularize`, and what does not.

    `print(report)` shows a table and counts the layers without a kernel,
    `to_dict()` gives plain values, those of these layers too.

    Attributes:
        entries: One entry a kernel, and one a layer without kernel, for every
            layer of the model, those of nested models and layers too.
    """

    entries: tuple[LayerEntry, ...]

    @property
    def regularized(self) -> tuple[LayerEntry, ...]:
        """The kernels that got the penalty."""
        return tuple(e for e in self.entries if e.penalty)

    @property
    def left_alone(self) -> tuple[LayerEntry, ...]:
        """The layers and kernels that did not, each with the reason."""
        return tuple(e for e in self.entries if not e.penalty)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "layers": [
                {**dataclasses.asdict(entry), "shape": list(entry.shape)}
                for entry in self.entries
            ],
            "regularized": len(self.regularized),
            "left_alone": len(self.left_alone),
        }

    def __str__(self) -> str:
        table = new_table()
        for header in ("layer", "type", "kernel", "axis", "penalty", "note"):
            table.add_column(header, overflow="fold", no_wrap=header != "note")
        shown = [
            e
            for e in self.entries
            if e.note not in (NO_KERNEL, NO_KERNEL_OF_ITS_OWN)
        ]
        for e in shown:
            table.add_row(
                e.layer,
                e.type,
                f"{e.kernel} {'x'.join(map(str, e.shape))}".strip(),
                "" if e.axis is None else str(e.axis),
                e.penalty,
                e.note,
            )
        kernels = counted(len(self.regularized), "kernel")
        alone = counted(len(shown) - len(self.regularized), "other")
        hidden = counted(len(self.entries) - len(shown), "layer")
        return (
            f"{as_text(table, width=160, drop=('type', 'axis', 'kernel'))}\n"
            f" {kernels} with a penalty, {alone} left alone, "
            f"{hidden} without a kernel"
        )
