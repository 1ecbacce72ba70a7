"""A picture of what shrinking costs."""

import itertools
import os
import typing

from keras_sgl0.experiments.benchmarks.shrinking import ShrinkCosts
from keras_sgl0.experiments.plots.drawing import (
    GREY,
    add_legend,
    drawing,
    looks,
    new_figure,
)

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def shrink_costs(path: str | os.PathLike) -> "Figure":
    """Draws the time and the memory of `shrink` by the number of parameters.

    A line is one kind of network, such as WRN-16 in all its widths. A marker
    is the fastest turn, which other work of the machine disturbs least.

    Args:
        path: The JSON file of `scripts/benchmark.py shrink --out`.

    Example:
        >>> save(shrink_costs("docs/results/shrink_costs.json"), "costs")
    """
    costs = ShrinkCosts.read(path).costs
    figure, (times, memory) = new_figure(2, height=2.4)
    kinds = itertools.groupby(costs, lambda c: c.network.rpartition("-")[0])
    for (kind, own), look in zip(kinds, looks(), strict=False):
        group = list(own)
        times.plot(
            [cost.parameters / 1e6 for cost in group],
            [min(cost.seconds) for cost in group],
            label=kind or group[0].network,
            **look,
        )
        known = [cost for cost in group if cost.peak is not None]
        memory.plot(
            [cost.parameters / 1e6 for cost in known],
            [(cost.peak or 0) / 1e6 for cost in known],
            **look,
        )
    most = max(cost.parameters for cost in costs) / 1e6
    memory.plot([0, most], [0, 4 * most], color=GREY, ls="--", lw=0.8)
    # Left of the middle of the line.
    place = (0.47 * most, 2 * most)
    memory.annotate("the weights", place, color=GREY, ha="right")
    for axis, label in ((times, "seconds"), (memory, "more at the peak, MB")):
        axis.set_xlabel("parameters, millions")
        axis.set_ylabel(label)
        axis.set_ylim(0)
    add_legend(figure, times)
    return figure
