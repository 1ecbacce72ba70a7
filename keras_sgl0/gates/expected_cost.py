r"""The expected cost of a model with gates, in closed form.

What a kernel costs is bilinear in what it reads and what it makes: each pair of
an input channel i and an output channel o costs the same. The pair is there if
all gates are open that either depends on. Gates are independent, so with `p_g`
for the probability that gate g is open, and the sets `G(i)` and `G(o)` of gates
that the channels depend on (see `Dependence`),

    E[cost] = sum over kernels of c * sum_{i,o} prod_{g in G(i) + G(o)} p_g

Where no set `G(i)` meets a set `G(o)`, the inner sum is a product of two sums
over the channels of one side. Where they meet, as in a kernel that reads and
makes channels of the same family, the few pairs that share a gate are set
right: `z^2` is open with probability p, not `p^2`.
"""

import functools
import operator
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_sgl0.gates.dependence import Dependence
from keras_sgl0.gates.hard_concrete import LOG_ALPHA_RANGE, probability_active
from keras_sgl0.network.cost import has_sizes
from keras_sgl0.utils.validation import InputError, choice

Counted = Literal["macs", "parameters"]
COUNTED: tuple[Counted, ...] = ("macs", "parameters")


class ExpectedCost:
    """The expected multiply-adds or parameters of a model with gates.

    They are those of the model without its gates. With gates on structures
    (`add_gates`) it is the expectation of what `shrink` leaves.

    Args:
        model: A built model with gates.
        counted: `"macs"` for the multiply-adds of its kernels for one example,
            `"parameters"` for all its parameters, statistics included.

    Attributes:
        dependence: The gates of the model and what depends on them.
        total: The cost with all gates open.

    Raises:
        ValueError: If the model is not built, cannot be traced or has no
            kernels, or with `"macs"` if the size of an input is not known.

    Example:
        >>> cost = ExpectedCost(add_gates(models.LeNet5Caffe()), "macs")
        >>> cost.total, float(cost.share())
        (2293000, 0.68...)
    """

    def __init__(self, model: keras.Model, counted: Counted):
        choice("counted", counted, COUNTED)
        self.dependence = Dependence(model)
        if counted == "macs" and not has_sizes(self.dependence.graph):
            raise InputError(
                "Invalid value for argument `model`. Expected a model whose "
                f"inputs have known sizes, to count macs. Received: {model!r}"
            )
        self._sets = list(self.dependence.sets)
        self._classes = np.empty(0, int)
        self._rows = np.empty((0, 0), int)
        # One term a variable: what a slot costs, and the rows of both axes.
        self._terms: list[tuple[int, int, int]] = []
        self._pairs: dict[tuple[int, int, int], int] = {}
        self._find_terms(counted)
        if not self._terms:
            raise InputError(
                "Invalid value for argument `model`. Expected a model with "
                f"kernels, to count {counted}. Received: {model!r}"
            )
        self.total = self.cost(np.ones(self.dependence.number, bool))

    def share(self):
        """Returns the expected cost as a share of the whole, with gradient."""
        return self.share_at(
            [gate.probability_active() for gate in self.dependence.gates]
        )

    def share_at(self, probabilities: list):
        """Returns the expected cost as a share of the whole.

        Args:
            probabilities: For each gate layer the probabilities that its gates
                are open.
        """
        dtype = probabilities[0].dtype
        every = [*probabilities, ops.ones(1, dtype)]
        p = ops.concatenate([ops.cast(q, dtype) for q in every])
        by_set = functools.reduce(
            operator.mul,
            (ops.take(p, _index(column)) for column in self._columns),
        )
        sums = ops.segment_sum(
            by_set, _index(self._classes), num_segments=self._rows.shape[1]
        )
        along = ops.matmul(ops.convert_to_tensor(self._rows, dtype), sums)
        each, first, second = np.array(self._terms).T
        share = ops.sum(
            ops.convert_to_tensor(each / self.total, dtype)
            * ops.take(along, _index(first))
            * ops.take(along, _index(second))
        )
        if self._pairs:
            a, b, union = np.array(list(self._pairs)).T
            own = np.array(list(self._pairs.values())) / self.total
            alone = ops.take(by_set, _index(a)) * ops.take(by_set, _index(b))
            excess = ops.take(by_set, _index(union)) - alone
            share += ops.sum(ops.convert_to_tensor(own, dtype) * excess)
        return share

    def cost(self, opened: np.ndarray) -> int:
        """Returns the cost with certain gates open, to the unit.

        Args:
            opened: Flags, one a gate of all layers.
        """
        flags = np.append(opened, True)
        by_set = flags[np.array(self._columns)].all(0)
        sums = np.bincount(self._classes[by_set], minlength=self._rows.shape[1])
        along = self._rows @ sums
        # Flags need no correction: the square of 0 or 1 is itself.
        return sum(
            each * int(along[a] * along[b]) for each, a, b in self._terms
        )

    def least_share(self) -> float:
        """Returns the share with all trainable gates as closed as they get."""

        def least(gate):
            if not gate.log_alpha.trainable:
                return gate.probability_active()
            closed = ops.full(
                gate.log_alpha.shape, LOG_ALPHA_RANGE[0], gate.log_alpha.dtype
            )
            return probability_active(closed, gate.temperature, gate.stretch)

        return float(self.share_at(list(map(least, self.dependence.gates))))

    def without_gates(self) -> list[str]:
        """Returns the layers that make channels of which some have no gate."""
        found = [
            entry.layer
            for entry in self.dependence.variables
            for sliced in entry.along("member")
            if entry.makes_channels and (sliced.structures == 0).any()
        ]
        return list(dict.fromkeys(found))

    @functools.cached_property
    def _columns(self) -> list[np.ndarray]:
        """The gates of each set, filled up with one that is always open."""
        number = self.dependence.number
        longest = max(1, *map(len, self._sets))
        filled = np.full((len(self._sets), longest), number)
        for row, own in zip(filled, self._sets, strict=True):
            row[: len(own)] = sorted(own)
        return list(filled.T)

    def _find_terms(self, counted):
        """Finds the terms, the classes of sets and the pairs to correct."""
        # Row 0 stands for an axis of one slot without a gate.
        rows: list[tuple[np.ndarray, np.ndarray]] = [_counts(np.zeros(1, int))]
        for entry in self.dependence.variables:
            each = entry.rest
            if counted == "macs":
                each *= (entry.positions or 0) if entry.is_kernel else 0
            if not each:
                continue
            own = []
            for sliced in entry.axes:
                if not sliced.structures.any():
                    # Without gates, as those of heads and their dimensions.
                    each *= len(sliced.structures)
                    continue
                own.append(len(rows))
                rows.append(_counts(sliced.structures))
            first, second = (*own, 0, 0)[:2]
            self._terms.append((each, first, second))
            if len(own) == 2:
                self._correct(each, rows[first], rows[second])
        self._classify(rows)

    def _correct(self, each, first, second):
        """Adds the pairs of sets of two axes that share a gate."""
        having: dict[int, list[tuple[int, int]]] = {}
        for b, times in zip(*(x.tolist() for x in second), strict=True):
            for gate in self._sets[b]:
                having.setdefault(gate, []).append((b, times))
        numbers = self._numbers
        for a, times in zip(*(x.tolist() for x in first), strict=True):
            met = {b: n for g in self._sets[a] for b, n in having.get(g, ())}
            for b, n in met.items():
                union = self._sets[a] | self._sets[b]
                if union not in numbers:
                    numbers[union] = len(self._sets)
                    self._sets.append(union)
                key = (a, b, numbers[union])
                self._pairs[key] = self._pairs.get(key, 0) + each * times * n

    @functools.cached_property
    def _numbers(self):
        return {own: i for i, own in enumerate(self._sets)}

    def _classify(self, rows):
        """Joins the sets that occur equally often in every row.

        Only the sum over a class matters. Each pair of a row and a number has
        a random key; the sum of its keys tells the class of a set.
        """
        draw = np.random.default_rng(0)
        signature = np.zeros(len(self._sets), np.uint64)
        for sets, times in rows:
            keys = draw.integers(2**63, size=times.max() + 1, dtype=np.uint64)
            signature[sets] += keys[times]
        found, self._classes = np.unique(signature, return_inverse=True)
        self._rows = np.zeros((len(rows), len(found)), int)
        for row, (sets, times) in zip(self._rows, rows, strict=True):
            row[self._classes[sets]] = times


def _counts(sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which sets occur along an axis, and how often each."""
    return np.unique(sets, return_counts=True)


def _index(places):
    return ops.convert_to_tensor(places, "int32")
