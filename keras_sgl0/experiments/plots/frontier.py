"""A picture of the frontier of small networks for one task."""

import json
import pathlib
import statistics
import typing

from keras_sgl0.experiments.plots.drawing import (
    GREY,
    Paths,
    add_legend,
    drawing,
    looks,
    new_figure,
    texts,
)
from keras_sgl0.utils.validation import InputError, require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {"macs": "multiply-adds", "weights": "weights that are not zero"}


@drawing
def frontier(paths: Paths) -> "Figure":
    """Draws the test error against multiply-adds and weights.

    A marker is the mean of the runs that differ in nothing but the seed, its
    bars the sample standard deviations. Hollow grey markers are published
    networks.
    Both costs are on logarithmic axes.

    Args:
        paths: The `figures.json` files of `benchmarks/frontier.py`, and files
            of published networks: JSON with `method`, `macs`, `weights` and
            `error`.

    Raises:
        ValueError: If there are no runs, if a file lacks a figure, or if the
            error of a run is that of held-out images.

    Example:
        >>> files = glob.glob("docs/results/frontier/*/figures.json")
        >>> save(frontier(files), "plots/frontier")
    """
    paths = list(paths)
    runs: dict[str, list[dict]] = {}
    published: dict[str, list[dict]] = {}
    for path in paths:
        point = _read(path)
        if "method" in point:
            published.setdefault(point["method"], []).append(point)
        else:
            runs.setdefault(_label(point["settings"]), []).append(point)
    require(runs, "paths", "files of runs", texts(paths))
    figure, axes = new_figure(2, height=2.8)
    for axis, (cost, title) in zip(axes, _PANELS.items(), strict=True):
        for (method, points), look in zip(
            published.items(), looks(), strict=False
        ):
            look |= {"color": GREY, "markerfacecolor": "none", "linestyle": ""}
            x = [point[cost] for point in points]
            y = [point["error"] for point in points]
            axis.plot(x, y, label=method, **look)
        for (label, points), look in zip(runs.items(), looks(), strict=False):
            x, x_bar = _mean([point[cost] for point in points])
            y, y_bar = _mean([point["error"] for point in points])
            look["linestyle"] = ""
            axis.errorbar(x, y, y_bar, x_bar, label=label, **look)
        axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.set_ylabel("test error, %")
    add_legend(figure, axes[0])
    return figure


def _read(path):
    try:
        point = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as problem:
        raise InputError(f"{path} cannot be read as JSON: {problem}") from None
    kind = "method" if "method" in point else "settings"
    missing = {kind, "error", *_PANELS} - point.keys()
    require(not missing, str(path), f"a file with {sorted(missing)}", [*point])
    held_out = point.get("settings", {}).get("held_out")
    require(not held_out, str(path), "errors on test images", "held-out ones")
    return point


def _label(settings):
    """Returns the settings of a run as the legend shows them."""
    words = [f"target {100 * settings['macs']:g} %"]
    if settings.get("widths"):  # older runs lack it
        words = ["as narrow from the start"]
    if settings["weights"]:
        words.append(f"{settings['weights']:,} weights")
    words.append(f"{settings['epochs']} epochs")
    return ", ".join(words)


def _mean(values):
    """Returns the mean and the sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.mean(values), deviation
