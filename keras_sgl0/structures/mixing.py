"""The rules of the layers that normalize each position over its channels."""

import math

import keras
import numpy as np

from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise, Rule
from keras_sgl0.structures.slices import Rewrite, Zeros

MIXING = "each of its channels depends on others"


class OverChannels(Channelwise):
    """A layer in which every output depends on all inputs.

    Channel `i` of the output is that of the input, times what all channels
    have in common.
    """

    def refusal(self):
        x, axis = self.node.inputs[0], self.layer.axis
        axes = axis if isinstance(axis, list | tuple) else [axis]
        if [axis % x.rank for axis in axes] != [x.axis]:
            return "it does not normalize channels"
        return super().refusal()

    def reads(self, live, input_constants):
        """Returns that all inputs are read but those known to be zero."""
        return [live.any() & (input_constants[0] != 0)]

    def vector(self, name: str, default: float) -> np.ndarray:
        """Returns the values of a variable with one entry a channel.

        Args:
            name: The attribute that holds it.
            default: What the entries are if the layer has none.
        """
        variable = getattr(self.layer, name, None)
        if variable is None:
            return np.full(self.node.inputs[0].channels, default)
        return self.values(variable)


@rule(keras.layers.LayerNormalization)
class LayerNorm(OverChannels):
    """Layer normalization, which is called with zeros for what is cut.

    A zero counts in the mean and in the variance, so that the layer cannot do
    without it. It needs no weight, however. The layer keeps its size, as do
    gamma and beta; zeros stand behind the channels that stay, and their outputs
    are taken off. Behind a gamma of zero an output is its beta, whatever the
    input is.
    """

    zeros_only = True
    carries = False

    @property
    def why_inputs_stay(self) -> str:
        """Why no input channel can be cut, empty where it can."""
        if not self.node.masked:
            return ""
        return f"`{self.node.path}` hands on a mask, which zeros would stop"

    def refusal(self):
        if self.layer.rms_scaling:
            return "`rms_scaling` is deprecated"
        return super().refusal()

    def slices(self):
        """Returns gamma and beta, which are as long without a channel."""
        return self.vectors("member", "gamma", "beta", stays=True)

    def constants(self, input_constants):
        """Returns beta where gamma is zero."""
        beta = self.vector("beta", 0.0)
        return np.where(self.vector("gamma", 1.0) == 0, beta, np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the channels that stay before the others."""
        order = np.argsort(~kept_outputs, kind="stable")
        vectors = {
            name: self.vector(name, 1.0)[order]
            for name in ("gamma", "beta")
            if getattr(self.layer, name) is not None
        }
        axis = self.node.inputs[0].axes[0]
        cut = int((~kept_outputs).sum())
        return Rewrite({}, vectors, zeros=Zeros(axis, cut, removed=True))


@rule(keras.layers.RMSNormalization)
class RMSNorm(OverChannels):
    r"""RMS normalization, which can do without channels that are zero.

    With :math:`d` of :math:`D` channels the mean of squares is :math:`D / d`
    times what it was, so that

    .. math::
        \frac{s x}{\sqrt{\frac{1}{D} \sum x^2 + \epsilon}} =
        \frac{s \sqrt{D / d} \, x}
        {\sqrt{\frac{1}{d} \sum x^2 + \epsilon D / d}}
    """

    zeros_only = True

    def refusal(self):
        x = self.node.inputs[0]
        # Keras takes the scale as one of the last axis.
        if x.axis != x.rank - 1:
            return "its channels are not at the last axis"
        return super().refusal()

    def slices(self):
        """Returns the scale, whatever its values are for a zero."""
        return self.vectors("follower", "scale")

    def constants(self, input_constants):
        """Returns zero for a zero, and where the scale is zero."""
        zero = (input_constants[0] == 0) | (self.vector("scale", 1.0) == 0)
        return np.where(zero, 0.0, np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the mean over the channels that stay."""
        ratio = len(kept_outputs) / max(int(kept_outputs.sum()), 1)
        epsilon = self.layer.epsilon
        if epsilon is None:
            epsilon = keras.backend.epsilon()
        scale = self.vector("scale", 1.0)[kept_outputs] * math.sqrt(ratio)
        return Rewrite({"epsilon": epsilon * ratio}, {"scale": scale})


@rule(keras.layers.UnitNormalization, "Normalize")
class UnitNorm(OverChannels):
    """Division by the norm over channels, to which a zero adds nothing."""

    zeros_only = True

    def refusal(self):
        """Returns whether a zero may be the smallest, as of the norm -inf."""
        if getattr(self.layer, "order", 2) < 0:
            return "a zero counts in its norm"
        return super().refusal()

    def constants(self, input_constants):
        """Returns zero for a zero."""
        return np.where(input_constants[0] == 0, 0.0, np.nan)


@rule(
    *("LogSoftmax", "Sparsemax", "LayerNorm", "RMSNorm", "Argsort"),
)
class Mixing(Rule):
    """What makes every channel depend on every other."""

    def refusal(self):
        """Returns why no call is covered."""
        return MIXING


@rule("Sort", "Cumsum", "Cumprod")
class AlongPositions(Channelwise):
    """What goes along an axis of positions, each channel by itself."""

    several_axes = True

    def refusal(self):
        x = self.node.inputs[0]
        if self.layer.axis is None or self.layer.axis % x.rank in (0, *x.axes):
            return MIXING
        return super().refusal()

    def constants(self, input_constants):
        """Returns what stays the same along the axis."""
        (given,) = input_constants
        stays = (given == 0) | (self.node.type == "Sort")
        return np.where(stays, given, np.nan)


@rule(keras.layers.Softmax, "Softmax")
class Softmax(Channelwise):
    """Softmax over positions, as of the scores of every head."""

    several_axes = True
    takes_mask = True

    def refusal(self):
        x = self.node.inputs[0]
        for mask in self.masks:
            same = mask.rank == x.rank
            if not same or any(mask.shape[axis] != 1 for axis in x.axes):
                return "its mask may have a value for each channel"
        if not self._axes or set(self._axes) & set(self.node.inputs[0].axes):
            return MIXING
        return super().refusal()

    def constants(self, input_constants):
        """Returns equal shares where the number of positions is known."""
        sizes = (self.node.inputs[0].shape[axis] for axis in self._axes)
        share = 1 / math.prod(np.nan if n is None else n for n in sizes)
        if self.masks:
            share = np.nan
        return np.where(np.isnan(input_constants[0]), np.nan, share)

    @property
    def _axes(self) -> list[int]:
        axis = self.layer.axis
        given = [] if axis is None else np.atleast_1d(axis).tolist()
        return [i % self.node.inputs[0].rank for i in given]
