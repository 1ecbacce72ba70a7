"""The rules of the layers that shift and scale, most of them normalizations."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import wide_dtype
from keras_sgl0.structures.activations import finite
from keras_sgl0.structures.mixing import MIXING
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.structures.slices import Rewrite, Role


@rule(keras.layers.BatchNormalization)
class BatchNorm(Channelwise):
    """Batch normalization at inference, a line for every channel."""

    takes_mask = True

    _VECTORS = (
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "moving_stddev",
        "renorm_mean",
        "renorm_stddev",
    )

    def refusal(self):
        x = self.node.inputs[0]
        axis = self.layer.axis
        axis = axis[0] if isinstance(axis, list | tuple) else axis
        if x.axis != axis % x.rank:
            return "it does not normalize channels"
        return super().refusal()

    def slices(self):
        """Returns gamma and beta, and the statistics that go with them.

        Without gamma, a channel is zero only if its mean is zero too.
        """
        mean: Role = "follower" if self.layer.scale else "statistic"
        return [
            *self.vectors("member", "gamma", "beta"),
            *self.vectors(mean, "moving_mean", "renorm_mean"),
            *self.vectors(
                "follower",
                "moving_variance",
                "moving_stddev",
                "renorm_stddev",
            ),
        ]

    def constants(self, input_constants):
        """Returns the line's value, its offset where the slope is zero."""
        slope, offset = self._line()
        value = offset + slope * input_constants[0]
        return finite(np.where(slope == 0, offset, value))

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the vectors of the channels that stay."""
        return Rewrite(
            {}, {k: v[kept_outputs] for k, v in self._vectors().items()}
        )

    def _vectors(self):
        variables = {k: getattr(self.layer, k, None) for k in self._VECTORS}
        return {
            k: self.values(v).astype("float64")
            for k, v in variables.items()
            if v is not None
        }

    def _line(self):
        own = self._vectors()
        gamma, beta = own.get("gamma", 1.0), own.get("beta", 0.0)
        slope = gamma / np.sqrt(own["moving_variance"] + self.layer.epsilon)
        return slope, beta - slope * own["moving_mean"]


@rule(keras.layers.GroupNormalization)
class GroupNorm(Channelwise):
    """Normalization of groups of channels, which go as a whole."""

    @property
    def groups(self) -> int:
        """The number of groups."""
        number = self.layer.groups
        return self.node.inputs[0].channels if number == -1 else number

    def refusal(self):
        x = self.node.inputs[0]
        if self.layer.axis % x.rank != x.axis:
            return "it does not normalize channels"
        alone = self.groups == x.channels
        if (alone and x.rank < 3) or (not alone and self.groups == 1):
            return MIXING
        return super().refusal()

    def ties(self):
        """Returns that all channels of a group are cut together."""
        own = np.arange(self.groups)
        own = np.repeat(own, self.node.inputs[0].channels // self.groups)
        return [own, own]

    def slices(self):
        """Returns gamma and beta."""
        return self.vectors("member", "gamma", "beta")

    def constants(self, input_constants):
        """Returns what a group of constants turns into, the offset if equal.

        A channel without a slope is its offset whatever its group is.
        """
        gamma, beta = self._vector("gamma", 1.0), self._vector("beta", 0.0)
        own = input_constants[0].reshape(self.groups, -1)
        centred = own - own[:, :1]
        centred = centred - centred.mean(1, keepdims=True)
        variance = np.square(centred).mean(1, keepdims=True)
        value = centred / np.sqrt(variance + self.layer.epsilon)
        value = np.where(gamma == 0, 0.0, gamma * value.reshape(-1))
        return finite(value + beta)

    def reads(self, live, input_constants):
        """Returns that the groups of live outputs are read."""
        live = live & (self._vector("gamma", 1.0) != 0)
        group = live.reshape(self.groups, -1).any(1)
        return [np.repeat(group, len(live) // self.groups)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer groups."""
        vectors = {
            name: self._vector(name)[kept_outputs]
            for name in ("gamma", "beta")
            if getattr(self.layer, name) is not None
        }
        kept = kept_outputs.reshape(self.groups, -1).any(1)
        return Rewrite({"groups": int(kept.sum())}, vectors)

    def _vector(self, name, default=None):
        own = getattr(self.layer, name)
        number = self.node.inputs[0].channels
        return np.full(number, default) if own is None else self.values(own)


@rule(keras.layers.Rescaling)
class Rescaling(Channelwise):
    """A line for every channel, or one for all."""

    def refusal(self):
        x = self.node.inputs[0]
        shapes = {np.shape(v) for v in (self.layer.scale, self.layer.offset)}
        if shapes - {(), (1,), (x.channels,)} or x.axis != x.rank - 1:
            return "it broadcasts an array"
        return super().refusal()

    def constants(self, input_constants):
        """Returns the line's value, its offset where the slope is zero."""
        slope, offset = self._line()
        return np.where(slope == 0, offset, offset + slope * input_constants[0])

    def reads(self, live, input_constants):
        """Returns that the channels with a slope are read."""
        slope, _ = self._line()
        return [live & (slope != 0)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the lines of the channels that stay."""
        pair = {"scale": self.layer.scale, "offset": self.layer.offset}
        return Rewrite(
            {
                name: np.asarray(value)[kept_outputs].tolist()
                for name, value in pair.items()
                if np.size(value) > 1
            }
        )

    def _line(self):
        # As Keras rounds them: TensorFlow takes a number as float32 first.
        dtype = wide_dtype(self.layer)
        pair = (self.layer.scale, self.layer.offset)
        return [ops.convert_to_numpy(ops.cast(v, dtype)) for v in pair]


@rule(keras.layers.Normalization)
class Normalization(Channelwise):
    """A line for every channel, set by hand or by `adapt`."""

    def refusal(self):
        x = self.node.inputs[0]
        if [axis % x.rank for axis in self.layer.axis] != [x.axis]:
            return "it does not normalize channels"
        if self.node.calls > 1 and self.layer.weights:
            return "it is called more than once"
        return super().refusal()

    def constants(self, input_constants):
        """Returns the value of the line."""
        mean, variance = self._vectors()
        scale = np.maximum(np.sqrt(variance), keras.backend.epsilon())
        if self.layer.invert:
            return input_constants[0] * scale + mean
        return (input_constants[0] - mean) / scale

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with means and variances set by hand."""
        mean, variance = (v[kept_outputs].tolist() for v in self._vectors())
        return Rewrite({"mean": mean, "variance": variance})

    def _vectors(self):
        pair = (self.layer.mean, self.layer.variance)
        return [ops.convert_to_numpy(v).ravel().astype("float64") for v in pair]
