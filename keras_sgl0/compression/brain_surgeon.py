r"""The optimal brain surgeon for structures, as one score a structure.

A layer that reads structures computes `X W`, the rows of `X` being what each
position of the output is computed from, centered, as the bias makes up for the
mean. Without the rows `S` of `W` and with the other rows refit, the outputs
differ from the uncut ones by

`E(S) = tr(W_S^T ((H^-1)_SS)^-1 W_S)`, with `H = X^T X`.

In each family the structures go one after the other, always the one with the
smallest share `E(S) / tr(W^T H W)`, summed over its readers. Then the others
are refit, and what is known of them is

```
W    <- W - (H^-1)_:S ((H^-1)_SS)^-1 W_S
H^-1 <- H^-1 - (H^-1)_:S ((H^-1)_SS)^-1 (H^-1)_S:
```

The score of a structure is the sum of these shares up to its own: what the
readers lose when it and all before it are gone, and the rest is refit. So a
structure whose twin stays is cheap, and one whose twin has gone is not. Scores
of different families can be compared.

- A small ridge is added to `H`.
- A family with many structures loses some at a time, in 256 steps.
- A kernel with very many rows is refit for each tap of a convolution, or each
  position of a map that was flattened, alone. That gives an upper bound of `E`.
- A family that no such layer reads, as key dimensions or what an LSTM reads,
  has the share of its squared weights that is lost (`compression.importance`).
- The calls of a layer that is called several times count one by one.

Reference:
    Hassibi, Stork: Second order derivatives for network pruning: Optimal brain
    surgeon, 1992. Kurtic, Frantar, Alistarh: ZipLM: Inference-aware structured
    pruning of language models, 2023, for structures one after the other.
"""

from collections.abc import Iterable

import numpy as np

from keras_sgl0.compression.linear import labels_of_rows, mixing_kernel
from keras_sgl0.compression.readers import (
    Moments,
    Reader,
    calls_of_readers,
    fill,
)
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.families import Structures

# What is added to the diagonal, as a share of its mean.
_RIDGE = 1e-3
# In how many steps a family goes.
_STEPS = 256
# Kernels with more rows are refit in parts.
_MOST_ROWS = 4608


def losses(found: Structures, data: Iterable[tuple]) -> np.ndarray:
    """Returns the score of each structure, NaN without a reader.

    Readers are dense layers and convolutions without groups.

    Args:
        found: The structures of a model.
        data: Batches `(x, y, sample_weight)`; labels are not used.
    """
    readers = [
        _Reader(node, _owners(found, node)) for node in calls_of_readers(found)
    ]
    if not readers:
        return np.full(found.size, np.nan)
    for _ in fill(found, readers, data):
        pass
    for reader in readers:
        reader.invert()
    scores = np.full(found.size, np.nan)
    for family in range(len(found.counts)):
        own = np.flatnonzero(found.families == family)
        parts = [part for r in readers for part in r.parts_of(own)]
        if parts:
            scores[own] = _eliminate(len(own), parts)
    return scores


class _Part:
    """What the outputs of a layer lose with structures of one family.

    Args:
        inverse: The rows and columns of `H^-1` that read the family.
        matrix: The rows of `W`, or of a matrix with the same products.
        owners: Which structure of the family each row reads.
        scale: What a loss is a share of.
    """

    def __init__(
        self,
        inverse: np.ndarray,
        matrix: np.ndarray,
        owners: np.ndarray,
        scale: float,
    ):
        self._inverse = inverse
        self._matrix = matrix
        self._owners = owners
        self._scale = scale

    def each(self, alive: np.ndarray) -> np.ndarray:
        """Returns what is lost with each structure alone.

        Args:
            alive: Which structures are left.
        """
        found = np.zeros(len(alive))
        order = np.argsort(self._owners, kind="stable")
        first = np.searchsorted(self._owners[order], alive, "left")
        last = np.searchsorted(self._owners[order], alive, "right")
        for number in np.unique(last - first).tolist():
            if number:
                which = np.flatnonzero(last - first == number)
                rows = order[first[which][:, None] + np.arange(number)]
                found[which] = self._loss(rows)
        return found

    def remove(self, structures: np.ndarray) -> float:
        """Takes structures out, refits the others and returns what is lost.

        Args:
            structures: Which ones.
        """
        gone = np.isin(self._owners, structures)
        if not gone.any():
            return 0.0
        rows, rest = np.flatnonzero(gone), np.flatnonzero(~gone)
        lost = float(self._loss(rows[None])[0])
        across = self._inverse[np.ix_(rest, rows)]
        both = np.concatenate([across.T, self._matrix[rows]], axis=1)
        solved = np.linalg.solve(self._inverse[np.ix_(rows, rows)], both)
        self._inverse = self._inverse[np.ix_(rest, rest)]
        self._inverse -= across @ solved[:, : len(rest)]
        self._matrix = self._matrix[rest] - across @ solved[:, len(rest) :]
        self._owners = self._owners[rest]
        return lost

    def _loss(self, rows) -> np.ndarray:
        """Returns `E` for several sets of as many rows."""
        inverse = self._inverse[rows[:, :, None], rows[:, None, :]]
        matrix = self._matrix[rows]
        solved = np.linalg.solve(inverse, matrix)
        return (matrix * solved).sum((1, 2)) / self._scale


