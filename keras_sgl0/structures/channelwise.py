"""The rules of the layers that treat every channel alone."""

import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.graph import Tensor
from keras_sgl0.structures.rules import (
    Channelwise,
    Rewrite,
    Rule,
    evaluate,
    finite,
    is_elementwise,
    rule,
)

_MIXING = "each of its channels depends on others"


@rule(
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    # The operations that arithmetic on symbolic tensors records.
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide"),
    *("Maximum", "Minimum", "Negative", "Absolute", "Square", "Clip"),
    *("Relu", "Relu6", "Sigmoid", "Silu", "Tanh", "Gelu", "Elu", "Selu"),
    *("HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "Softplus", "Mish"),
)
class Elementwise(Channelwise):
    """A function of each entry, or of the same entry of several tensors.

    An input with one channel is broadcast over those of the others and stays.
    """

    @property
    def channels(self) -> int:
        """The number of channels of the output."""
        return max(x.channels for x in self.node.inputs)

    @property
    def wide(self) -> list[bool]:
        """Which inputs have as many."""
        return [x.channels == self.channels for x in self.node.inputs]

    def refusal(self):
        """Returns why the rule does not cover this call, empty if it does."""
        layer, inputs = self.layer, self.node.inputs
        if not is_elementwise(getattr(layer, "activation", ops.relu)):
            return "its activation is not known to be elementwise"
        if len({(x.rank, x.axis) for x in inputs}) > 1:
            return "its inputs have their channels at different axes"
        others = [getattr(layer, name, 0) for name in ("x_min", "x_max")]
        others += _others(self.node)
        narrow = {x.channels for x in inputs} - {self.channels}
        spread = self.node.outputs[0].rank != inputs[0].rank
        if spread or narrow - {1} or any(np.size(x) != 1 for x in others):
            return "it broadcasts an array"
        return ""

    def ties(self):
        """Returns that all channels of one number are cut together."""
        own = np.arange(self.channels)
        return [own if wide else None for wide in self.wide] + [own]

    def constants(self, input_constants):
        """Returns the function of the constants; zero times all is zero."""
        inputs = list(dict.fromkeys(self.node.inputs))
        given = dict(zip(self.node.inputs, input_constants, strict=True))
        result = evaluate(
            lambda *values: self.node.call(
                self.layer, dict(zip(inputs, values, strict=True))
            ),
            *(given[x] for x in inputs),
            dtype=wide_dtype(inputs[0].spec),
        )
        if self.node.type == "Multiply":
            result = np.where(
                np.any(np.equal(_spread(input_constants), 0), 0), 0, result
            )
        return result

    def reads(self, live, input_constants):
        """Returns that the channels of the live outputs are read."""
        return [live if wide else live.any(keepdims=True) for wide in self.wide]


def _spread(vectors):
    return np.stack(np.broadcast_arrays(*vectors))


def _others(node) -> list:
    """Returns the arguments of a call that are numbers or arrays."""
    leaves = keras.tree.flatten((node.args, node.kwargs))
    return [x for x in leaves if not isinstance(x, Tensor | str | None)]


rule(
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    # Under 'same' padding Keras divides by the number of real entries.
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.AdaptiveAveragePooling1D,
    keras.layers.AdaptiveAveragePooling2D,
    keras.layers.AdaptiveAveragePooling3D,
    keras.layers.AdaptiveMaxPooling1D,
    keras.layers.AdaptiveMaxPooling2D,
    keras.layers.AdaptiveMaxPooling3D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.UpSampling3D,
)(Channelwise)


@rule(keras.layers.RepeatVector)
class RepeatVector(Channelwise):
    """A vector at every position."""

    def axis(self):
        """Returns the last axis."""
        return 2


@rule(keras.layers.Cropping1D, keras.layers.UpSampling1D)
class Steps(Channelwise):
    """What is done to the middle one of three axes."""

    data_format = "channels_last"


@rule(
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
class GlobalPooling(Channelwise):
    """Pooling over all positions."""

    def axis(self):
        """Returns the channel axis, the last where no position is left."""
        return self.node.inputs[0].axis if self.layer.keepdims else 1


@rule(keras.layers.UpSampling2D)
class UpSampling(Channelwise):
    """Interpolation, of which the simple kinds leave a constant alone."""

    def constants(self, input_constants):
        """Returns the constants of the input."""
        exact = self.layer.interpolation in ("nearest", "bilinear")
        return np.where(
            exact | (input_constants[0] == 0), input_constants[0], np.nan
        )


@rule(
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
class ZeroPadding(Channelwise):
    """Zeros around the positions."""

    border = True
    data_format = "channels_last"


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
        """Returns why the rule does not cover this call, empty if it does."""
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
        """Returns why the rule does not cover this call, empty if it does."""
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


@rule(keras.layers.BatchNormalization)
class BatchNorm(Channelwise):
    """Batch normalization at inference, a line for every channel."""

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
        """Returns why the rule does not cover this call, empty if it does."""
        x = self.node.inputs[0]
        axis = self.layer.axis
        axis = axis[0] if isinstance(axis, list | tuple) else axis
        if x.axis != axis % x.rank:
            return "it does not normalize channels"
        return super().refusal()

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
    """Normalization of every channel alone, in groups of one."""

    def refusal(self):
        """Returns why the rule does not cover this call, empty if it does."""
        x = self.node.inputs[0]
        if self.layer.axis % x.rank != x.axis:
            return "it does not normalize channels"
        if self.layer.groups not in (-1, x.channels) or x.rank < 3:
            return _MIXING
        return super().refusal()

    def constants(self, input_constants):
        """Returns the offset, which is what a constant turns into."""
        offset = 0 * input_constants[0]
        return (
            offset if self.layer.beta is None else offset + self._vector("beta")
        )

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with as many groups as channels."""
        names = ("gamma", "beta")
        names = [k for k in names if getattr(self.layer, k) is not None]
        vectors = {k: self._vector(k)[kept_outputs] for k in names}
        return Rewrite({"groups": int(kept_outputs.sum())}, vectors)

    def _vector(self, name):
        return self.values(getattr(self.layer, name))


@rule(
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
    keras.layers.Softmax,
)
class Mixing(Rule):
    """What makes every channel depend on every other."""

    def refusal(self):
        """Returns why no call is covered."""
        return _MIXING


@rule(keras.layers.Rescaling)
class Rescaling(Channelwise):
    """A line for every channel, or one for all."""

    def refusal(self):
        """Returns why the rule does not cover this call, empty if it does."""
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
        return np.asarray(self.layer.scale), np.asarray(self.layer.offset)


@rule(keras.layers.PReLU)
class PReLU(Channelwise):
    """A slope for negative entries, at each position or shared."""

    def constants(self, input_constants):
        """Returns the constant, times the slope where it is negative."""
        alpha = self._by_channel()
        same = (alpha == alpha[:1]).all(0)
        value = np.where(
            input_constants[0] < 0,
            alpha[0] * input_constants[0],
            input_constants[0],
        )
        return np.where(same | ~(input_constants[0] < 0), value, np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the slopes of the channels that stay."""
        alpha = self.values(self.layer.alpha)
        axis = self.node.inputs[0].axis - 1
        if alpha.shape[axis] > 1:
            alpha = np.compress(kept_outputs, alpha, axis)
        return Rewrite({}, {"alpha": alpha})

    def _by_channel(self):
        """Returns the slopes as a matrix `(positions, channels or 1)`."""
        axis = self.node.inputs[0].axis - 1
        alpha = np.moveaxis(self.values(self.layer.alpha), axis, -1)
        return alpha.reshape(math.prod(alpha.shape[:-1]), -1)


@rule(keras.layers.Normalization)
class Normalization(Channelwise):
    """A line for every channel, set by hand or by `adapt`."""

    def refusal(self):
        """Returns why the rule does not cover this call, empty if it does."""
        x = self.node.inputs[0]
        if [axis % x.rank for axis in self.layer.axis] != [x.axis]:
            return "it does not normalize channels"
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
