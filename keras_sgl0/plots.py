"""Pictures of finished runs, drawn from the files they left.

Each function returns a `matplotlib.figure.Figure`, which notebooks show and
`save` writes.
"""

import functools
import itertools
import math
import os
import pathlib
import statistics
import typing
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_sgl0.recipes import PENALTIES, Recipe
from keras_sgl0.results import (
    group,
    read_history,
    read_result,
    read_results,
    settings,
)
from keras_sgl0.run_folder import HISTORY, MODEL, RESULT
from keras_sgl0.settings import as_text
from keras_sgl0.sparsity import TOLERANCE, kernels
from keras_sgl0.validation import InputError, choice, finite_float, require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = Iterable[str | os.PathLike]
FORMATS = ("png", "svg")
# Okabe and Ito's colours, which colour-blind readers can tell apart, without
# the yellow that is lost on paper. Markers and dashes serve print in grey.
_COLORS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
_MARKERS = "osD^vPX*"
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_GREY, _PALE = "#6E6E6E", "#D9D9D9"
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
_WEIGHTS, _NEURONS, _ERROR = "weight_sparsity", "neuron_sparsity", "test_error"
_TITLES = {
    _WEIGHTS: "weight sparsity, %",
    _NEURONS: "neuron sparsity, %",
    _ERROR: "test error, %",
}
# Of a history: what is shown, and times what.
_PANELS = {
    _WEIGHTS: (_TITLES[_WEIGHTS], 100),
    _NEURONS: (_TITLES[_NEURONS], 100),
    "val_error": (_TITLES[_ERROR], 100),
    "threshold": ("threshold", 1),
    "beta": ("beta", 1),
    "density": ("density of the target, %", 100),
    "strength": ("strength of the penalty", 1),
    "multiplier": ("multiplier", 1),
}
_STEPS = ("threshold", "beta")
_WORDS = {
    "admm": "ADMM",
    "cges": "CGES",
    "factor": "factor times N",
    "l0_gates": "L0 gates",
    "none": "no penalty",
    "sgl0": "SGL0",
}
# What sets how strong a penalty is.
_STRENGTHS = ("factor", "share_of_max", "density")


def _drawing(function):
    """Lets a function draw in our style, or say what it lacks."""

    @functools.wraps(function)
    def draw(*args, **kwargs):
        try:
            import matplotlib
        except ImportError as problem:
            raise InputError(
                "Pictures need matplotlib, which is not installed. Try: pip "
                "install 'keras_sgl0[plot]'"
            ) from problem
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return draw


@_drawing
def against(
    folders: Paths, setting: str = "factor", unit: float = 1.0
) -> "Figure":
    """Draws both sparsities and the test error against a setting.

    These are the figures 1 and 2 of Bui et al., whose alpha is our `factor`.
    A line is a method, that is all runs that differ in nothing but the setting
    and the seed. A point is the mean over the seeds, its bar the sample
    standard deviation. Runs that do not use the setting are left out, but a
    dotted level shows the error without a penalty.

    Args:
        folders: The folders of runs, or of several.
        setting: The name of a setting that is one number.
        unit: What it is divided by on the axis: 40 if runs of 5 epochs had 40
            times the alpha of runs of 200.

    Raises:
        ValueError: If there are no runs, if none of them uses the setting, if
            there is no such setting, or if `unit` is not positive.

    Example:
        >>> save(against(["runs/sweep"]), "plots/factor")

    Reference:
        Bui et al., arXiv 1912.07868, figures 1 and 2.
    """
    choice("setting", setting, tuple(Recipe().to_dict()))
    unit = finite_float("unit", unit, above=0)
    results = list(read_results(folders).values())
    used = [r for r in results if _number(r, setting) is not None]
    require(
        used, "folders", f"runs with a number as {setting}", _texts(folders)
    )
    lines = _lines(used, setting)
    below = _word(setting) + (f" / {unit:g}" if unit != 1 else "")
    figure, axes = _figure(3)
    for axis, (name, title) in zip(axes, _TITLES.items(), strict=True):
        for look, (label, points) in zip(_looks(), lines.items(), strict=False):
            points = sorted(points, key=lambda p: _number(p[0], setting))
            x = [_number(point[0], setting) / unit for point in points]
            axis.errorbar(x, *_means(points, name), label=label, **look)
        axis.set_title(title)
        axis.set_xlabel(below)
        _set_ticks(axis, sorted({_number(r, setting) / unit for r in used}))
    if setting in _STRENGTHS:
        _add_error_without_penalty(axes[-1], results)
    _add_legend(figure, axes[-1])
    return figure


