"""Pictures that compare methods: lines of runs that differ in one thing."""

import math
import statistics
import typing

from keras_sgl0.experiments.overrides import as_text
from keras_sgl0.experiments.penalties import PENALTIES
from keras_sgl0.experiments.plots.drawing import (
    ERROR,
    GREY,
    NEURONS,
    PALE,
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
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.results import group, read_results, settings
from keras_sgl0.utils.validation import choice, finite_float, require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS = {
    "admm": "ADMM",
    "cges": "CGES",
    "factor": "factor times N",
    "l0_gates": "L0 gates",
    "none": "no penalty",
    "proximal": "proximal steps",
    "sgl0": "SGL0",
}
# What sets how strong a penalty is.
_STRENGTHS = ("factor", "share_of_max", "density")


@drawing
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
    require(used, "folders", f"runs with a number as {setting}", texts(folders))
    lines = _lines(used, setting)
    below = _word(setting) + (f" / {unit:g}" if unit != 1 else "")
    figure, axes = new_figure(3)
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        for look, (label, points) in zip(looks(), lines.items(), strict=False):
            points = sorted(points, key=lambda p: _number(p[0], setting))
            x = [_number(point[0], setting) / unit for point in points]
            axis.errorbar(x, *_means(points, name), label=label, **look)
        if name in (WEIGHTS, NEURONS):
            set_percent_ticks(axis, "y")
        axis.set_title(title)
        axis.set_xlabel(below)
        _set_ticks(axis, sorted({_number(r, setting) / unit for r in used}))
    if setting in _STRENGTHS:
        _add_error_without_penalty(axes[-1], results)
    add_legend(figure, axes[-1])
    return figure


@drawing
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
    sparse = [r for r in results if _strength(r.recipe) != "none"]
    require(sparse, "folders", "runs with a penalty", texts(folders))
    lines = _lines(sparse, *_STRENGTHS)
    figure, axes = new_figure(2, height=2.8)
    for axis, name in zip(axes, (WEIGHTS, NEURONS), strict=True):
        for look, (label, points) in zip(looks(), lines.items(), strict=False):
            points = sorted(points, key=lambda p: _means([p], name)[0])
            x, x_bars = _means(points, name)
            y, y_bars = _means(points, ERROR)
            axis.errorbar(x, y, y_bars, x_bars, label=label, **look)
        points = [point for line in lines.values() for point in line]
        steps = _front(_means(points, name)[0], _means(points, ERROR)[0])
        pale = {"color": PALE, "linewidth": 4, "zorder": 0}
        axis.step(*steps, where="pre", label="Pareto front", **pale)
        _add_error_without_penalty(axis, results)
        set_percent_ticks(axis, "x")
        axis.set_xlabel(TITLES[name])
        axis.set_ylabel(TITLES[ERROR])
    add_legend(figure, axes[0])
    return figure


def _add_error_without_penalty(axis, results):
    errors = [
        getattr(r, ERROR) for r in results if r.recipe["penalty"] == "none"
    ]
    if errors:
        mean = statistics.mean(errors)
        axis.axhline(mean, color=GREY, ls=":", label="no penalty")


def _set_ticks(axis, values):
    """Puts ticks where the values are, on a log scale if they are far apart."""
    if values[0] > 0 and values[-1] / values[0] >= 5:
        axis.set_xscale("log")
    if len(values) <= 7:
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.minorticks_off()


def _word(name):
    return _WORDS.get(name, str(name).replace("_", " "))


def _strength(recipe):
    """Returns the setting that sets how strong the penalty is."""
    if recipe["penalty"] == "none":
        return "none"
    return next((n for n in ("density", "share_of_max") if recipe[n]), "factor")


def _number(result, setting):
    """Returns a setting that is one number, `None` if it is none or unused."""
    value = result.recipe.get(setting)
    if setting in _STRENGTHS and _strength(result.recipe) != setting:
        return None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _means(points, name):
    """Returns means and sample standard deviations, NaN where there is none."""
    values = [[getattr(result, name) for result in point] for point in points]
    bars = [statistics.stdev(v) if len(v) > 1 else math.nan for v in values]
    return [statistics.mean(v) for v in values], bars


def _lines(results, *along):
    """Returns the points of each line, by its label.

    A point is a list of the runs that differ in their seed alone, a line one
    of the points that differ in the settings `along` it alone.
    """
    points = group(results, lambda r: settings(r, "seed")).values()

    def line(point):
        strength = _strength(point[0].recipe)
        return strength, settings(point[0], "seed", *along)

    found = list(group(points, line).values())
    # A user's own penalties come last.
    places = {name: place for place, name in enumerate(PENALTIES)}
    found.sort(
        key=lambda line: places.get(line[0][0].recipe["penalty"], len(places))
    )
    return dict(zip(_labels(found, along), found, strict=True))


def _labels(lines, along):
    """Returns as many words for each line as tell it from the others."""
    recipes = [
        line[0][0].recipe | {"strength": _strength(line[0][0].recipe)}
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
    front: list[tuple[float, float]] = []
    for point in sorted(zip(x, y, strict=True), key=lambda p: (-p[0], p[1])):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return list(zip(*reversed(front), strict=True))
