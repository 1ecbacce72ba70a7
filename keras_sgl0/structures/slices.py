"""Which part of a layer's variables belongs to which channel."""

import dataclasses
import operator
from typing import Literal, NamedTuple

import keras
import numpy as np

from keras_sgl0.network.graph import Node, Tensor

Role = Literal["member", "statistic", "follower", "reader"]


class Slices(NamedTuple):
    """Which part of a variable belongs to which channel of a call.

    Args:
        variable: The layer's attribute that holds the variable, with dots
            where a layer in it has it: `"cell.kernel"`.
        axis: The axis of the variable that runs over channels, or several, in
            ascending order.
        channels: For each index of that axis, the channel of `tensor`. For
            several axes an array with as many.
        role: `"member"` for what makes a channel: all its members zero means
            that the channel is zero. `"statistic"` for what must be zero for
            that too, and is not trained. `"follower"` for what is cut with
            the channel and may have any value. `"reader"` for what reads it.
        tensor: The tensor whose channels they are: an input, an output or one
            inside the call. `None` stands for the first input where the role
            is `"reader"`, or else for the first output.
        stays: Whether the variable has as many entries without the channel, as
            a layer that is called with a zero in its place.
    """

    variable: str
    axis: int | tuple[int, ...]
    channels: np.ndarray
    role: Role
    tensor: Tensor | None = None
    stays: bool = False

    def of(self, layer: keras.Operation) -> keras.Variable:
        """Returns the variable of a layer.

        Args:
            layer: The layer.
        """
        return variable_of(layer, self.variable)

    def channels_of(self, node: Node) -> Tensor:
        """Returns the tensor of a call whose channels they are.

        Args:
            node: The call.
        """
        if self.tensor is not None:
            return self.tensor
        return (node.inputs if self.role == "reader" else node.outputs)[0]

    def along(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Returns values of the channels, to broadcast over the variable.

        Args:
            values: One for each channel of the tensor.
            rank: The number of axes of the variable.
        """
        axes = np.atleast_1d(self.axis) % rank
        others = [i for i in range(rank) if i not in axes]
        return np.expand_dims(values[self.channels], others)

    def side(self, values: np.ndarray, rank: int) -> tuple[int, np.ndarray]:
        """Returns the one axis that values of the channels vary along.

        Args:
            values: One for each channel of the tensor.
            rank: The number of axes of the variable.

        Returns:
            The axis of the variable, and the value for each of its indices.
        """
        axes = np.atleast_1d(self.axis) % rank
        place, along = side_of(values[self.channels])
        return int(axes[place]), along


def variable_of(layer: keras.Operation, path: str) -> keras.Variable:
    """Returns a variable of a layer, or of a layer in it.

    Args:
        layer: The layer.
        path: The attribute that holds it, `"kernel"` or `"cell.kernel"`.
    """
    return operator.attrgetter(path)(layer)


class Zeros(NamedTuple):
    """Zeros in the place of the channels that a call cannot do without.

    Args:
        axis: The channel axis of the call's input.
        number: How many stand behind the channels that stay.
        removed: Whether the output has as many channels too many.
    """

    axis: int
    number: int
    removed: bool


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """A layer without the channels that are cut.

    Attributes:
        config: The entries of its config that change.
        weights: The values of its variables by attribute, with dots as in
            `Slices`.
        arguments: The positional and keyword arguments of its call where they
            change, with a `Tensor` for every tensor.
        zeros: Zeros that its first input is filled up with, `None` for none.
        skipped: Whether it does nothing any more, so that its output is its
            first input.
    """

    config: dict = dataclasses.field(default_factory=dict)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    arguments: tuple[tuple, dict] | None = None
    zeros: Zeros | None = None
    skipped: bool = False


def side_of(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the one axis that values vary along, and the values there.

    Channels over several axes are cut along one of them.

    Args:
        values: An array of one axis or more. If all are equal, it is the first.
    """
    for place in range(values.ndim):
        least = least_along(values, place)
        if (values == least).all():
            return place, least.ravel()
    raise AssertionError("The values vary along several axes.")


def least_along(values: np.ndarray, place: int) -> np.ndarray:
    """Returns the least value at each index of an axis, with all axes kept.

    Args:
        values: An array of one axis or more.
        place: The axis.
    """
    others = tuple(i for i in range(values.ndim) if i != place)
    return values.min(others, keepdims=True)


def sides(flags: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Returns which indices of each channel axis stay.

    What is cut of channels over several axes is whole slices along one axis.

    Args:
        flags: For each channel whether it stays.
        sizes: The sizes of the axes.
    """
    grid = flags.reshape(sizes)
    rows = (
        np.moveaxis(grid, place, 0).reshape(size, -1)
        for place, size in enumerate(sizes)
    )
    return [np.asarray(own.any(1)) for own in rows]
