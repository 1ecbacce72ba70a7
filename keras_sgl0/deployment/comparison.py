"""Measuring two models side by side: their size, their files, their speed."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras

from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.latency import compare_latency
from keras_sgl0.deployment.report import Change, Comparison, ExportReport
from keras_sgl0.deployment.runtimes import SUFFIXES, Run, running, running_file
from keras_sgl0.network.cost import count_macs, has_sizes
from keras_sgl0.network.probing import random_inputs
from keras_sgl0.network.unfolding import functional, trace
from keras_sgl0.utils.validation import (
    choice,
    file_path,
    integer,
    require,
    sizes,
)


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

    Raises:
        ValueError: If an argument is something else, or as in `export`.

    Example:
        >>> small, report = shrink(model)
        >>> print(compare(model, small, "files")[0])
    """
    functional(before, "before")
    functional(after, "after")
    folder = file_path("folder", folder)
    is_list = isinstance(formats, list | tuple)
    require(is_list, "formats", "a list of formats", formats)
    for format in formats:
        choice("formats", format, tuple(SUFFIXES))
    require(error is None or callable(error), "error", "a function", error)
    batch_sizes = sizes("batch_sizes", batch_sizes, at_least=0)
    rounds = integer("rounds", rounds, at_least=1)
    changes = [
        Change.between(
            "parameters", before.count_params(), after.count_params()
        ),
        Change.between("multiply-adds", _macs(before), _macs(after)),
    ]
    if error is not None:
        changes.append(
            Change("test error", error(before), error(after), unit="%")
        )
    old = _Exported(before, [])
    new = _Exported(after, [])
    with tempfile.TemporaryDirectory() as other:
        for format in formats:
            name = f"shrunk{SUFFIXES[format]}"
            one = export(before, os.path.join(other, name), format)
            two = export(after, os.path.join(folder, name), format)
            old.files.append(one)
            new.files.append(two)
            changes.append(
                Change.between(
                    f"{format} file", one.bytes, two.bytes, unit="bytes"
                )
            )
        for batch_size in batch_sizes:
            changes += _latencies(old, new, batch_size, rounds)
    return Comparison(tuple(changes)), new.files


class _Exported(NamedTuple):
    """A model and the files it was exported to."""

    model: keras.Model
    files: list[ExportReport]

    def running(self, inputs) -> dict[str, Run]:
        """Returns what runs the model and its files, by the runtime's name."""
        runs = {keras.backend.backend(): running(self.model, inputs)}
        for file in self.files:
            if file.format in ("litert", "onnx") and not file.unchecked:
                runs[file.format] = running_file(
                    file.path, file.format, self.model, inputs
                )
        return runs


def _macs(model):
    return count_macs(model).macs if has_sizes(trace(model)) else None


def _latencies(
    before: _Exported, after: _Exported, batch_size: int, rounds: int
) -> Iterator[Change]:
    inputs = random_inputs(functional(before.model).input, batch_size)
    old, new = before.running(inputs), after.running(inputs)
    for runtime in old:
        yield compare_latency(
            f"{runtime}, batch {batch_size}", old[runtime], new[runtime], rounds
        )
