"""Which structures to keep so that a model costs no more than it may."""

import dataclasses

import numpy as np

from keras_sgl0.structures.families import Measure, Structures


@dataclasses.dataclass(frozen=True)
class Floor:
    """What must stay of a model.

    Attributes:
        removable: Flags, which structures may be cut.
        minimum: How many structures every family keeps.
        round_to: Families that are cut keep a multiple of this many.
    """

    removable: np.ndarray
    minimum: int = 1
    round_to: int = 1

    def counts(self, structures: Structures) -> np.ndarray:
        """Returns how many structures each family keeps at least.

        Args:
            structures: The structures of the model.
        """
        least = -(-self.minimum // self.round_to) * self.round_to
        number = len(structures.counts)
        families = structures.families[~self.removable]
        stay = np.bincount(families, minlength=number)
        return np.minimum(np.maximum(stay, least), structures.counts)


def select(
    structures: Structures,
    sizes: np.ndarray,
    alive: np.ndarray,
    costs: tuple[float, float],
    measure: Measure,
    floor: Floor,
) -> np.ndarray:
    """Returns which structures to keep for a cost between two numbers.

    The smallest go first, by their size as a share of the mean size of what
    is alive in their family; over the whole network, without that, whole
    layers would go. A structure that would save too much is passed over. If
    no choice of this kind costs so much, the smallest go until the cost is
    not above, and the largest of these come back as far as it allows.

    Args:
        structures: The structures of the model.
        sizes: The size of each, such as the norm of its members.
        alive: Flags, what may be kept at all.
        costs: The least and the most that the model is to cost. The most is
            not below the cost of what must stay.
        measure: What is counted.
        floor: What must stay.

    Returns:
        Flags, a subset of `alive`.
    """
    search = _Search(structures, sizes, alive, costs, measure, floor)
    kept = alive.copy()
    for block in search.without_too_much() or search.from_below():
        kept[block] = False
    return kept


class _Search:
    """Which blocks to cut; see `select`."""

    def __init__(self, structures, sizes, alive, costs, measure, floor):
        self._structures = structures
        self._measure = measure
        self._least, self._most = costs
        self._blocks = _blocks(structures, sizes, alive, floor)
        self._counts = np.bincount(
            structures.families[alive], minlength=len(structures.counts)
        )
        # How much of each family is gone after the first of the blocks.
        self._gone = np.zeros((len(self._blocks) + 1, len(self._counts)), int)
        for i, (family, block) in enumerate(self._blocks):
            self._gone[i + 1] = self._gone[i]
            self._gone[i + 1, family] += len(block)

    def without_too_much(self):
        """Returns blocks that bring the cost between both, or `None`."""
        first = self._first(lambda cost: cost <= self._most)
        if first is not None and self._cost(self._gone[first]) >= self._least:
            return self._of(range(first))
        start = self._first(lambda cost: cost < self._least)
        if start is None:
            return None
        cut = list(range(start - 1))
        gone, full = self._gone[start - 1].copy(), set()
        for i in range(start - 1, len(self._blocks)):
            family, block = self._blocks[i]
            if family in full:
                continue
            gone[family] += len(block)
            cost = self._cost(gone)
            if cost < self._least:
                gone[family] -= len(block)
                full.add(family)
                continue
            cut.append(i)
            if cost <= self._most:
                return self._of(cut)
        return None

    def from_below(self):
        """Returns blocks that bring the cost to at most the most."""
        first = self._first(lambda cost: cost <= self._most)
        cut, gone, full = set(range(first)), self._gone[first].copy(), set()
        for i in reversed(range(first)):
            family, block = self._blocks[i]
            if family in full:
                continue
            gone[family] -= len(block)
            if self._cost(gone) <= self._most:
                cut.remove(i)
            else:
                gone[family] += len(block)
                full.add(family)
        return self._of(cut)

    def _first(self, holds):
        """Returns after how many blocks something holds of the cost."""
        low, high = 0, len(self._gone)
        while low < high:
            middle = (low + high) // 2
            if holds(self._cost(self._gone[middle])):
                high = middle
            else:
                low = middle + 1
        return low if low < len(self._gone) else None

    def _cost(self, gone):
        return self._structures.cost_of(self._counts - gone).of(self._measure)

    def _of(self, numbers):
        return [self._blocks[i][1] for i in numbers]


def _blocks(structures, sizes, alive, floor):
    """Returns what can be cut, piece by piece, the least first.

    A piece is a family and some of its structures: one, or as many as leave a
    multiple of `floor.round_to`.
    """
    least = floor.counts(structures)
    blocks, scores = [], []
    for family, minimum in enumerate(least.tolist()):
        own = np.flatnonzero((structures.families == family) & alive)
        if len(own) <= minimum:
            continue
        relative = sizes[own] / max(sizes[own].mean(), np.finfo(float).tiny)
        own = own[np.argsort(relative, kind="stable")]
        relative = np.sort(relative, kind="stable")
        start, end = 0, len(own) % floor.round_to or floor.round_to
        while len(own) - end >= minimum:
            blocks.append((family, own[start:end]))
            scores.append(relative[start:end].mean())
            start, end = end, end + floor.round_to
    order = np.argsort(np.array(scores), kind="stable")
    return [blocks[i] for i in order]
