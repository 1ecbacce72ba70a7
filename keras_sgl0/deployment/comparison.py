"""Measuring two models side by side: their size, their files, their speed."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import keras

from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.latency import compare_latency
from keras_sgl0.deployment.report import Change, Comparison, ExportReport
from keras_sgl0.deployment.runtimes import SUFFIXES, running, running_file
from keras_sgl0.network.cost import count_macs, has_sizes
from keras_sgl0.network.graph import functional, trace
from keras_sgl0.network.probing import random_inputs


def compare(
    before: keras.Model,
    after: keras.Model,
    folder: str | os.PathLike,
    formats: Sequence[str] = ("keras", "litert"),
    error: Callable[[keras.Model], float] | None = None,
    batch_sizes: Sequence[int] = (1, 128),
    rounds: int = 500,
) -> tuple[Comparison, list[ExportReport]]:
    """Exports a model and its shrunk version and measures both.

    Counts, file sizes and latencies on random inputs: of the models themselves
    on the backend, and of their LiteRT and ONNX files on one thread.

    Args:
        before: The model before. Its files are not kept.
        after: The model after, with the same inputs.
        folder: Where the files of the model after go, as `shrunk.keras` and
            so on.
        formats: What to export to, see `export`.
        error: Returns the test error of a model in percent; `None` to leave
            that out.
        batch_sizes: What to measure the latency at.
        rounds: How many turns each model gets.

    Returns:
        A `Comparison`, and a report for each file.

    Example:
        >>> small, report = shrink(model)
        >>> print(compare(model, small, "files")[0])
    """
    models = before, after
    changes = [
        Change.between("parameters", *[m.count_params() for m in models]),
        Change.between("multiply-adds", *map(_macs, models)),
    ]
    if error is not None:
        changes.append(Change("test error", *map(error, models), "%"))
    with tempfile.TemporaryDirectory() as other:
        pairs = []
        for format in formats:
            name = f"shrunk{SUFFIXES.get(format, '')}"
            pair = [
                export(model, os.path.join(place, name), format)
                for model, place in zip(models, (other, folder), strict=True)
            ]
            pairs.append(pair)
            sizes = [report.bytes for report in pair]
            changes.append(Change.between(f"{format} file", *sizes, "bytes"))
        for size in batch_sizes:
            changes += _latencies(models, pairs, size, rounds)
    return Comparison(tuple(changes)), [pair[1] for pair in pairs]


def _macs(model):
    return count_macs(model).macs if has_sizes(trace(model)) else None


def _latencies(models, pairs, size, rounds) -> Iterator[Change]:
    x = random_inputs(functional(models[0]).input, size)
    runs = {keras.backend.backend(): [running(model, x) for model in models]}
    for pair in pairs:
        format = pair[0].format
        if format in ("litert", "onnx") and not pair[0].unchecked:
            runs[format] = [
                running_file(report.path, format, model, x)
                for report, model in zip(pair, models, strict=True)
            ]
    for name, pair in runs.items():
        yield compare_latency(f"{name}, batch {size}", *pair, rounds)
