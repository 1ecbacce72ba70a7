"""Measuring two models side by side: their size, their files, their speed."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.latency import compare_latency
from keras_sgl0.deployment.report import Change, Comparison, ExportReport
from keras_sgl0.deployment.runtimes import (
    SUFFIXES,
    NotRunError,
    Run,
    running,
    running_file,
)
from keras_sgl0.network.cost import count_macs, has_sizes
from keras_sgl0.network.probing import batch_size_of, probe, random_inputs
from keras_sgl0.network.unfolding import functional, trace
from keras_sgl0.utils.validation import (
    choice,
    file_path,
    integer,
    require,
    sizes,
)

# Formats that are timed in a runtime of their own.
_TIMED = ("litert", "onnx")


def compare(
    before: keras.Model,
    after: keras.Model,
    folder: str | os.PathLike | None = None,
    format: str | Sequence[str] = ("keras", "litert"),
    inputs: object = None,
    error: Callable[[keras.Model], float] | None = None,
    batch_sizes: Sequence[int] = (1, 128),
    rounds: int = 500,
) -> Comparison:
    """Exports a model and its shrunk version and measures both.

    Counts, file sizes and latencies: of the models themselves on the backend,
    and of their LiteRT and ONNX files on one thread.

    Args:
        before: The model before. Its files are not kept.
        after: The model after, with the same inputs.
        folder: Where the files of the model after go, as `shrunk.keras` and
            so on. `None` to keep none.
        format: What to export to, one format of `export` or several.
        inputs: Examples to run on, structured as the models want them;
            batches larger than that repeat them. `None` for random ones.
        error: Returns the test error of a model in percent; `None` to leave
            that out.
        batch_sizes: What to measure the latency at. A model with a batch size
            of its own is measured at that.
        rounds: How many turns each model gets.

    Returns:
        A `Comparison`, with a report for each file that is kept.

    Raises:
        ValueError: If an argument is something else, or as in `export`.

    Example:
        >>> small, report = shrink(model)
        >>> print(compare(model, small, format="litert", inputs=x_test[:128]))
    """
    functional(before, "before")
    functional(after, "after")
    if folder is not None:
        folder = file_path("folder", folder)
    formats = _formats(format)
    if inputs is not None:
        probe(before, inputs)  # refuses what does not fit
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
    with tempfile.TemporaryDirectory() as other:
        kept = os.path.join(other, "after") if folder is None else folder
        old = _Exported.to(other, before, formats, inputs)
        new = _Exported.to(kept, after, formats, inputs)
        for one, two in zip(old.files, new.files, strict=True):
            changes.append(
                Change.between(
                    f"{one.format} file", one.bytes, two.bytes, unit="bytes"
                )
            )
        own = batch_size_of(before)
        for batch_size in [own] if own and batch_sizes else batch_sizes:
            batch = _batch(before, inputs, batch_size)
            changes += _latencies(old, new, batch, batch_size, rounds)
    files = () if folder is None else tuple(new.files)
    reasons = {
        file.format: file.unchecked
        for file in (*old.files, *new.files)
        if file.unchecked
    }
    remarks = (f"{name} was not run: {why}" for name, why in reasons.items())
    return Comparison(tuple(changes), files, tuple(remarks))


def _formats(format) -> tuple[str, ...]:
    known = tuple(SUFFIXES)
    several = isinstance(format, list | tuple)
    for one in format if several else [format]:
        choice("format", one, known)
    return tuple(format) if several else (format,)


def _batch(model, inputs, batch_size: int):
    """Returns so many examples, random ones or the given ones over again."""
    own = functional(model).input
    if inputs is None:
        return random_inputs(own, batch_size)
    return tree.map_structure(
        lambda x: np.resize(x, (batch_size, *x.shape[1:])),
        tree.map_structure(ops.convert_to_numpy, inputs),
    )


class _Exported(NamedTuple):
    """A model and the files it was exported to."""

    model: keras.Model
    files: list[ExportReport]

    @classmethod
    def to(
        cls,
        folder: str,
        model: keras.Model,
        formats: Sequence[str],
        inputs: object,
    ) -> "_Exported":
        """Exports a model to files in a folder."""
        paths = {
            format: os.path.join(folder, f"shrunk{SUFFIXES[format]}")
            for format in formats
        }
        files = [
            _export(model, path, format, inputs)
            for format, path in paths.items()
        ]
        return cls(model, files)

    def running(self, inputs) -> dict[str, Run]:
        """Returns what runs the model and its files, by the runtime's name."""
        runs = {keras.backend.backend(): running(self.model, inputs)}
        for file in self.files:
            if file.format in _TIMED and not file.unchecked:
                runs[file.format] = running_file(
                    file.path, file.format, self.model, inputs
                )
        return runs


def _export(model, path, format, inputs) -> ExportReport:
    """Returns the report of a file, which may be one that cannot be run."""
    try:
        return export(model, path, format, inputs=inputs)
    except NotRunError as error:
        assert error.report is not None
        return error.report


def _macs(model):
    return count_macs(model).macs if has_sizes(trace(model)) else None


def _latencies(
    before: _Exported,
    after: _Exported,
    inputs: object,
    batch_size: int,
    rounds: int,
) -> Iterator[Change]:
    old, new = before.running(inputs), after.running(inputs)
    for runtime in (name for name in old if name in new):
        yield compare_latency(
            f"{runtime}, batch {batch_size}", old[runtime], new[runtime], rounds
        )
