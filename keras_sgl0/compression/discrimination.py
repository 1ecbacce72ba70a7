r"""Discrimination-aware channel pruning, as one score a structure.

Zhuang et al. rebuild a layer channel by channel. They begin with no channel of
its input and take the one whose kernel slice has the largest gradient of

`L = L_M + lambda * L_S`

where `L_M` is the error of the layer's outputs against those of the uncut
network, and `L_S` the loss of a linear classifier that sees the averages of
feature maps over their positions.

Here the score of a structure is the norm of this gradient where they begin: no
channel is taken, `W = 0`. With `X` the rows that one position of the output is
computed from, `O = X W` the uncut outputs, bars for averages over the
positions of an example, and `y` the labels,

```
L_M = sum ||O - X W||^2 / (2 sum ||O||^2)
L_S = sum ||y - (X- W) theta||^2 / (2 sum ||y||^2)
G   = - X^T O / sum ||O||^2 - lambda * X-^T y theta^T / sum ||y||^2
```

all centered, `X-` for the bars. `theta` is the classifier on the uncut
averages, fitted by ridge regression. The score is the Frobenius norm of the
slices of `G` that read the structure, over all its readers.

As in the paper: the two losses, `lambda = 1`, the gradient by what reads a
channel, its norm. Not as in the paper:

- Every layer has a classifier, on its own outputs; the paper has some, at
  chosen depths, and fine-tunes the network with them first.
- The loss of the classifier is the squared error, which has a closed form, and
  also serves a regression; the paper's is the cross-entropy.
- There is no ReLU before the average. Then batch normalization, which the
  paper has there too, makes no difference to the classifier.
- Both losses are shares of what they are without any channel, and centered,
  since biases and normalizations make up for means.
- Scores of one family alone can be compared, as in the paper the channels of
  one layer; so take `scope="family"`.
- Channels are ranked once; the paper takes one after the other, and fits the
  weights in between.

Reference:
    Zhuang et al., Discrimination-aware channel pruning for deep neural
    networks, NeurIPS 2018, sections 3.2 to 3.4.
"""

from collections.abc import Iterable

import numpy as np
from keras import ops, tree

from keras_sgl0.compression.linear import from_matrix
from keras_sgl0.compression.readers import (
    Reader,
    calls_of_readers,
    fill,
)
from keras_sgl0.groups import other_axes
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.families import Structures
from keras_sgl0.utils.validation import InputError, require

_LAMBDA = 1.0
# What is added to the diagonal, as a share of its mean.
_RIDGE = 1e-3


def discrimination(found: Structures, data: Iterable[tuple]) -> np.ndarray:
    """Returns the score of each structure.

    Args:
        found: The structures of a model.
        data: Batches `(x, y, sample_weight)`.

    Raises:
        ValueError: If there are no labels, labels have more than one axis, or
            no dense layer or convolution reads a family.
    """
    readers = [_Reader(node) for node in calls_of_readers(found)]
    targets = _targets([_labels(y) for y in fill(found, readers, data)])
    by_kernel: dict[int, np.ndarray] = {}
    for own in readers:  # a layer that is called several times adds up
        key, gradient = id(own.kernel), own.gradient(targets)
        by_kernel[key] = by_kernel.get(key, 0) + gradient
    squares = np.zeros(found.size + 1)
    read = np.zeros(found.size + 1, bool)
    for entry in found.variables:
        if id(entry.variable) not in by_kernel:
            continue
        gradient = by_kernel[id(entry.variable)]
        for sliced in entry.along("reader"):
            others = other_axes(gradient.shape, sliced.axis)
            own = np.square(gradient).sum(others)
            np.add.at(squares, sliced.structures, own)
            read[sliced.structures] = True
    _require_read(found, read[:-1])
    return np.sqrt(squares[:-1])  # -1 is for what is in none


def _require_read(found: Structures, read: np.ndarray):
    """Raises if no dense layer or convolution reads a family."""
    for family in np.unique(found.families[~read]).tolist():
        raise InputError(
            "A family of channels is read by no dense layer or convolution: "
            f"{', '.join(found.made_by(family))}. Spare these layers with "
            "`limits`, or choose another `importance`."
        )


class _Reader(Reader):
    """What the gradient of a layer's kernel is computed from."""

    def __init__(self, node: Node):
        super().__init__(node)
        self._averages: list[np.ndarray] = []

    def take(self, rows):
        super().take(rows)
        self._averages.append(rows.mean(1))

    def gradient(self, targets: np.ndarray) -> np.ndarray:
        """Returns the gradient of both losses at a kernel of zeros.

        Args:
            targets: The centered labels, one row an example.
        """
        moment = self.moments.scatter() @ self.matrix
        reconstruction = moment / _positive((self.matrix * moment).sum())
        averages = np.concatenate(self._averages)
        averages -= averages.mean(0)
        features = averages @ self.matrix
        square = features.T @ features
        ridge = _RIDGE * _positive(np.trace(square) / len(square))
        theta = np.linalg.solve(
            square + ridge * np.eye(len(square)), features.T @ targets
        )
        discriminative = averages.T @ targets @ theta.T
        discriminative /= _positive(np.square(targets).sum())
        both = reconstruction + _LAMBDA * discriminative
        return from_matrix(self.node.operation, -both)


def _positive(value: float) -> float:
    """Returns a divisor; where it is zero, so is what is divided."""
    return float(value) if value > 0 else 1.0


def _labels(y: object) -> list[np.ndarray]:
    leaves = [leaf for leaf in tree.flatten(y) if leaf is not None]
    require(leaves, "data", 'labels, which importance="dcp" needs', y)
    arrays = [np.asarray(ops.convert_to_numpy(leaf)) for leaf in leaves]
    for array in arrays:
        expected = "labels with one number or one vector an example"
        require(array.ndim <= 2, "data", expected, array.shape)
    return [array.reshape(len(array), -1) for array in arrays]


def _targets(labels: list[list[np.ndarray]]) -> np.ndarray:
    """Returns labels as numbers that are zero on average.

    Integers are classes, and become one column a class. Each of several
    outputs has the same variance.
    """
    columns = []
    for parts in zip(*labels, strict=True):
        y = np.concatenate(parts)
        if y.shape[1] == 1 and y.dtype.kind in "iub":
            y = y == np.unique(y)
        y = y.astype("float64")
        y -= y.mean(0)
        columns.append(y / np.sqrt(_positive(np.square(y).mean(0).sum())))
    return np.concatenate(columns, axis=1)
