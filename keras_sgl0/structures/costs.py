"""What a model costs by how many structures of each family it has."""

import dataclasses
from typing import Literal

import numpy as np

from keras_sgl0.structures.discovery import Discovery

Measure = Literal["macs", "parameters", "weights", "channels"]
MEASURES: tuple[Measure, ...] = ("macs", "parameters", "weights", "channels")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a model costs after a cut.

    Attributes:
        macs: The multiply-adds of its kernels for one example, `None` where
            the sizes of its inputs are not known.
        parameters: Its parameters, statistics included.
        weights: The weights of its kernels.
        channels: The output channels of its layers that make channels.
    """

    macs: int | None
    parameters: int
    weights: int
    channels: int

    def of(self, measure: Measure) -> int:
        """Returns one of them.

        Args:
            measure: Its name.
        """
        return getattr(self, measure)


class Costs:
    """What a model costs: products of the sizes of its kernels' axes.

    Args:
        found: What can be cut of the model.
        counts: How many structures each family has.
    """

    def __init__(self, found: Discovery, counts: np.ndarray):
        self._sized = found.sized
        self._number = len(counts)
        # Structures of one family have equally many slots each.
        self._counts = np.maximum(counts, 1)
        self._families = found.families
        self._factors = [
            (entry, entry.rest, [self._along(sliced) for sliced in entry.axes])
            for entry in found.variables
        ]
        self._made = self._channels(found)

    def of(self, counts: np.ndarray) -> Cost:
        """Returns what the model costs with so many structures a family.

        Args:
            counts: One number a family.
        """
        macs = parameters = weights = 0
        for entry, rest, axes in self._factors:
            along = [fixed + int(slots @ counts) for fixed, slots in axes]
            size = rest * int(np.prod(along, dtype=int))
            parameters += size
            if entry.is_kernel:
                weights += size
                macs += size * (entry.positions or 0)
        fixed, slots = self._made
        return Cost(
            macs if self._sized else None,
            parameters,
            weights,
            fixed + int(slots @ counts),
        )

    def _along(self, sliced):
        """Returns the size of an axis: a fixed number and one a family."""
        own = sliced.structures[sliced.structures >= 0]
        own = own[: 0 if sliced.stays else None]
        return len(sliced.structures) - len(own), self._slots(own)

    def _channels(self, found):
        """Returns how many channels layers make, likewise."""
        made = [
            found.channels[node.outputs[0]]
            for node, *_ in found.graph.by_operation().values()
            if found.rules[node].cuts
        ]
        every = np.concatenate([np.zeros(0, int), *made])
        return int((every < 0).sum()), self._slots(every[every >= 0])

    def _slots(self, own):
        slots = np.bincount(self._families[own], minlength=self._number)
        return slots // self._counts


def share_saved(whole: Cost, left: Cost) -> float:
    """Returns the share of the multiply-adds, or else of the parameters.

    Args:
        whole: What a model costs.
        left: What is left of it.
    """
    measure: Measure = "parameters" if whole.macs is None else "macs"
    total = whole.of(measure)
    return (total - left.of(measure)) / total if total else 0.0
