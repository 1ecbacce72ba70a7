"""The rules of what pools, crops, pads and resizes positions."""

import keras
import numpy as np

from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise

rule(
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
    """Pooling over all positions, or over those that a mask has left."""

    takes_mask = True

    def axes(self):
        """Returns the channel axis, the last where no position is left."""
        return self.node.inputs[0].axes if self.layer.keepdims else (1,)


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


@rule("MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool")
class Pool(Channelwise):
    """Pooling by an operation."""

    def refusal(self):
        if self.layer.data_format is None:
            return "it does not say where its channels are"
        return super().refusal()


@rule(keras.layers.Resizing, "Resize")
class Resizing(Channelwise):
    """Images of another size, a constant staying what it is."""

    any_mode = True

    def refusal(self):
        if self.node.inputs[0].rank != 4:
            return "it is called on a single image"
        if self.layer.pad_to_aspect_ratio:
            return "it pads"
        return super().refusal()

    def constants(self, input_constants):
        """Returns the constants that weights of sum one leave."""
        simple = self.layer.interpolation in ("nearest", "bilinear")
        exact = simple and not self.layer.antialias
        known = exact | (input_constants[0] == 0)
        return np.where(known, input_constants[0], np.nan)
