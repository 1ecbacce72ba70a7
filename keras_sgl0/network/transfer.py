"""What of a model's variables is left in a smaller model."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Kept(NamedTuple):
    """What a smaller model has of one variable.

    Args:
        variable: The variable.
        smaller: That of the smaller model.
        places: For each axis of the smaller variable the indices that are
            left. A weight of a block itself becomes one of two axes.
    """

    variable: keras.Variable
    smaller: keras.Variable
    places: tuple[np.ndarray, ...]


class Transfer:
    """From a model that is trained to a smaller one that is trained on.

    A callback with state of the shape of a variable offers a method
    `on_shrink(transfer)`. In it, it moves its state to the smaller model.

    Args:
        original: The model.
        model: The smaller model.
        kept: What is left of each variable.

    Attributes:
        original: The model.
        model: The smaller model.
        kept: What is left of each variable.

    Example:
        >>> class Sum(keras.callbacks.Callback):
        ...     def on_train_begin(self, logs=None):
        ...         self.kernel = self.model.layers[1].kernel
        ...         self.sum = keras.ops.zeros_like(self.kernel)
        ...
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.sum += keras.ops.convert_to_tensor(self.kernel)
        ...
        ...     def on_shrink(self, transfer):
        ...         self.sum = transfer.take(self.kernel, self.sum)
        ...         self.kernel = transfer.of(self.kernel)
        ...         self.set_model(transfer.model)
    """

    def __init__(
        self,
        original: keras.Model,
        model: keras.Model,
        kept: Iterable[Kept],
    ):
        self.original = original
        self.model = model
        self.kept = tuple(kept)
        # By id, as variables compare by value.
        self._by_variable = {id(one.variable): one for one in self.kept}
        self._by_smaller = {id(one.smaller): one for one in self.kept}

    def has(self, variable) -> bool:
        """Returns whether the smaller model has some of a variable.

        Args:
            variable: A variable of the model.
        """
        return id(variable) in self._by_variable

    def of(self, variable) -> keras.Variable:
        """Returns the variable of the smaller model.

        Args:
            variable: A variable of the model.
        """
        return self._by_variable[id(variable)].smaller

    def places(self, variable) -> tuple[np.ndarray, ...]:
        """Returns for each axis the indices that are left.

        Args:
            variable: A variable of the model.
        """
        return self._by_variable[id(variable)].places

    def source(self, smaller) -> keras.Variable:
        """Returns the variable of the model.

        Args:
            smaller: A variable of the smaller model.
        """
        return self._by_smaller[id(smaller)].variable

    def take(self, variable, value) -> np.ndarray:
        """Returns what is left of a value that goes with a variable.

        Args:
            variable: A variable of the model.
            value: Of the shape of the variable.
        """
        array = np.asarray(ops.convert_to_numpy(value))
        places = self.places(variable)
        array = array.reshape(shape_with(len(places), array.shape))
        # A copy: on JAX training gives the memory of an array away.
        return np.array(array[np.ix_(*places)])

    def spread(self, variable, value) -> np.ndarray:
        """Returns a value for a variable: zeros for what was cut.

        Args:
            variable: A variable of the model.
            value: Of the shape of the variable of the smaller model.
        """
        array = np.asarray(ops.convert_to_numpy(value))
        places, shape = self.places(variable), tuple(variable.shape)
        whole = np.zeros(shape_with(len(places), shape), array.dtype)
        whole[np.ix_(*places)] = array
        return whole.reshape(shape)

    def then(self, later: "Transfer") -> "Transfer":
        """Returns the transfer from this model to one that is smaller still.

        Args:
            later: A transfer from the smaller model.
        """
        kept = []
        for one in self.kept:
            if later.has(one.smaller):
                pairs = zip(one.places, later.places(one.smaller), strict=True)
                places = tuple(first[second] for first, second in pairs)
                kept.append(Kept(one.variable, later.of(one.smaller), places))
        return Transfer(self.original, later.model, kept)


def shape_with(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns a shape as one of so many axes: itself, or `(rows, columns)`.

    Args:
        number: The number of axes, 2 where it is another than there are.
        shape: The sizes of the axes.
    """
    if len(shape) == number:
        return tuple(shape)
    last = shape[-1] if len(shape) else 1
    return math.prod(shape[:-1]), last
