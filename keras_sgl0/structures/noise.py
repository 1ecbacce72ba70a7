"""The rules of what does nothing, or something in training alone."""

import keras
import numpy as np

from keras_sgl0.structures.registry import NOISE, rule
from keras_sgl0.structures.rules import Channelwise


@rule(
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
class Dropout(Channelwise):
    """Random factors in training; one that is called for it has them always."""

    any_mode = True

    def constants(self, input_constants):
        """Returns the constants; of random factors only zero is one."""
        own = input_constants[0]
        if self.node.kwargs.get("training"):
            own = np.where(own == 0, own, np.nan)
        return own


rule(
    keras.layers.AlphaDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)(Channelwise)


@rule(NOISE)
class Noise(Channelwise):
    """What is done in training alone, as stochastic depth."""

    several_axes = True