@_drawing
def pareto(folders: Paths) -> "Figure":
    """Draws the test error against the weight and the neuron sparsity.

    A point is the mean over the seeds of runs with the same settings, its bars
    the sample standard deviations. A line joins those that differ in nothing
    but the strength of the penalty. The grey steps are the Pareto
    front: no point is to the lower right of it. A dotted level is the error
    without a penalty.

    Args:
        folders: The folders of runs, or of several.

    Raises:
        ValueError: If there are no runs, or none with a penalty.

    Example:
        >>> save(pareto(["docs/results/targets"]), "plots/pareto")
    """
    results = list(read_results(folders).values())
    sparse = [r for r in results if _strength(r["recipe"]) != "none"]
    require(sparse, "folders", "runs with a penalty", _texts(folders))
    lines = _lines(sparse, *_STRENGTHS)
    figure, axes = _figure(2, height=2.8)
    for axis, name in zip(axes, (_WEIGHTS, _NEURONS), strict=True):
        for look, (label, points) in zip(_looks(), lines.items(), strict=False):
            points = sorted(points, key=lambda p: _means([p], name)[0])
            x, x_bars = _means(points, name)
            y, y_bars = _means(points, _ERROR)
            axis.errorbar(x, y, y_bars, x_bars, label=label, **look)
        points = [point for line in lines.values() for point in line]
        steps = _front(_means(points, name)[0], _means(points, _ERROR)[0])
        pale = {"color": _PALE, "linewidth": 4, "zorder": 0}
        axis.step(*steps, where="pre", label="Pareto front", **pale)
        _add_error_without_penalty(axis, results)
        axis.set_xlabel(_TITLES[name])
        axis.set_ylabel(_TITLES[_ERROR])
    _add_legend(figure, axes[0])
    return figure


