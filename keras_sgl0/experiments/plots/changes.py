"""Pictures of a model before and after it was cut."""

import typing

import keras

from keras_sgl0.compression.report import CompressReport, PruneReport
from keras_sgl0.experiments.plots.drawing import (
    COLORS,
    PALE,
    add_legend,
    drawing,
    new_figure,
)
from keras_sgl0.network.cost import layer_cost
from keras_sgl0.network.unfolding import trace
from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.utils.tables import short_list
from keras_sgl0.utils.validation import require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def before_and_after(before: keras.Model, after: keras.Model) -> "Figure":
    """Draws the layers of a model beside those of a smaller one.

    One panel shows the output channels of each layer with a kernel, the other
    its multiply-adds for one example, where the sizes of the inputs are known.
    A percentage is the layer's share of the multiply-adds before. A layer that
    the smaller model does not have has no bar of it.

    Args:
        before: A built model.
        after: The smaller model, with the same names of layers.

    Raises:
        ValueError: If an argument is no built model, or if there is no layer
            with a kernel.

    Example:
        >>> small, report = shrink(model)
        >>> save(before_and_after(model, small), "plots/change")
    """
    old, new = _layers(before), _layers(after)
    require(old, "before", "a model with a layer that has a kernel", before)
    return _bars(old, new)


@drawing
def shrunk(report: ShrinkReport | PruneReport | CompressReport) -> "Figure":
    """Draws the layers before and after, as a report has them.

    The panels are those of `before_and_after`. What `compress` reports has the
    channels of each family of layers alone.

    Args:
        report: What `shrink`, `delete_channels`, `prune` or `compress`
            reports.

    Raises:
        ValueError: If it is something else, or has nothing to draw.

    Example:
        >>> small, report = shrink(model)
        >>> save(shrunk(report), "plots/shrunk")
    """
    kinds = ShrinkReport | PruneReport | CompressReport
    expected = "the report of shrink, prune or compress"
    require(isinstance(report, kinds), "report", expected, report)
    old: dict[str, tuple[int, int | None]]
    new: dict[str, tuple[int, int | None]]
    if isinstance(report, CompressReport):
        families = {short_list(own.made_by): own for own in report.families}
        old = {name: (own.structures, None) for name, own in families.items()}
        new = {
            name: (own.structures_after, None) for name, own in families.items()
        }
    else:
        layers = report.shrunk if isinstance(report, PruneReport) else report
        rows = [e for e in layers.layers if e.macs != 0 and e.parameters]
        old = {e.layer: (e.channels, e.macs) for e in rows}
        new = {e.layer: (e.channels_after, e.macs_after) for e in rows}
    require(old, "report", "one with a layer that has a kernel", report)
    return _bars(old, new)


def _bars(old, new):
    """Draws channels and multiply-adds of layers, before and after."""
    panels = {"output channels": 0}
    if all(macs is not None for _, macs in [*old.values(), *new.values()]):
        panels["multiply-adds"] = 1
    figure, axes = new_figure(len(panels), 0.9 + 0.22 * len(old))
    for axis, (title, column) in zip(axes, panels.items(), strict=True):
        for name, layers, color in (
            ("before", old, PALE),
            ("after", new, COLORS[0]),
        ):
            widths = [layers.get(path, (0, 0))[column] for path in old]
            height = 0.8 if layers is old else 0.45
            bars = axis.barh(
                range(len(old)), widths, height, color=color, label=name
            )
            whole = sum(layer[column] for layer in old.values())
            if column and layers is old and whole:
                shares = [f"{width / whole:.0%}" for width in widths]
                axis.bar_label(bars, shares, padding=2, fontsize=5.5)
        of_old = sum(layer[column] for layer in old.values())
        of_new = sum(layer[column] for layer in new.values())
        axis.set_title(f"{title}: {of_old:,} before, {of_new:,} after")
        axis.set_yticks(range(len(old)), old, fontsize=6)
        axis.invert_yaxis()
        axis.margins(y=0.02)
        axis.grid(False, axis="y")
    add_legend(figure, axes[0])
    return figure


def _layers(model):
    """Returns the channels and multiply-adds of the layers with a kernel."""
    found = {}
    for calls in trace(model).by_operation().values():
        macs = layer_cost(calls).macs
        if macs != 0:
            found[calls[0].path] = calls[0].outputs[0].channels, macs
    return found
