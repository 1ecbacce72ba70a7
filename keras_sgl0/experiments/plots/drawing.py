"""How all figures look, and how they are written."""

import functools
import itertools
import math
import os
import typing
from collections.abc import Callable, Iterable, Iterator

from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import choice

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

# Folders of runs, or of several.
Paths = Iterable[str | os.PathLike]
FORMATS = ("png", "svg")
# Okabe and Ito's colours, which colour-blind readers can tell apart, without
# the yellow that is lost on paper. Markers and dashes serve print in grey.
COLORS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
_MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
GREY, PALE = "#6E6E6E", "#D9D9D9"
_STYLE = {
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.use_mathtext": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "errorbar.capsize": 2,
    "figure.dpi": 200,
    "font.size": 7.5,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "svg.hashsalt": "keras_sgl0",  # the same file for the same figure
}
WEIGHTS, NEURONS, ERROR = "weight_sparsity", "neuron_sparsity", "test_error"
TITLES = {
    WEIGHTS: "weight sparsity, %",
    NEURONS: "neuron sparsity, %",
    ERROR: "test error, %",
}


def drawing(function: Callable) -> Callable:
    """Lets a function draw in our style, or say what it lacks.

    Args:
        function: What draws.

    Raises:
        ValueError: When it is called, if matplotlib is not installed.
    """

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with name_extra():
            import matplotlib
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return draw


@drawing
def save(
    figure: "Figure",
    path: str | os.PathLike,
    formats: Iterable[str] = FORMATS,
) -> list[str]:
    """Writes a figure.

    Args:
        figure: What to write.
        path: Where, without the ending; folders are made if need be.
        formats: The endings, any that matplotlib knows.

    Returns:
        The paths of the files.

    Raises:
        ValueError: If matplotlib does not know a format.

    Example:
        >>> save(pareto(["runs"]), "plots/pareto")
        ['plots/pareto.png', 'plots/pareto.svg']
    """
    known = tuple(figure.canvas.get_supported_filetypes())
    formats = [choice("formats", name, known) for name in formats]
    path = os.path.expanduser(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    for name in formats:
        # Without a date, so that the same figure makes the same file.
        metadata = {"Date": None} if name == "svg" else None
        figure.savefig(f"{path}.{name}", format=name, metadata=metadata)
    return [f"{path}.{name}" for name in formats]


def new_figure(
    panels: int, height: float = 2.0, width: float = 7.2
) -> tuple["Figure", list]:
    """Returns a figure and its axes.

    Args:
        panels: How many axes.
        height: Of a row of them, in inches.
        width: Of the figure, in inches.
    """
    from matplotlib.figure import Figure

    columns = 2 if panels == 4 else min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure((width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[panels:]:
        axis.remove()
    return figure, list(axes[:panels])


def add_legend(figure: "Figure", axis) -> None:
    """Puts the legend of one axis below the figure, which grows by it.

    Args:
        figure: The figure.
        axis: The axis that has the labels of all.
    """
    found = list(zip(*axis.get_legend_handles_labels(), strict=True))
    if not found:
        return
    # Lines with bars are tuples in matplotlib: methods before levels.
    found.sort(key=lambda pair: not isinstance(pair[0], tuple))
    handles, labels = zip(*found, strict=True)
    width, height = figure.get_size_inches()
    letters = 9 + max(map(len, labels))
    rows = math.ceil(len(labels) / max(1, int(16 * width / letters)))
    columns = math.ceil(len(labels) / rows)
    figure.set_size_inches(width, height + 0.17 * rows + 0.1)
    place = "outside lower center"
    figure.legend(handles, labels, loc=place, ncols=columns, handlelength=3)


def looks(first: int = 0) -> Iterator[dict]:
    """Yields how to draw one line after another, without end.

    Args:
        first: How many to leave out.
    """
    each = map(itertools.cycle, (COLORS, _MARKERS, DASHES))
    for color, marker, dashes in itertools.islice(
        zip(*each, strict=True), first, None
    ):
        yield {"color": color, "marker": marker, "linestyle": dashes}


def set_percent_ticks(axis, *names: str) -> None:
    """Leaves out the ticks of a percentage below 0 and above 100.

    Args:
        axis: A panel, drawn.
        names: Which of its axes, `"x"` or `"y"`.
    """
    for name in names:
        low, high = getattr(axis, f"get_{name}lim")()
        ticks = getattr(axis, f"get_{name}ticks")()
        inside = [t for t in ticks if max(low, 0) <= t <= min(high, 100)]
        getattr(axis, f"set_{name}ticks")(inside)


def texts(folders: Paths) -> list[str]:
    """Returns paths as an error message shows them.

    Args:
        folders: The paths.
    """
    return [str(folder) for folder in folders]