def _eliminate(number: int, parts: list[_Part]) -> np.ndarray:
    """Returns what is lost up to each structure of a family."""
    scores = np.zeros(number)
    alive = np.arange(number)
    lost, step = 0.0, -(-number // _STEPS)
    while len(alive):
        each = np.sum([part.each(alive) for part in parts], axis=0)
        lowest = np.argsort(each, kind="stable")[:step]
        together = sum(part.remove(alive[lowest]) for part in parts)
        shares = np.cumsum(each[lowest])
        shares /= shares[-1] if shares[-1] > 0 else 1
        scores[alive[lowest]] = lost + together * shares
        lost += together
        alive = np.delete(alive, lowest)
    return scores


class _Reader(Reader):
    """A layer, what it reads and which rows of its kernel read what.

    Args:
        node: The call of the layer.
        owners: For each row of the kernel the structure it reads, or -1.
    """

    def __init__(self, node: Node, owners: np.ndarray):
        super().__init__(node)
        self.owners = owners
        self._blocks = _blocks(owners)
        self._moments = [Moments() for _ in self._blocks]
        self._inverses: list[np.ndarray] = []
        self._scale = 0.0

    def take(self, rows):
        rows = rows.reshape(-1, rows.shape[-1])
        for block, moments in zip(self._blocks, self._moments, strict=True):
            moments.add(rows[:, block])

    def invert(self):
        """Computes `H^-1`, once all is read."""
        for block, moments in zip(self._blocks, self._moments, strict=True):
            scatter, matrix = moments.scatter(), self.matrix[block]
            self._scale += (matrix * (scatter @ matrix)).sum()
            ridge = _RIDGE * np.trace(scatter) / len(block) or 1.0
            self._inverses.append(
                np.linalg.inv(scatter + ridge * np.eye(len(block)))
            )
        self._moments.clear()

    def parts_of(self, family: np.ndarray) -> list[_Part]:
        """Returns what the layer loses with the structures of a family.

        Args:
            family: The structures, in ascending order.
        """
        found = []
        for block, inverse in zip(self._blocks, self._inverses, strict=True):
            own = np.flatnonzero(np.isin(self.owners[block], family))
            if len(own):
                owners = np.searchsorted(family, self.owners[block][own])
                matrix = _narrow(self.matrix[block][own])
                own_inverse = inverse[np.ix_(own, own)]
                scale = self._scale if self._scale > 0 else 1.0
                found.append(_Part(own_inverse, matrix, owners, scale))
        return found


def _owners(found: Structures, node: Node) -> np.ndarray:
    """Returns which structure each row of a layer's kernel reads, or -1."""
    kernel = mixing_kernel(node.operation)
    ((axis, structures),) = (
        (sliced.axis, sliced.structures)
        for entry in found.variables
        if entry.variable is kernel
        for sliced in entry.along("reader")
    )
    return labels_of_rows(node.operation, axis, structures)


def _blocks(owners: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of a kernel that are refit together."""
    if len(owners) <= _MOST_ROWS:
        return [np.arange(len(owners))]
    order = np.argsort(owners, kind="stable")
    first = np.searchsorted(owners[order], owners[order], "left")
    places = np.empty(len(owners), int)
    places[order] = np.arange(len(owners)) - first
    places[owners < 0] = -1  # which stay as they are
    return [np.flatnonzero(places == i) for i in range(places.max() + 1)]


def _narrow(matrix: np.ndarray) -> np.ndarray:
    """Returns a matrix with the same `W W^T` and no more columns than rows."""
    rows, columns = matrix.shape
    if columns <= rows:
        return matrix.copy()
    _, factor = np.linalg.qr(matrix.T)
    return factor.T
