"""The rules of kernels along an axis that is not that of the channels."""

import numpy as np

from keras_sgl0.structures.kernels import Kernel
from keras_sgl0.structures.slices import Slices


class AcrossPositions(Kernel):
    """A convolution whose input has its channels at another axis.

    It mixes what each channel is at several positions, or the channels with
    their neighbours. All channels of its input stay: of one that is zero the
    bias makes numbers that differ from position to position. Its own outputs
    can be cut.
    """

    several_axes = True
    border = False

    @property
    def why_inputs_stay(self):
        """Why no input channel can be cut."""
        return f"`{self.node.path}` mixes positions"

    def input_axes(self):
        """Returns the axes of the input's channels, whichever they are."""
        return self.node.inputs[0].axes

    def constants(self, input_constants):
        return super().constants([self._unknown()])

    def held(self, input_constants):
        return super().held([self._unknown()])

    def reads(self, live, input_constants):
        """Returns that all is read if an output is live."""
        return [np.full(self.node.inputs[0].channels, live.any())]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer without the outputs that are cut."""
        unknown = self._unknown()
        rows = np.ones(len(unknown), bool)
        return super().rewrite([rows], kept_outputs, [unknown])

    def slices(self):
        """Returns the columns of the kernel, and the bias."""
        outputs = np.arange(self.node.outputs[0].channels)
        columns = Slices("kernel", self.output_axis, outputs, "member")
        return [columns, *self._bias_slices(outputs)]

    def _unknown(self):
        """Returns that no row of the kernel reads a constant."""
        return np.full(self.layer.kernel.shape[self.input_axis], np.nan)


class DenseAcrossPositions(AcrossPositions):
    """A dense layer along another axis, as in MLP-Mixer."""

    size = "units"
