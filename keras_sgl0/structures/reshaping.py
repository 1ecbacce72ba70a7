"""The rules of what moves entries: channels that are spread, joined or turned.

Where entries go is not derived for each operation. The operation moves the
numbers of the channels instead, and what comes out says which channel every
entry of the outputs is of.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.graph import Tensor
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.structures.slices import Rewrite, sides

_MIXES = "it mixes channels and positions"
_UNKNOWN = "where it moves channels is not known"
# What stands for a size that is not known: much can be split by it.
_SIZE = 12


@rule(
    keras.layers.RepeatVector,
    keras.layers.Permute,
    *("Transpose", "Swapaxes", "Moveaxis", "ExpandDims", "Flip", "Tile"),
    *("DepthToSpace", "SpaceToDepth"),
)
class Moving(Channelwise):
    """Every entry of the outputs is one of the inputs.

    The channels of an output run over the axes along which they differ. Where
    there are several, and every channel comes there once for each position,
    it is split over all of them: `(steps, heads * size)` into `(steps, heads,
    size)`. Or else the channels of the output are the last of them, and all
    that are at one index of it are cut together. Without positions,
    `(features,)` into `(rows, columns, channels)`, it is the last one too.
    """

    several_axes = True
    one_input = True
    """Whether it must be called on one tensor."""
    filler = 0.0
    """The number at entries that are of no input."""

    def refusal(self):
        """Returns why the call stays whole."""
        inputs, outputs = self.node.inputs, self.node.outputs
        if self.one_input and len(inputs) != 1:
            return "several inputs"
        if len({(x.rank, x.axes) for x in inputs}) > 1:
            return "its inputs have their channels at different axes"
        reason = self.uncovered()
        if reason:
            return reason
        try:
            moved = self.moved(
                [_numbers(x, n, self._batch()) for x, n in self._starts()]
            )
        except Exception:
            # It may not take integers, nor what stands for unknown sizes.
            return _UNKNOWN
        self._axes, self._sources = [], []
        for numbers, y in zip(moved, outputs, strict=True):
            axes = self.axes_of(numbers, y)
            if not axes:
                return "no channels are left of it"
            # A single number has no size at its one axis.
            sizes = [n for a in axes for n in y.shape[a:][:1]]
            if 0 in y.shape or None in sizes:
                return _MIXES
            self._axes.append(axes)
            self._sources.append(
                _pairs(numbers, dataclasses.replace(y, axes=axes))
            )
        self._ties = self._connected()
        every = np.concatenate(self._ties)
        if (every == every[0]).all() and inputs[0].channels > 1:
            return _MIXES
        return ""

    def uncovered(self) -> str:
        """Returns why the call is one that it cannot make shorter."""
        return ""

    def moved(self, numbers: list[np.ndarray]) -> list[np.ndarray]:
        """Returns what the operation makes of integers.

        Args:
            numbers: For each input an array of its shape.
        """
        values = [ops.convert_to_tensor(n, "int32") for n in numbers]
        given = dict(zip(self.node.inputs, values, strict=True))
        results = self.node.call(self.layer.call, given)
        return [ops.convert_to_numpy(y) for y in keras.tree.flatten(results)]

    def axes_of(self, numbers: np.ndarray, y: Tensor) -> tuple[int, ...]:
        """Returns the channel axes of an output.

        Args:
            numbers: For each of its entries the number of the channel.
            y: The output.
        """
        # Channel i of every input, as they meet where tensors are joined.
        numbers = numbers % self.node.inputs[0].channels
        axes = [a for a in range(numbers.ndim) if _differs(numbers, a)]
        size = math.prod(numbers.shape[a] for a in axes)
        others = set(range(1, numbers.ndim)) - set(axes)
        positions = any(y.shape[a] != 1 for a in others)
        once = len(np.unique(numbers)) == size and None not in [
            y.shape[a] for a in axes
        ]
        return tuple(axes if once and positions else axes[-1:])

    def tied_too(self) -> np.ndarray | None:
        """Returns numbers that input channels share which go together."""
        return None

    def all_axes(self):
        """Returns the channel axes of every output."""
        return self._axes

    def axes(self):
        """Returns the channel axes of the first output."""
        return self._axes[0]

    def ties(self):
        """Returns that what comes from a channel is cut with it."""
        return self._ties

    def constants(self, input_constants):
        """Returns the constants of the first output."""
        return self.all_constants(input_constants)[0]

    def all_constants(self, input_constants):
        """Returns the constant that all that is at one place shares."""
        given = np.append(np.concatenate(input_constants), self.filler)
        results = []
        for (channels, sources), y in self._flows():
            least, most = np.full((2, y), np.inf) * [[1], [-1]]
            with np.errstate(invalid="ignore"):  # NaN is what is not known
                np.minimum.at(least, channels, given[sources])
                np.maximum.at(most, channels, given[sources])
            results.append(np.where(least == most, least, np.nan))
        return results

    def reads(self, live, input_constants):
        """Returns the channels that live ones of one output come from."""
        return self.all_reads([live], input_constants)

    def all_reads(self, live, input_constants):
        """Returns the channels that live ones come from."""
        counts = [x.channels for x in self.node.inputs]
        read = np.zeros(sum(counts) + 1, bool)
        for (channels, sources), own in zip(self._sources, live, strict=True):
            read[sources[own[channels]]] = True
        return np.split(read[:-1], np.cumsum(counts)[:-1])

    def shorter(self, shape, y: Tensor, kept: np.ndarray, first: int = 0):
        """Returns a shape with the sizes that channel axes are cut to.

        Args:
            shape: Sizes, one for each axis of the tensor from one on.
            y: The tensor.
            kept: Which of its channels stay.
            first: The axis of the tensor that the first size is of.
        """
        shape = [None if n is None else int(n) for n in shape]
        rows = sides(kept, y.sizes)
        for axis, own in zip(y.axes, rows, strict=True):
            if first <= axis < y.rank and shape[axis - first] != -1:
                shape[axis - first] = int(own.sum())
        return shape

    def _batch(self) -> int:
        """Returns how many examples are two of what comes out."""
        # Where windows became examples, an image is several of them.
        entries = math.prod(_sizes(self.node.inputs[0]))
        whole = math.prod(_sizes(self.node.outputs[0]))
        return 2 * (whole // math.gcd(whole, entries) or 1)

    def _starts(self):
        """Returns each input with the number of its first channel."""
        counts = [x.channels for x in self.node.inputs]
        starts = np.cumsum([0, *counts[:-1]]).tolist()
        return list(zip(self.node.inputs, starts, strict=True))

    def _flows(self):
        sizes = [
            dataclasses.replace(y, axes=axes).channels
            for y, axes in zip(self.node.outputs, self._axes, strict=True)
        ]
        return list(zip(self._sources, sizes, strict=True))

    def _connected(self):
        """Returns, for each tensor, the smallest number tied to a channel."""
        counts = [x.channels for x in self.node.inputs]
        number = np.arange(sum(counts))
        flows = [
            (channels[sources >= 0], sources[sources >= 0], size)
            for (channels, sources), size in self._flows()
        ]
        also = self.tied_too()
        if also is not None:
            flows.append((also, number.copy(), 1 + also.max()))
        changed = True
        while changed:
            before, outputs = number.copy(), []
            for channels, sources, size in flows:
                least = np.full(size, len(number))
                np.minimum.at(least, channels, number[sources])
                np.minimum.at(number, sources, least[channels])
                outputs.append(least)
            changed = bool((number != before).any())
        # What is of no input is cut alone.
        free = len(number)
        ties = np.split(number, np.cumsum(counts)[:-1])
        for own in outputs[: len(self.node.outputs)]:
            alone = own == len(number)
            own[alone] = free + np.arange(alone.sum())
            free += int(alone.sum())
            ties.append(own)
        return ties


def _sizes(x: Tensor) -> list[int]:
    """Returns the sizes of the axes behind that of the batch."""
    return [n or _SIZE for n in x.shape[1:]]


def _numbers(x: Tensor, start: int, batch: int) -> np.ndarray:
    """Returns an array of the shape of a tensor, of the numbers of channels."""
    grid = start + np.arange(x.channels).reshape(x.sizes)
    others = [a for a in range(x.rank) if a not in x.axes]
    sizes = (x.shape[0] or batch, *_sizes(x))
    return np.broadcast_to(np.expand_dims(grid, others), sizes)


def unchangeable(operation: keras.Operation) -> str:
    """Returns why an operation cannot get other arguments, or nothing.

    Args:
        operation: The operation, of Keras's own.
    """
    try:
        operation.get_config()
    except NotImplementedError:
        # One was a number of NumPy, or an array.
        return "its arguments are not in its config"
    return ""


def _differs(numbers: np.ndarray, axis: int) -> bool:
    """Returns whether numbers vary along an axis."""
    first = numbers[(slice(None),) * axis + (slice(0, 1),)]
    return bool((numbers != first).any())


def _pairs(numbers: np.ndarray, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of a channel of an output and one that it comes from."""
    rows = y.by_channel(numbers)
    own = np.arange(y.channels)
    if (rows == rows[0]).all():
        return own, rows[0]
    rows = np.unique(rows, axis=0)
    pairs = np.stack([np.broadcast_to(own, rows.shape), rows]).reshape(2, -1)
    channels, sources = np.unique(pairs, axis=1)
    return channels, sources


