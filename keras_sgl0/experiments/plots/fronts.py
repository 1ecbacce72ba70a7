"""Pictures of searches."""

import os
import typing

from keras_sgl0.experiments.objectives import OBJECTIVES
from keras_sgl0.experiments.plots.drawing import (
    COLORS,
    GREY,
    Paths,
    add_legend,
    drawing,
    new_figure,
)
from keras_sgl0.experiments.results import read_results
from keras_sgl0.experiments.search_report import SearchReport, search_report
from keras_sgl0.utils.validation import InputError

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def front(
    source: str | os.PathLike | SearchReport, others: Paths = ()
) -> "Figure":
    """Draws the trials of a search and its front.

    There is a panel for the first objective against each of the others; with
    one objective, it is drawn against the number of the trial. The line joins
    the trials of the front.

    Args:
        source: The search's folder, or its report.
        others: Folders of runs, or of several, to draw beside it. Their errors
            should be of the same held-out images.

    Raises:
        ValueError: If it is not the folder of a search, no trial is complete,
            or one of the others has no run.

    Example:
        >>> save(front("runs/search", ["runs/sweep"]), "plots/front")
    """
    if isinstance(source, SearchReport):
        report = source
    else:
        report = search_report(source)
    if not report.front:
        raise InputError(
            "A search without a complete trial has nothing to draw. Received: "
            f"source={source!r}"
        )
    names = list(report.objectives)
    results = list(read_results(others).values()) if others else []
    runs = [
        [OBJECTIVES[name].figure(result) for name in names]
        for result in results
    ]
    runs = [values for values in runs if None not in values]
    figure, axes = new_figure(max(1, len(names) - 1), height=2.6)
    for place, axis in enumerate(axes, 1):

        def points(trials, place=place):
            if len(names) == 1:
                return [t.number for t in trials], [t.values[0] for t in trials]
            return [t.values[place] for t in trials], [
                t.values[0] for t in trials
            ]

        if runs and len(names) > 1:
            x, y = [v[place] for v in runs], [v[0] for v in runs]
            axis.plot(x, y, "x", color=GREY, label="other runs")
        axis.plot(
            *points(report.complete), "o", color=COLORS[5], label="trials"
        )
        line = sorted(zip(*points(report.front), strict=True))
        axis.plot(
            *zip(*line, strict=True), "-o", color=COLORS[1], label="front"
        )
        axis.set_ylabel(OBJECTIVES[names[0]].title)
        one = len(names) == 1
        axis.set_xlabel("trial" if one else OBJECTIVES[names[place]].title)
        if not one and names[place] in ("macs", "parameters"):
            axis.set_xscale("log")
    add_legend(figure, axes[0])
    return figure
