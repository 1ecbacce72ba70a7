"""Gates that several layers share: one sample, many places.

A structure runs through several layers, so its gate must act in several
places, with one sample a step. The gates of a family are one `HardConcrete`
on a vector of ones, `AllOpen`: its output is the sample. `GateChannels`
multiplies the channels of a tensor by the gates that they belong to.

It stands before each kernel that reads the channels, and nowhere else. What
reads a channel is linear in it, so a closed gate is the channel cut, and any
gate can be folded into the kernel that reads it. Between the kernels that make
a channel and those that read it nothing changes: batch normalization has the
statistics of the channel itself, not those of the channel times noise, and
neither a bias nor a beta needs a gate. A residual sum goes on ungated, and is
gated wherever a block reads it.

As long as all members of a structure that is zero make its channel zero, a
closed gate and zero members are the same to every reader. Where they make it
another constant, as behind a sigmoid, readers of a closed gate still see zero.
"""

import keras
import numpy as np
from keras import ops

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.network.neighbours import readers
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise, Rule
from keras_sgl0.utils.validation import integer, require


@keras.saving.register_keras_serializable("keras_sgl0")
class AllOpen(keras.layers.Layer):
    """A vector of ones, for a `HardConcrete` to turn into its gates.

    Input shape: any. The values of the input play no part.
    Output shape: `(1, gates)`.

    Args:
        gates: The number of gates. At least 1.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `gates` is not a positive integer.

    Example:
        >>> z = HardConcrete()(AllOpen(16)(inputs))
    """

    def __init__(self, gates: int, **kwargs):
        super().__init__(**kwargs)
        self.gates = integer("gates", gates, at_least=1)

    def call(self, inputs):
        """Returns ones."""
        return ops.ones((1, self.gates), self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        """Returns no mask."""
        return None

    def compute_output_shape(self, input_shape):
        """Returns `(1, gates)`."""
        return (1, self.gates)

    def get_config(self):
        """Returns the constructor's arguments."""
        return super().get_config() | {"gates": self.gates}


@keras.saving.register_keras_serializable("keras_sgl0")
class GateChannels(keras.layers.Layer):
    """Multiplies the channels of a tensor by gates made elsewhere.

    It is called on a list, `[x, gates, gates, ...]`. The vectors of gates are
    put side by side, with a one behind them for channels without a gate.

    Input shape: `(batch, ...)`, then `(1, n)` for each vector.
    Output shape: that of the first input.

    Args:
        places: For each channel of x the place of its gate, the number of all
            gates for none.
        axis: The axis of the channels of x.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If a place is negative.

    Example:
        >>> z = HardConcrete()(AllOpen(2)(inputs))
        >>> x = GateChannels([0, 0, 1, 2])([x, z])  # the last has no gate
    """

    def __init__(self, places: list[int], axis: int = -1, **kwargs):
        super().__init__(**kwargs)
        expected = "a list with a number for each channel"
        is_list = isinstance(places, list | tuple) and places
        require(is_list, "places", expected, places)
        self.places = [integer("places", i, at_least=0) for i in places]
        self.axis = integer("axis", axis)
        self.supports_masking = True

    def call(self, inputs):
        """Returns the first input times the gates."""
        x, *gates = inputs
        shape = [1] * len(x.shape)
        shape[self.axis] = len(self.places)
        return x * ops.reshape(self.of_channels(gates), shape)

    def of_channels(self, gates: list):
        """Returns the gate of each channel, 1 where there is none.

        Args:
            gates: The vectors, `(1, n)` each.
        """
        every = [*gates, ops.ones((1, 1), gates[0].dtype)]
        places = ops.convert_to_tensor(self.places, "int32")
        return ops.take(ops.concatenate(every, axis=1)[0], places)

    def compute_mask(self, inputs, mask=None):
        """Returns the mask of the first input."""
        return mask[0] if isinstance(mask, list | tuple) else mask

    def compute_output_shape(self, input_shape):
        """Returns the shape of the first input."""
        return input_shape[0]

    def get_config(self):
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "places": self.places,
            "axis": self.axis,
        }


def is_shared(gate: HardConcrete) -> bool:
    """Returns whether the gates of a layer act elsewhere, on structures.

    Args:
        gate: A gate layer of a Functional or Sequential model.
    """
    return any(isinstance(x, GateChannels) for x in readers(gate))


@rule(AllOpen)
class _Ones(Rule):
    """A vector that is one for every input."""

    needs_channels = False

    def axes(self):
        return (1,)

    def constants(self, input_constants):
        return np.ones(self.layer.gates)

    def reads(self, live, input_constants):
        return [np.zeros(self.node.inputs[0].channels, bool)]


@rule(HardConcrete)
class Gates(Channelwise):
    """Gates on the last axis, at test time a factor for each channel."""

    data_format = "channels_last"

    def refusal(self):
        if self.node.calls > 1:
            return "it is called more than once"
        return super().refusal()

    def constants(self, input_constants):
        """Returns the constants times the gates; zero times all is zero."""
        z = ops.convert_to_numpy(self.layer.test_gates())
        return np.where(z == 0, 0, z * input_constants[0])


@rule(GateChannels)
class Gated(Channelwise):
    """Channels times gates from elsewhere."""

    several_axes = True

    def refusal(self):
        x = self.node.inputs[0]
        if self.layer.axis % x.rank not in x.axes:
            return "it does not gate channels"
        return ""

    @property
    def places(self) -> np.ndarray:
        """The place of the gate of each channel."""
        x = self.node.inputs[0]
        shape = [1] * len(x.axes)
        shape[x.axes.index(self.layer.axis % x.rank)] = -1
        own = np.reshape(self.layer.places, shape)
        return np.broadcast_to(own, x.sizes).ravel()

    def ties(self):
        """Returns the ties of the channels; the gates have none."""
        own = np.arange(self.node.inputs[0].channels)
        return [own, *[None] * (len(self.node.inputs) - 1), own]

    def from_gates(self, vectors: list, without):
        """Returns, for each channel, what belongs to its gate.

        Args:
            vectors: Arrays with one entry a gate, for each vector of gates.
            without: The entry of a channel without a gate.
        """
        return np.concatenate([*vectors, [without]])[self.places]

    def constants(self, input_constants):
        """Returns the constants times the gates; zero times all is zero."""
        x, *gates = input_constants
        z = self.from_gates(gates, 1.0)
        return np.where((z == 0) | (x == 0), 0, z * x)

    def reads(self, live, input_constants):
        """Returns that the live channels are read, and all gates."""
        _, *gates = self.node.inputs
        return [live, *[np.ones(z.channels, bool) for z in gates]]
