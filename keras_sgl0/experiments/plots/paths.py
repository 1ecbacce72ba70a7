"""Pictures of the sizes that `path` leaves."""

import typing

from keras_sgl0.compression.report import PathReport
from keras_sgl0.experiments.plots.drawing import (
    COLORS,
    GREY,
    drawing,
    new_figure,
)
from keras_sgl0.utils.validation import InputError, require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def path(report: PathReport, metric: str = "loss") -> "Figure":
    """Draws a metric against the cost of each size of a path.

    The panels show the multiply-adds (where they are known), the parameters
    and the latency. A dashed line is the original.

    Args:
        report: The `report` of what `path` returns.
        metric: The metric on the validation data, as `evaluate` names it.

    Raises:
        ValueError: If there are no validation data, or the metric is unknown.

    Example:
        >>> found = path(model, train, validation, macs=[0.8, 0.5, 0.3])
        >>> save(plots.path(found.report, "accuracy"), "path")
    """
    sizes = report.sizes
    known = list(sizes[0].original)
    if not known:
        raise InputError(
            "A path without validation data has no metric to draw. Received: "
            f"report={report!r}"
        )
    require(metric in known, "metric", f"one of {', '.join(known)}", metric)
    costs: dict[str, list] = {
        "multiply-adds": [size.macs_after for size in sizes],
        "parameters": [size.parameters_after for size in sizes],
        f"ms, {sizes[0].latency.name}": [size.latency.after for size in sizes],
    }
    costs = {name: own for name, own in costs.items() if None not in own}
    figure, axes = new_figure(len(costs))
    values = [size.recovered[metric] for size in sizes]
    for axis, (name, own) in zip(axes, costs.items(), strict=True):
        axis.plot(own, values, color=COLORS[0], marker="o")
        axis.axhline(sizes[0].original[metric], color=GREY, linestyle="--")
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
    axes[0].set_ylabel(metric)
    return figure
