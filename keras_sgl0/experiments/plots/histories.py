"""Pictures of how runs went, epoch by epoch."""

import itertools
import pathlib
import typing

import numpy as np

from keras_sgl0.experiments.plots.drawing import (
    DASHES,
    ERROR,
    NEURONS,
    TITLES,
    WEIGHTS,
    Paths,
    add_legend,
    drawing,
    looks,
    new_figure,
    set_percent_ticks,
    texts,
)
from keras_sgl0.experiments.results import read_history, read_results
from keras_sgl0.utils.validation import require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a history: what is shown, and times what.
_PANELS = {
    WEIGHTS: (TITLES[WEIGHTS], 100),
    NEURONS: (TITLES[NEURONS], 100),
    "val_error": (TITLES[ERROR], 100),
    "loss": ("training loss", 1),
    "learning_rate": ("learning rate", 1),
    "threshold": ("threshold", 1),
    "beta": ("beta", 1),
    "density": ("density of the target, %", 100),
    "strength": ("strength of the penalty", 1),
    "multiplier": ("multiplier", 1),
}
_STEPS = ("learning_rate", "threshold", "beta")


@drawing
def epochs(folders: Paths) -> "Figure":
    """Draws the histories of runs, epoch by epoch.

    There are panels for both sparsities, the test error, the training loss and
    the learning rate and, where a run has them, for the threshold, beta, the
    density that has a target, and the strength or the multiplier of the
    penalty. Where each layer has a target of its own, it has lines of its own.

    Args:
        folders: The folders of runs, or of several.

    Raises:
        ValueError: If there are no runs, or one of them has no history.

    Example:
        >>> save(epochs(["runs/digits-0"]), "plots/epochs")
    """
    runs = {folder: read_history(folder) for folder in read_results(folders)}
    panels = [p for p in _PANELS if any(_columns(h, p) for h in runs.values())]
    require(panels, "folders", "runs with a history", texts(folders))
    figure, axes = new_figure(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        title, scale = _PANELS[panel]
        for look, (folder, history) in zip(looks(), runs.items(), strict=False):
            columns = _columns(history, panel)
            for dashes, layer in zip(
                itertools.cycle(DASHES), columns, strict=False
            ):
                axis.plot(
                    np.add(history["epoch"], 1),
                    np.multiply(columns[layer], scale),
                    color=look["color"],
                    linestyle=dashes if layer else look["linestyle"],
                    label=layer or pathlib.Path(folder).resolve().name,
                    drawstyle="steps-mid" if panel in _STEPS else "default",
                )
            if all(columns) and columns:
                axis.legend(fontsize=6.5, handlelength=3)
        if panel == "val_error":
            _set_log_scale(axis)
        elif panel in (WEIGHTS, NEURONS):
            set_percent_ticks(axis, "y")
        axis.set_title(title)
        axis.set_xlabel("epoch")
    add_legend(figure, axes[0])
    return figure


def _columns(history, panel):
    """Returns the columns of a panel by the layer they are of, "" for none."""
    return {
        name.removeprefix(panel).strip("_"): values
        for name, values in history.items()
        if name == panel or name.startswith(f"{panel}_")
    }


def _set_log_scale(axis):
    from matplotlib import ticker

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    locator: ticker.Locator
    if high < 4 * low:  # a decade's 1, 2 and 5 would leave one tick or none
        locator = ticker.MaxNLocator(5)
    else:
        digits = (1, 2, 3, 5, 7) if high < 20 * low else (1, 2, 5)
        locator = ticker.LogLocator(subs=digits)
    axis.yaxis.set_major_locator(locator)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