@_drawing
def epochs(folders: Paths) -> "Figure":
    """Draws the histories of runs, epoch by epoch.

    There are panels for both sparsities and the test error and, where a run
    has them, for the threshold, beta, the density that has a target, and the
    strength or the multiplier of the penalty. Where each layer has a target of
    its own, it has lines of its own.

    Args:
        folders: The folders of runs, or of several.

    Raises:
        ValueError: If there are no runs, or one of them has no history.

    Example:
        >>> save(epochs(["runs/digits-0"]), "plots/epochs")
    """
    runs = {folder: read_history(folder) for folder in read_results(folders)}
    panels = [p for p in _PANELS if any(_columns(h, p) for h in runs.values())]
    require(panels, "folders", "runs with a history", _texts(folders))
    figure, axes = _figure(len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        title, scale = _PANELS[panel]
        for look, (folder, history) in zip(
            _looks(), runs.items(), strict=False
        ):
            columns = _columns(history, panel)
            for dashes, layer in zip(
                itertools.cycle(_DASHES), columns, strict=False
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
        axis.set_title(title)
        axis.set_xlabel("epoch")
    _add_legend(figure, axes[0])
    return figure


@_drawing
def filters(path: str | os.PathLike, layer: str | None = None) -> "Figure":
    """Draws the filters of a convolution that are not all zero.

    Those of one input channel fill a square. Those of several are columns, and
    each row is an input channel. White is zero.

    Args:
        path: A run's folder, or a `.keras` file.
        layer: The name of a `Conv2D`, `None` for the first one.

    Raises:
        ValueError: If there is no such model or convolution, or if no filter
            of it is left.

    Example:
        >>> save(filters("runs/digits-0", "conv1"), "plots/conv1")
    """
    by_name = {
        conv.kernel.path.rpartition("/")[0]: conv.kernel
        for conv in _load(path)._flatten_layers()
        if isinstance(conv, keras.layers.Conv2D)
    }
    require(by_name, "path", "a model with a Conv2D", str(path))
    layer = choice("layer", layer or next(iter(by_name)), tuple(by_name))
    kernel = ops.convert_to_numpy(by_name[layer]).transpose(3, 2, 0, 1)
    alive = np.flatnonzero(kernel.any(axis=(1, 2, 3)))
    require(len(alive), "layer", "a layer with a filter left", layer)
    import matplotlib

    number, channels, *sides = kernel.shape
    tiles = kernel[alive]
    if channels > 1:
        tiles, columns = tiles.swapaxes(0, 1), len(alive)
    else:
        columns = math.ceil(len(alive) ** 0.5)
    picture = _mosaic(tiles.reshape(-1, *sides), columns)
    inches = min(0.06, 6.3 / picture.shape[1])  # a weight
    height, width = np.multiply(picture.shape, inches)
    figure, (axis,) = _figure(1, height + 0.5, max(width, 1.6) + 0.9)
    most = np.abs(kernel).max()
    colors = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#BBBBBB")
    image = axis.imshow(picture, colors, vmin=-most, vmax=most)
    bar = figure.colorbar(image, shrink=min(1, 1.5 / height), aspect=15)
    bar.outline.set_visible(False)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xticks([])
    axis.set_yticks([])
    if channels > 1:
        axis.set_ylabel(f"{channels} input channels")
        axis.set_xlabel("filters")
        if len(alive) <= 50:
            middles = (np.arange(len(alive)) + 0.5) * (sides[1] + 1) - 1
            axis.set_xticks(middles, alive, fontsize=5.5)
            axis.tick_params(length=0)
    axis.set_title(f"{layer}: {len(alive)} of {number} filters are left")
    return figure


@_drawing
def weights(path: str | os.PathLike) -> "Figure":
    """Draws how large the weights of each kernel are.

    Zeros are left out, and counted in the title. Vertical lines show the size
    below which a weight counts as zero and, if the run's history has one, the
    last threshold. A run's `checkpoint.keras` still has the weights that were
    cut; those below 1e-12 are all in the first bar.

    Args:
        path: A run's folder, or a `.keras` file.

    Raises:
        ValueError: If there is no such model, or if it has no kernel.

    Example:
        >>> save(weights("runs/digits-0/checkpoint.keras"), "plots/weights")
    """
    sizes = {
        kernel.path: np.abs(ops.convert_to_numpy(kernel)).ravel()
        for kernel in kernels(_load(path))
    }
    levels = _levels(path)
    shown = {k: np.maximum(s[s > 0], 1e-12) for k, s in sizes.items()}
    every = np.concatenate([*shown.values(), [*levels.values(), 1]])
    edges = np.geomspace(every.min() / 1.2, every.max() * 1.2, 61)
    figure, axes = _figure(len(sizes))
    for axis, (name, size) in zip(axes, sizes.items(), strict=True):
        axis.hist(shown[name], edges, color=_COLORS[5])
        for look, (label, level) in zip(
            _looks(1), levels.items(), strict=False
        ):
            axis.axvline(
                level, color=look["color"], ls=look["linestyle"], label=label
            )
        axis.set_xscale("log")
        axis.set_title(f"{name}, {np.mean(size == 0):.1%} zero")
        axis.set_xlabel("|w|")
        axis.set_ylabel("weights")
    _add_legend(figure, axes[0])
    return figure


@_drawing
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


def _figure(panels, height=2.0, width=7.2):
    """Returns a figure and its axes; `height` is that of a row, in inches."""
    from matplotlib.figure import Figure

    columns = 2 if panels == 4 else min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure((width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def _add_legend(figure, axis):
    """Puts the legend of one axis below the figure, which grows by it."""
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


def _add_error_without_penalty(axis, results):
    errors = [r[_ERROR] for r in results if r["recipe"]["penalty"] == "none"]
    if errors:
        mean = statistics.mean(errors)
        axis.axhline(mean, color=_GREY, ls=":", label="no penalty")


def _looks(first=0):
    """Yields how to draw one line after another."""
    each = map(itertools.cycle, (_COLORS, _MARKERS, _DASHES))
    for color, marker, dashes in itertools.islice(
        zip(*each, strict=True), first, None
    ):
        yield {"color": color, "marker": marker, "linestyle": dashes}


def _set_ticks(axis, values):
    """Puts ticks where the values are, on a log scale if they are far apart."""
    if values[0] > 0 and values[-1] / values[0] >= 5:
        axis.set_xscale("log")
    if len(values) <= 7:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.minorticks_off()


def _set_log_scale(axis):
    from matplotlib import ticker

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def _word(name):
    return _WORDS.get(name, str(name).replace("_", " "))


def _texts(folders):
    return [str(folder) for folder in folders]


def _strength(recipe):
    """Returns the setting that sets how strong the penalty is."""
    if recipe["penalty"] == "none":
        return "none"
    return next((n for n in ("density", "share_of_max") if recipe[n]), "factor")


def _number(result, setting):
    """Returns a setting that is one number, `None` if it is none or unused."""
    value = result["recipe"].get(setting)
    if setting in _STRENGTHS and _strength(result["recipe"]) != setting:
        return None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _means(points, name):
    """Returns means and sample standard deviations, NaN where there is none."""
    values = [[result[name] for result in point] for point in points]
    bars = [statistics.stdev(v) if len(v) > 1 else math.nan for v in values]
    return [statistics.mean(v) for v in values], bars


def _lines(results, *along):
    """Returns the points of each line, by its label.

    A point is a list of the runs that differ in their seed alone, a line one
    of the points that differ in the settings `along` it alone.
    """
    points = group(results, lambda r: settings(r, "seed")).values()

    def line(point):
        strength = _strength(point[0]["recipe"])
        return strength, settings(point[0], "seed", *along)

    found = list(group(points, line).values())
    penalties = tuple(PENALTIES)
    found.sort(
        key=lambda line: penalties.index(line[0][0]["recipe"]["penalty"])
    )
    return dict(zip(_labels(found, along), found, strict=True))


def _labels(lines, along):
    """Returns as many words for each line as tell it from the others."""
    recipes = [
        line[0][0]["recipe"] | {"strength": _strength(line[0][0]["recipe"])}
        for line in lines
    ]
    labels = [_word(recipe["penalty"]) for recipe in recipes]
    rest = [n for n in recipes[0] if n not in ("penalty", "seed", *along)]
    for name in sorted(rest, key=("training", "strength", *rest).index):
        texts = [_text(name, recipe.get(name)) for recipe in recipes]
        for label in {label for label in labels if labels.count(label) > 1}:
            same = [i for i, other in enumerate(labels) if other == label]
            if len({texts[i] for i in same}) > 1:
                for i in same:
                    labels[i] += f", {texts[i]}"
    return labels


def _text(name, value):
    if name == "training":
        return f"by {_word(value)}"
    if name == "strength":
        return f"by {value.replace('_', ' ')}"
    return f"{_word(name)} {as_text(value)}"


def _front(x, y):
    """Returns the points to the lower right of which there is none."""
    front = []
    for point in sorted(zip(x, y, strict=True), key=lambda p: (-p[0], p[1])):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return list(zip(*reversed(front), strict=True))


def _columns(history, panel):
    """Returns the columns of a panel by the layer they are of, "" for none."""
    return {
        name.removeprefix(panel).strip("_"): values
        for name, values in history.items()
        if name == panel or name.startswith(f"{panel}_")
    }


def _mosaic(tiles, columns):
    """Returns tiles of equal size in rows, with NaN between them."""
    number, height, width = tiles.shape
    rows = math.ceil(number / columns)
    shape = (rows, height + 1, columns, width + 1)
    framed = np.full((rows * columns, height + 1, width + 1), np.nan)
    framed[:number, :height, :width] = tiles
    framed = framed.reshape(rows, columns, height + 1, width + 1)
    whole = framed.swapaxes(1, 2).reshape(shape[0] * shape[1], -1)
    return whole[:-1, :-1]


def _load(path):
    """Returns the model of a run's folder, or of a file."""
    path = pathlib.Path(path).expanduser()
    path = path if path.suffix == ".keras" else path / MODEL
    require(
        path.is_file(), "path", "a run's folder or a .keras file", str(path)
    )
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, KeyError, ValueError, TypeError) as problem:
        raise InputError(
            f"The model {path} cannot be read ({problem})."
        ) from problem


def _levels(path):
    """Returns the sizes to compare weights to, by what they are."""
    path = pathlib.Path(path).expanduser()
    folder = path.parent if path.suffix == ".keras" else path
    tolerance, thresholds = TOLERANCE, ()
    if (folder / RESULT).is_file():
        tolerance = read_result(folder)["recipe"]["tolerance"]
    if (folder / HISTORY).is_file():
        thresholds = read_history(folder).get("threshold", ())
    levels = {f"tolerance {tolerance:g}": tolerance} if tolerance else {}
    if thresholds:
        levels[f"threshold {thresholds[-1]:.3g}"] = thresholds[-1]
    return levels
