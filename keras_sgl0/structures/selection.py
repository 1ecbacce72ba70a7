"""Which structures to keep so that a model costs no more than it may."""

import dataclasses

import numpy as np

from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import Structures
from keras_sgl0.utils.validation import InputError

# How far below its target a cost may end, as a share of it.
PRECISION = 0.01


@dataclasses.dataclass(frozen=True)
class Floor:
    """What must stay of a model.

    Attributes:
        removable: Flags, which structures may be cut.
        minimum: How many structures every family keeps: a number for all, or
            one a family.
        round_to: Families that are cut keep a multiple of this many.
    """

    removable: np.ndarray
    minimum: int | np.ndarray = 1
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

    def require_reach(
        self,
        structures: Structures,
        measure: Measure,
        share: float,
        name: str,
        why: str,
    ):
        """Raises where what must stay costs more than a share of the model.

        Args:
            structures: The structures of the model.
            measure: What is counted.
            share: The share of the model's cost.
            name: The argument that gives the share.
            why: Why whole layers stay, for the message.

        Raises:
            ValueError: If it does.
        """
        least = structures.cost_of(self.counts(structures)).of(measure)
        total = structures.cost().of(measure)
        if least <= share * total:
            return
        stay = structures.makers(~self.removable)
        more = f" and {len(stay) - 5} more" if len(stay) > 5 else ""
        layers = ", ".join(f"`{layer}`" for layer in stay[:5]) + more
        minimum = int(np.min(self.minimum))
        raise InputError(
            f"Invalid value for argument `{name}`. Expected at least "
            f"{least / total:.4f}, the share of the {measure} that cannot be "
            f"cut: {minimum} or more channels a family stay, and all of "
            f"{layers}, which {why}. Received: {name}={share!r}"
        )


def select(
    structures: Structures,
    sizes: np.ndarray,
    alive: np.ndarray,
    costs: tuple[float, float],
    measure: Measure,
    floor: Floor,
    relative: bool = True,
) -> np.ndarray:
    """Returns which structures to keep for a cost between two numbers.

    The smallest go first, by their size as a share of the mean size of what
    is alive in their family; over the whole network, without that, whole
    layers may go. A structure that would save too much is passed over. If
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
        relative: Whether sizes are compared relative to their family.

    Returns:
        Flags, a subset of `alive`.
    """
    if relative:
        sizes = _relative(structures, sizes, alive)
    search = _Search(structures, sizes, alive, costs, measure, floor)
    kept = alive.copy()
    for block in search.without_too_much() or search.from_below():
        kept[block] = False
    return kept


def random_half(structures: Structures, rng: np.random.Generator) -> np.ndarray:
    """Returns flags for half of each family, rounded down, at random.

    Args:
        structures: The structures of a model.
        rng: What draws them.
    """
    half = np.zeros(structures.size, bool)
    for family, count in enumerate(structures.counts.tolist()):
        own = np.flatnonzero(structures.families == family)
        half[rng.choice(own, count // 2, replace=False)] = True
    return half


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


def _relative(structures, sizes, alive):
    """Returns sizes as shares of the mean over what is alive in a family."""
    number = len(structures.counts)
    families = structures.families
    totals = np.bincount(families[alive], sizes[alive], number)
    counts = np.bincount(families[alive], minlength=number)
    means = totals / np.maximum(counts, 1)
    return sizes / np.maximum(means, np.finfo(float).tiny)[families]


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
        own = own[np.argsort(sizes[own], kind="stable")]
        start, end = 0, len(own) % floor.round_to or floor.round_to
        while len(own) - end >= minimum:
            blocks.append((family, own[start:end]))
            scores.append(sizes[own[start:end]].mean())
            start, end = end, end + floor.round_to
    order = np.argsort(np.array(scores), kind="stable")
    return [blocks[i] for i in order]
