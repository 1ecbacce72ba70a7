"""Dense layers and convolutions that read structures, and what they read."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import tree

from keras_sgl0.compression.linear import (
    input_rows,
    is_linear,
    kernel_matrix,
    mixing_kernel,
    parts_of,
)
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy


class Moments:
    """The sums of rows and of their products.

    Attributes:
        number: How many rows there were.
    """

    def __init__(self):
        self.number = 0
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray):
        """Adds rows.

        Args:
            rows: A matrix.
        """
        self.number += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def scatter(self) -> np.ndarray:
        """Returns the sum of the products of the centered rows."""
        mean = self._sum / self.number
        return self._products - self.number * np.outer(mean, mean)


class Reader:
    """One call of a layer that reads structures, and what it reads.

    Args:
        node: The call of the layer.

    Attributes:
        node: The call.
        kernel: The kernel that mixes channels.
        matrix: The kernel as a matrix, one column an output.
        moments: Those of all that is read.
    """

    def __init__(self, node: Node):
        self.node = node
        self.kernel = mixing_kernel(node.operation)
        self.matrix = kernel_matrix(node.operation)
        self.moments = Moments()

    def add(self, x: np.ndarray):
        """Adds a batch of what the layer reads.

        Args:
            x: The batch.
        """
        layer = self.node.operation
        for part in parts_of(layer, x):
            rows = input_rows(layer, x[part])
            self.take(rows.reshape(len(x[part]), -1, rows.shape[-1]))

    def take(self, rows: np.ndarray):
        """Adds what each position of the output is computed from.

        Args:
            rows: An array `(examples, positions, rows of the kernel)`.
        """
        self.moments.add(rows.reshape(-1, rows.shape[-1]))


def fill(
    found: Structures, readers: Iterable[Reader], data: Iterable[tuple]
) -> Iterator[object]:
    """Lets readers take in what they read, and yields the labels.

    Args:
        found: The structures of a model.
        readers: Readers of calls of the model.
        data: Batches `(x, y, sample_weight)`.
    """
    readers = list(readers)
    flat = FlatCopy(found.discovery.graph, "readers")
    view = keras.Model(
        flat.model.inputs, [flat.made[own.node.inputs[0]] for own in readers]
    )
    for x, y, _ in data:
        results = tree.flatten(view.predict_on_batch(tree.flatten(x)))
        for own, values in zip(readers, results, strict=True):
            own.add(np.asarray(values, "float64"))
        yield y


def calls_of_readers(found: Structures) -> list[Node]:
    """Returns the calls of dense layers and convolutions that read structures.

    Args:
        found: The structures of a model.
    """
    kernels = {id(e.variable) for e in found.variables if e.along("reader")}
    return [
        node
        for node in found.discovery.graph.nodes
        if is_linear(node.operation)
        and id(mixing_kernel(node.operation)) in kernels
    ]
