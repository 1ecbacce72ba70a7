"""A picture of what tells which channels go."""

import statistics
import typing

from keras_sgl0.experiments.importance_rows import COLUMNS, ROWS, read_rows
from keras_sgl0.experiments.plots.drawing import (
    GREY,
    Paths,
    add_legend,
    drawing,
    looks,
    new_figure,
    texts,
)
from keras_sgl0.utils.validation import require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def importances(paths: Paths) -> "Figure":
    """Draws the test errors of a comparison of importances.

    A line of the figure is an importance or a training, a marker what is done
    after the cut: the mean over the seeds, with the sample standard deviation.
    The axis is logarithmic, as a cut alone may be as good as chance. A dashed
    line is the original.

    Args:
        paths: The JSON files that `benchmarks/importances.py` leaves, or
            folders of them.

    Raises:
        ValueError: If there are none.

    Example:
        >>> save(importances(["docs/results/importances/digits"]), "cuts")
    """
    rows = read_rows(paths)
    require(rows, "paths", "files of a comparison", texts(paths))
    names = [name for name in ROWS if any(row.row == name for row in rows)]
    figure, (axis,) = new_figure(1, height=0.6 + 0.25 * len(names))
    for (column, title), look in zip(COLUMNS.items(), looks(), strict=False):
        places, means, bars = [], [], []
        for place, name in enumerate(names):
            own = [r.errors.get(column) for r in rows if r.row == name]
            known = [error for error in own if error is not None]
            if known:
                places.append(place)
                means.append(statistics.mean(known))
                several = len(known) > 1
                bars.append(statistics.stdev(known) if several else 0.0)
        if means:
            look["linestyle"] = ""
            axis.errorbar(means, places, xerr=bars, label=title, **look)
    originals = [row.original for row in rows]
    axis.axvline(statistics.mean(originals), color=GREY, ls="--")
    axis.set_xscale("log")
    axis.set_xlabel("test error, %")
    axis.set_yticks(range(len(names)), [n.replace("_", " ") for n in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    add_legend(figure, axis)
    return figure
