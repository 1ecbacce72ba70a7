"""Latency as a budget: what to cut for a model that is so much faster."""

import functools
import os
import tempfile
from typing import cast

import keras
import numpy as np

from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.prune import Criteria, cut
from keras_sgl0.deployment.export import export
from keras_sgl0.deployment.latency import compare_latency
from keras_sgl0.deployment.report import Change
from keras_sgl0.deployment.runtimes import (
    SUFFIXES,
    NotRunError,
    Run,
    running,
    running_file,
    told_as_not_run,
)
from keras_sgl0.network.probing import batch_size_of, random_inputs
from keras_sgl0.network.unfolding import functional
from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import Structures
from keras_sgl0.utils.validation import InputError

MULTIPLES = (1, 2, 4, 8, 16)
# A model that takes so much longer takes as long, up to noise.
_NOISE = 1.03
RUNTIMES = ("keras", "litert", "onnx")
_ROUNDS = 100
# The search ends where the latency is so near to what is wanted, or after so
# many models.
_NEAR = 0.96
_MODELS = 8
# A step of the search is at least this part of what is left: time is no line.
_LEAST_PART = 0.15


class Beside:
    """Times models beside one, which is exported once.

    Args:
        model: A built model.
        runtime: `"keras"` for the backend, or `"litert"` or `"onnx"`.
    """

    def __init__(self, model: keras.Model, runtime: str):
        self.model = model
        self._runtime = runtime

    def compare(self, other: keras.Model) -> Change:
        """Returns the milliseconds of a call, measured side by side.

        A call has one example, or as many as the model must have.

        Args:
            other: A model with the same inputs.
        """
        with tempfile.TemporaryDirectory() as folder:
            own, runtime = self._run, self._runtime
            if runtime == "keras":
                runtime = keras.backend.backend()
            return compare_latency(
                f"{runtime}, batch {batch_size_of(self.model) or 1}",
                own,
                self._running(other, folder),
                _ROUNDS,
            )

    @functools.cached_property
    def _inputs(self):
        return random_inputs(functional(self.model).input, examples=1)

    @functools.cached_property
    def _folder(self) -> tempfile.TemporaryDirectory:
        """Where the model is, as long as it runs."""
        return tempfile.TemporaryDirectory()

    @functools.cached_property
    def _run(self) -> Run:
        return self._running(self.model, self._folder.name)

    def _running(self, model, folder) -> Run:
        if self._runtime == "keras":
            return running(model, self._inputs)
        path = os.path.join(folder, "model" + SUFFIXES[self._runtime])
        export(model, path, self._runtime, verify=False)
        try:
            with told_as_not_run(path):
                return running_file(path, self._runtime, model, self._inputs)
        except NotRunError as error:
            raise InputError(
                "Invalid value for argument `runtime`. Expected one that can "
                f"run the model. Received: runtime={self._runtime!r} "
                f"({error.reason})"
            ) from error


class Latencies:
    """What parts of a model take of the latency of the original.

    The latency depends on how many structures are kept of each family, not on
    which. So it is that of an untrained cut, and measured once for each width.

    Args:
        original: Times models beside the original.
        found: The structures of the model to cut.
    """

    def __init__(self, original: Beside, found: Structures):
        self.found = found
        self._original = original
        self._known: dict[tuple, float] = {}

    def share(self, kept: np.ndarray) -> float:
        """Returns the share of the latency that is left.

        Args:
            kept: Flags, which structures are kept.
        """
        widths = tuple(np.bincount(self.found.families[kept]).tolist())
        if widths not in self._known:
            small, _ = cut(self.found, kept, "", verify=False)
            ratio = self._original.compare(small).ratio
            self._known[widths] = 1 / cast(float, ratio)  # both are known
        return self._known[widths]


def free_multiple(latencies: Latencies, share: float, runtime: str) -> int:
    """Returns to which multiple of channels a runtime rounds up for nothing.

    Runtimes compute channels in blocks, so their time grows in steps. About
    half of the channels are cut, so that one more than a multiple of 16 is
    left of each family. That is rounded up to a multiple of 2, 4, 8 and 16, and
    each such model timed beside the first one.

    Args:
        latencies: What parts of the model take.
        share: The share of the latency that is wanted.
        runtime: Where to measure it, see `Beside`.

    Returns:
        The largest multiple before a model takes over 3 % longer, or one
        multiple of channels a family takes too long for the share.
    """
    most, found = max(MULTIPLES), latencies.found
    widths = most * np.round(found.counts / (2 * most)).astype(int) + 1

    def with_widths(widths):
        kept = _first_of_each(found, widths)
        return cut(found, kept, "", verify=False)[0]

    first = Beside(with_widths(widths), runtime)
    best = 1
    for multiple in MULTIPLES[1:]:
        wider = -(-widths // multiple) * multiple
        least = np.full_like(widths, multiple)
        ratio = cast(float, first.compare(with_widths(wider)).ratio)
        if ratio < 1 / _NOISE:
            break
        if latencies.share(_first_of_each(found, least)) > share:
            break
        best = multiple
    return best


def _first_of_each(found: Structures, widths: np.ndarray) -> np.ndarray:
    """Returns flags that keep the first few structures of each family."""
    starts = np.cumsum(found.counts) - found.counts
    places = np.arange(found.size) - starts[found.families]
    return places < widths[found.families]


def kept_for_latency(
    latencies: Latencies,
    scores: np.ndarray,
    criteria: Criteria,
    share: float,
) -> tuple[np.ndarray, float]:
    """Returns what to keep of a model, and the latency it was measured to have.

    Models of several sizes are cut and timed beside the original. The
    multiply-adds (the parameters, where those are not known) of the next one
    are those at which a line has the wanted latency, from the largest model
    that is fast enough to the smallest that is not.

    Args:
        latencies: What parts of the model take of the original's.
        scores: The importance of each structure.
        criteria: What tells which structures go.
        share: The share of the latency of the original, in (0, 1].

    Returns:
        Flags, and the share of the latency.

    Raises:
        ValueError: If the smallest model takes more.
    """
    found = latencies.found
    measure: Measure = "parameters"
    if found.cost().macs is not None:
        measure = "macs"

    def look(size):
        kept = criteria.select(found, Budget(measure, size), scores)
        return kept, latencies.share(kept)

    # That of the whole model to cut, not measured.
    low, high, slow = criteria.least(found, measure), 1.0, 1.0
    kept, latency = look(low)
    if latency > share:
        raise InputError(
            f"Invalid value for argument `latency`. Expected at least "
            f"{latency:.2f}, which the smallest model takes: one "
            f"of {low:.1%} of the {measure}. Received: latency={share!r}"
        )
    aim = share * (1 + _NEAR) / 2
    for _ in range(_MODELS):
        if latency >= _NEAR * share:
            break
        part = (aim - latency) / max(slow - latency, 1e-9)
        middle = low + (high - low) * min(
            max(part, _LEAST_PART), 1 - _LEAST_PART
        )
        candidate, own = look(middle)
        if own <= share:
            low, kept, latency = middle, candidate, own
        else:
            high, slow = middle, own
    return kept, latency
