"""The rule of dense layers."""

import keras

from keras_sgl0.structures.across import DenseAcrossPositions
from keras_sgl0.structures.kernels import Kernel
from keras_sgl0.structures.registry import rule


@rule(keras.layers.Dense)
class Dense(Kernel):
    """A dense layer, at every position if there are any."""

    size = "units"

    def bind(self, node, values):
        super().bind(node, values)
        # A rule of a user that is made from this one refuses such calls.
        if type(self) is Dense and node.inputs[0].axes != self.axes():
            return DenseAcrossPositions().bind(node, values)
        return self