@rule(keras.layers.Reshape, keras.layers.Flatten, "Reshape", "BroadcastTo")
class Reshape(Moving):
    """Axes that are split or joined, in row-major order, or new sizes."""

    _ARGUMENTS = (("target_shape", 1), ("newshape", 0), ("shape", 0))

    def uncovered(self):
        """Returns whether its sizes cannot be changed."""
        return unchangeable(self.layer)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with shorter channel axes."""
        name, first = self._argument()
        if not name:
            return Rewrite()
        y, before = self.node.outputs[0], list(getattr(self.layer, name))
        shape = self.shorter(before, y, kept_outputs, first)
        return Rewrite({name: shape} if shape != before else {})

    def axes_of(self, numbers, y):
        """Returns the channel axes, the last one of what has one channel."""
        if self.node.inputs[0].channels == 1:
            return (max(y.rank - 1, 0),)
        return super().axes_of(numbers, y)

    def _argument(self):
        """Returns the argument with the sizes, and the axis of the first."""
        for name, first in self._ARGUMENTS:
            if hasattr(self.layer, name):
                return name, first
        return "", 0


@rule("Squeeze")
class Squeeze(Moving):
    """Axes of size one that go, which must be named: others become as short."""

    def uncovered(self):
        return "" if self.layer.axis is not None else "it names no axis"


@rule(keras.layers.Concatenate, "Concatenate")
class Concatenate(Channelwise):
    """Channels of several tensors side by side, or their positions."""

    def refusal(self):
        if len({(x.rank, x.axes) for x in self.node.inputs}) > 1:
            return "its inputs have their channels at different axes"
        return ""

    def ties(self):
        """Returns the places of the inputs in the output."""
        if not self._joins_channels():
            return super().ties()
        ends = np.cumsum([x.channels for x in self.node.inputs])
        own = np.arange(ends[-1])
        return [*np.split(own, ends[:-1]), own]

    def constants(self, input_constants):
        """Returns the constants side by side, or those all inputs share."""
        if self._joins_channels():
            return np.concatenate(input_constants)
        same = np.all(np.equal(input_constants, input_constants[0]), axis=0)
        return np.where(same, input_constants[0], np.nan)

    def _joins_channels(self):
        x = self.node.inputs[0]
        return self.layer.axis % x.rank == x.axis


@rule("Stack")
class Stack(Moving):
    """Tensors on a new axis of positions: channels of one number meet."""

    one_input = False


@rule("Unstack")
class Unstack(Moving):
    """The slices along an axis. There are always as many of them."""

    def tied_too(self):
        """Returns that all slices of a channel axis are cut alike."""
        x = self.node.inputs[0]
        axis = self.layer.axis % x.rank
        if axis not in x.axes:
            return None
        place = x.axes.index(axis)
        sizes = [*x.sizes]
        sizes[place] = 1
        grid = np.arange(math.prod(sizes)).reshape(sizes)
        return np.broadcast_to(grid, x.sizes).ravel()


@rule("Roll", "Repeat")
class OffChannels(Moving):
    """What is done along axes of positions only."""

    def uncovered(self):
        """Returns whether it is done along a channel axis."""
        x = self.node.inputs[0]
        axes = np.atleast_1d(self.layer.axis).tolist()
        if None in axes or {a % x.rank for a in axes} & set(x.axes):
            return "it moves single channels"
        return ""
