"""Pictures of what is left of a model."""

import math
import os
import pathlib
import typing

import keras
import numpy as np
from keras import ops

from keras_sgl0.experiments.plots.drawing import (
    COLORS,
    add_legend,
    drawing,
    looks,
    new_figure,
)
from keras_sgl0.experiments.results import read_history, read_result
from keras_sgl0.experiments.run_folder import HISTORY, MODEL, RESULT
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.sparsity import TOLERANCE, kernels
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.families import structures as find_structures
from keras_sgl0.utils.tables import short_list
from keras_sgl0.utils.validation import InputError, choice, require

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing
def filters(path: str | os.PathLike, layer: str | None = None) -> "Figure":
    """Draws the filters of a convolution.

    Those of one input channel fill a square. Those of several are columns, and
    each row is an input channel. White is zero, and filters that are all zero
    are grey. The numbers are those of the others.

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
        for conv in all_layers(_load(path))
        if isinstance(conv, keras.layers.Conv2D)
    }
    require(by_name, "path", "a model with a Conv2D", str(path))
    layer = choice("layer", layer or next(iter(by_name)), tuple(by_name))
    kernel = ops.convert_to_numpy(by_name[layer]).transpose(3, 2, 0, 1)
    alive = np.flatnonzero(kernel.any(axis=(1, 2, 3)))
    require(len(alive), "layer", "a layer with a filter left", layer)
    import matplotlib

    number, channels, *sides = kernel.shape
    tiles = np.full_like(kernel, np.nan)
    tiles[alive] = kernel[alive]
    if channels > 1:
        tiles, columns = tiles.swapaxes(0, 1), number
    else:
        columns = math.ceil(number**0.5)
    picture = _mosaic(tiles.reshape(-1, *sides), columns)
    inches = min(0.06, 6.3 / picture.shape[1])  # a weight
    height, width = np.multiply(picture.shape, inches)
    figure, (axis,) = new_figure(1, height + 0.5, max(width, 1.6) + 0.9)
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
            middles = (alive + 0.5) * (sides[1] + 1) - 1
            axis.set_xticks(middles, alive, fontsize=5.5)
            axis.tick_params(length=0)
    axis.set_title(f"{layer}: {len(alive)} of {number} filters are left")
    return figure


@drawing
def weights(path: str | os.PathLike) -> "Figure":
    """Draws how large the weights of each kernel are.

    Zeros are left out of the bars. The title counts the weights that are zero
    to the tolerance of the run, as its report does. Vertical lines show this
    tolerance and, if the run's history has one, the last threshold. A run's
    `checkpoint.keras` still has the weights that were cut; those below 1e-12
    are all in the first bar.

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
    tolerance, thresholds = _levels(path)
    levels = {f"tolerance {tolerance:g}": tolerance} if tolerance else {}
    for threshold in thresholds[-1:]:
        levels[f"threshold {threshold:.3g}"] = threshold
    shown = {k: np.maximum(s[s > 0], 1e-12) for k, s in sizes.items()}
    every = np.concatenate([*shown.values(), [*levels.values(), 1]])
    edges = np.geomspace(every.min() / 1.2, every.max() * 1.2, 61)
    figure, axes = new_figure(len(sizes))
    for axis, (name, size) in zip(axes, sizes.items(), strict=True):
        axis.hist(shown[name], edges, color=COLORS[5])
        for look, (label, level) in zip(looks(1), levels.items(), strict=False):
            axis.axvline(
                level, color=look["color"], ls=look["linestyle"], label=label
            )
        axis.set_xscale("log")
        zero = (size < tolerance) | (size == 0)
        axis.set_title(f"{name}, {np.mean(zero):.1%} zero")
        axis.set_xlabel("|w|")
        axis.set_ylabel("weights")
    add_legend(figure, axes[0])
    return figure


@drawing
def structures(source: str | os.PathLike | Structures) -> "Figure":
    """Draws what of a model can be cut: one bar a family of channels.

    A bar shows the share of the model's multiply-adds that is gone without
    the family (of its parameters, if the sizes of the inputs are not known).
    The number at its end counts the channels. A multiply-add between two
    families is gone without either, so the shares may add up to more than 1.

    Args:
        source: A run's folder, a `.keras` file, or the result of
            `keras_sgl0.structures`.

    Raises:
        ValueError: If there is no such model, or if nothing can be cut.

    Example:
        >>> found = ks.structures(keras.applications.MobileNetV2(weights=None))
        >>> save(structures(found), "plots/mobilenet_v2")
    """
    if not isinstance(source, Structures):
        source = find_structures(_load(source))
    report = source.report()
    families = report.families
    require(families, "source", "a model of which something can be cut", source)
    figure, (axis,) = new_figure(1, 0.9 + 0.15 * len(families))
    shares = [100 * family.share for family in families]
    bars = axis.barh(range(len(families)), shares, color=COLORS[5])
    counts = [f"{family.structures:,}" for family in families]
    axis.bar_label(bars, counts, padding=2, fontsize=6)
    names = [short_list(family.made_by) for family in families]
    axis.set_yticks(range(len(families)), names, fontsize=6)
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.grid(False, axis="y")
    unit, stays = "parameters", report.smallest_parameters / report.parameters
    if report.macs and report.smallest_macs is not None:
        unit, stays = "multiply-adds", report.smallest_macs / report.macs
    axis.set_xlabel(f"% of the {unit} that are gone without the family")
    axis.set_title(
        f"{report.model}: {report.structures:,} channels in {len(families):,} "
        f"families\nwith one channel each, {stays:.1%} of the {unit} stay"
    )
    return figure


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
    """Returns the tolerance and the thresholds of the run a model is of."""
    path = pathlib.Path(path).expanduser()
    folder = path.parent if path.suffix == ".keras" else path
    tolerance, thresholds = TOLERANCE, []
    if (folder / RESULT).is_file():
        tolerance = read_result(folder).recipe["tolerance"]
    if (folder / HISTORY).is_file():
        thresholds = read_history(folder).get("threshold", [])
    return tolerance, thresholds
