"""The rules of layers that are known by package and name.

The package of `package>Layer` is the beginning of the name of the module that
defines the layer, to any dot. So nothing is imported that may not be installed.
"""

import numpy as np

from keras_sgl0.structures.mixing import RMSNorm
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.structures.slices import Rewrite, Slices


@rule("keras>LayerScale")
class LayerScale(Channelwise):
    """A factor for each channel, as in the blocks of ConvNeXt."""

    data_format = "channels_last"

    def slices(self):
        """Returns the factors."""
        return self.vectors("member", "gamma")

    def constants(self, input_constants):
        """Returns the constants times the factors; zero times all is zero."""
        gamma = self.values(self.layer.gamma)
        zero = (gamma == 0) | (input_constants[0] == 0)
        return np.where(zero, 0.0, gamma * input_constants[0])

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the factors of the channels that stay."""
        gamma = self.values(self.layer.gamma)[kept_outputs]
        return Rewrite({"projection_dim": len(gamma)}, {"gamma": gamma})


@rule("keras>CustomScaleLayer")
class ScaledSum(Channelwise):
    """A tensor plus another one times a number, as in InceptionResNetV2."""

    def refusal(self):
        inputs = self.node.inputs
        if len(inputs) != 2 or len({(x.axes, x.channels) for x in inputs}) > 1:
            return "its inputs have their channels at different axes"
        return ""

    def constants(self, input_constants):
        """Returns the sum of the constants."""
        return input_constants[0] + self.layer.scale * input_constants[1]


@rule("keras_hub>PositionEmbedding")
class PositionTable(Channelwise):
    """A vector for each position, as many channels as its input has."""

    data_format = "channels_last"

    def slices(self):
        """Returns the columns of the table."""
        own = np.arange(self.node.outputs[0].channels)
        return [Slices("position_embeddings", 1, own, "member")]

    def constants(self, input_constants):
        """Returns the entry that all positions share."""
        table = self.values(self.layer.position_embeddings)
        return np.where((table == table[:1]).all(0), table[0], np.nan)

    def reads(self, live, input_constants):
        """Returns that nothing is read: the input gives its shape alone."""
        return [np.zeros_like(live)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer columns."""
        table = self.values(self.layer.position_embeddings)[:, kept_outputs]
        return Rewrite({}, {"position_embeddings": table})


@rule(
    "keras_hub>LlamaLayerNorm",
    "keras_hub>MistralLayerNormalization",
    "keras_hub>MixtralLayerNormalization",
    "keras_hub>Phi3LayerNorm",
    "keras_hub>QwenLayerNorm",
    "keras_hub>GptOssLayerNormalization",
    "keras_hub.src.models.gemma4>RMSNormalization",
)
class HubRMSNorm(RMSNorm):
    """RMS normalization of the last axis."""

    data_format = "channels_last"

    def refusal(self):
        # It has no `axis` that could be another one.
        return Channelwise.refusal(self)


@rule(
    "keras_hub.src.models.gemma>RMSNormalization",
    "keras_hub.src.models.gemma3>RMSNormalization",
)
class GemmaRMSNorm(HubRMSNorm):
    """RMS normalization that adds one to its scale."""

    def vector(self, name, default):
        """Returns what the layer multiplies by, one more than the scale."""
        return 1 + super().vector(name, default - 1)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the mean over the channels that stay."""
        change = super().rewrite(kept_inputs, kept_outputs, input_constants)
        return Rewrite(change.config, {"scale": change.weights["scale"] - 1})
