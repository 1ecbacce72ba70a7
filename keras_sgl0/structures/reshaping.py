"""The rules of the layers that move, spread or join channels."""

import math

import keras
import numpy as np

from keras_sgl0.structures.rules import Channelwise, Rewrite, rule, sides


@rule(keras.layers.RepeatVector)
class RepeatVector(Channelwise):
    """A vector at every position."""

    def axes(self):
        """Returns the last axis."""
        return (2,)


@rule(keras.layers.Permute)
class Permute(Channelwise):
    """Axes in another order; the channels go with theirs."""

    def axes(self):
        """Returns where the channel axis went."""
        return (1 + self.layer.dims.index(self.node.inputs[0].axis),)


@rule(keras.layers.Reshape, keras.layers.Flatten)
class Reshape(Channelwise):
    """Channels spread over positions or gathered from them, split or joined.

    In row-major order entry `f` of the longer last axis belongs to channel
    `f % channels` of the shorter one. Where all axes before the channels stay
    and there are positions among them, the channels themselves are split over
    several axes, as `(steps, heads * size)` into `(steps, heads, size)`, or
    joined again, and every one of them is itself.
    """

    several_axes = True

    def refusal(self):
        if self._splits():
            return ""
        x, y = self.node.inputs[0], self.node.outputs[0]
        # Flatten moves the channels of 'channels_first' to the end first.
        first = getattr(self.layer, "data_format", "") == "channels_first"
        expected = 1 if first else x.rank - 1
        size = y.shape[-1]
        if x.axis != expected or size is None:
            return "it mixes channels and positions"
        sizes = sorted((x.channels, size))
        return "it mixes channels and positions" if sizes[1] % sizes[0] else ""

    def axes(self):
        """Returns the last axis, or those that the channels are split over."""
        y = self.node.outputs[0]
        if self._splits():
            return _long(y, self.node.inputs[0].axes[0])
        return (y.rank - 1,)

    def ties(self):
        """Returns that all positions of a channel are cut together."""
        pair = (self.node.inputs[0].channels, self.node.outputs[0].channels)
        return [np.arange(n) % min(pair) for n in pair]

    def constants(self, input_constants):
        """Returns the constant that all positions of a channel share."""
        inward, outward = self.ties()
        places = input_constants[0].reshape(-1, 1 + inward.max())
        same = (places == places[0]).all(0)
        return np.where(same, places[0], np.nan)[outward]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with shorter channel axes."""
        before = list(getattr(self.layer, "target_shape", ()))
        shape = before.copy()
        y = self.node.outputs[0]
        kept = sides(kept_outputs, y.sizes)
        for axis, own in zip(y.axes, kept, strict=True):
            if shape and shape[axis - 1] != -1:
                shape[axis - 1] = int(own.sum())
        return Rewrite({"target_shape": shape} if shape != before else {})

    def _splits(self) -> bool:
        """Returns whether the axes before the channels, and some, stay."""
        x, y = self.node.inputs[0], self.node.outputs[0]
        first = x.axes[0]
        return (
            (first > 1 or len(x.axes) > 1)
            and x.axes == _long(x, first)
            and x.shape[1:first] == y.shape[1:first]
            and math.prod(n or 0 for n in y.shape[first:]) == x.channels
        )


def _long(x, first) -> tuple[int, ...]:
    """Returns the axes from one on that are not of size 1, or the last."""
    found = (axis for axis in range(first, x.rank) if x.shape[axis] != 1)
    return tuple(found) or (x.rank - 1,)


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
