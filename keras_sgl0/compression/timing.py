"""Latency as a budget: what to cut for a model that is so much faster."""

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
from keras_sgl0.deployment.runtimes import SUFFIXES, running, running_file
from keras_sgl0.network.probing import random_inputs
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


def compare_on(runtime: str, before: keras.Model, after: keras.Model) -> Change:
    """Returns the milliseconds of one example, measured side by side.

    Args:
        runtime: `"keras"` for the backend, or `"litert"` or `"onnx"`.
        before: A built model.
        after: A model with the same inputs.
    """
    inputs = random_inputs(functional(before).input, examples=1)
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, model in (("before", before), ("after", after)):
            if runtime == "keras":
                runs.append(running(model, inputs))
                continue
            path = os.path.join(folder, name + SUFFIXES[runtime])
            export(model, path, runtime, verify=False)
            runs.append(running_file(path, runtime, model, inputs))
        own = keras.backend.backend() if runtime == "keras" else runtime
        return compare_latency(f"{own}, batch 1", runs[0], runs[1], _ROUNDS)


def free_multiple(
    model: keras.Model, found: Structures, share: float, runtime: str
) -> int:
    """Returns to which multiple of channels a runtime rounds up for nothing.

    Runtimes compute channels in blocks, so their time grows in steps. About
    half of the channels are cut, so that one more than a multiple of 16 is
    left of each family. That is rounded up to a multiple of 2, 4, 8 and 16, and
    each such model timed beside the first one.

    Args:
        model: The model.
        found: Its structures.
        share: The share of the latency that is wanted.
        runtime: Where to measure it, see `compare_on`.

    Returns:
        The largest multiple before a model takes over 3 % longer, or one
        multiple of channels a family takes too long for the share.
    """
    most = max(MULTIPLES)
    widths = most * np.round(found.counts / (2 * most)).astype(int) + 1

    def times_as_fast(before, widths):
        small, _ = cut(found, _first_of_each(found, widths), "", verify=False)
        return cast(float, compare_on(runtime, before, small).ratio)

    first, _ = cut(found, _first_of_each(found, widths), "", verify=False)
    best = 1
    for multiple in MULTIPLES[1:]:
        wider = -(-widths // multiple) * multiple
        least = np.full_like(widths, multiple)
        if times_as_fast(first, wider) < 1 / _NOISE:
            break
        if times_as_fast(model, least) < 1 / share:
            break
        best = multiple
    return best


def _first_of_each(found: Structures, widths: np.ndarray) -> np.ndarray:
    """Returns flags that keep the first few structures of each family."""
    starts = np.cumsum(found.counts) - found.counts
    places = np.arange(found.size) - starts[found.families]
    return places < widths[found.families]


def kept_for_latency(
    original: keras.Model,
    found: Structures,
    scores: np.ndarray,
    criteria: Criteria,
    share: float,
    runtime: str,
) -> tuple[np.ndarray, float]:
    """Returns what to keep of a model, and the latency it was measured to have.

    The latency of an untrained cut is that of the trained one, so models of
    several sizes are cut, exported and timed, each beside the original: the
    multiply-adds (the parameters, where those are not known) are halved
    between the largest that is too slow and the smallest that is not.

    Args:
        original: The model whose latency is the measure.
        found: The structures of the model to cut.
        scores: The importance of each.
        criteria: What tells which structures go.
        share: The share of the latency of the original, in (0, 1].
        runtime: Where to measure it, see `compare_on`.

    Returns:
        Flags, and the share of the latency.

    Raises:
        ValueError: If the smallest model takes more.
    """
    measure: Measure = "parameters"
    if found.cost().macs is not None:
        measure = "macs"

    def look(size):
        kept = criteria.select(found, Budget(measure, size), scores)
        small, _ = cut(found, kept, criteria.name, verify=False)
        ratio = compare_on(runtime, original, small).ratio
        return kept, 1 / cast(float, ratio)  # both times are known

    low, high = criteria.least(found, measure), 1.0
    kept, latency = look(low)
    if latency > share:
        raise InputError(
            f"Invalid value for argument `latency`. Expected at least "
            f"{latency:.2f}, which the smallest model takes on {runtime}: one "
            f"of {low:.1%} of the {measure}. Received: latency={share!r}"
        )
    for _ in range(_MODELS):
        if latency >= _NEAR * share:
            break
        middle = (low + high) / 2
        candidate, own = look(middle)
        if own <= share:
            low, kept, latency = middle, candidate, own
        else:
            high = middle
    return kept, latency
