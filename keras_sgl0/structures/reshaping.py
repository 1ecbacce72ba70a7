"""The rules of the layers that move, spread or join channels."""

import keras
import numpy as np

from keras_sgl0.structures.rules import Channelwise, Rewrite, rule


@rule(keras.layers.RepeatVector)
class RepeatVector(Channelwise):
    """A vector at every position."""

    def axis(self):
        """Returns the last axis."""
        return 2


@rule(keras.layers.Permute)
class Permute(Channelwise):
    """Axes in another order; the channels go with theirs."""

    def axis(self):
        """Returns where the channel axis went."""
        return 1 + self.layer.dims.index(self.node.inputs[0].axis)


@rule(keras.layers.Reshape, keras.layers.Flatten)
class Reshape(Channelwise):
    """Channels spread over positions, or gathered from them, or neither.

    In row-major order entry `f` of the longer last axis belongs to channel
    `f % channels` of the shorter one.
    """

    def refusal(self):
        x, y = self.node.inputs[0], self.node.outputs[0]
        # Flatten moves the channels of 'channels_first' to the end first.
        first = getattr(self.layer, "data_format", "") == "channels_first"
        expected = 1 if first else x.rank - 1
        sizes = sorted((x.channels, y.channels))
        if x.axis != expected or y.shape[-1] is None or sizes[1] % sizes[0]:
            return "it mixes channels and positions"
        return ""

    def axis(self):
        """Returns the last axis."""
        return self.node.outputs[0].rank - 1

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
        """Returns the layer with a shorter last axis."""
        shape = list(getattr(self.layer, "target_shape", ()))
        if not shape or shape[-1] == -1:
            return Rewrite()
        shape[-1] = int(kept_outputs.sum())
        return Rewrite({"target_shape": shape})


@rule(keras.layers.Concatenate, "Concatenate")
class Concatenate(Channelwise):
    """Channels of several tensors side by side, or their positions."""

    def refusal(self):
        if len({(x.rank, x.axis) for x in self.node.inputs}) > 1:
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
