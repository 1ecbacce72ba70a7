"""The rules of convolutions: of all channels, or in groups of them.

With groups, Keras wants as many channels in each. So either whole groups are
cut, with their inputs and outputs, or equally many inputs and outputs of every
group. Each layer gets the one with more and smaller structures. What is left
may have more of the other kind.
"""

import functools

import keras
import numpy as np

from keras_sgl0.structures.across import AcrossPositions
from keras_sgl0.structures.kernels import Kernel
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.slices import Rewrite, Slices


@rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
class Conv(Kernel):
    """A convolution."""

    def bind(self, node, values):
        layer = node.operation
        sizes = (layer.kernel.shape[-2], layer.filters // layer.groups)
        if layer.groups == 1 or type(self) is not Conv:
            super().bind(node, values)
            if type(self) is Conv and node.inputs[0].axes != self.axes():
                return AcrossPositions().bind(node, values)
            return self
        kind = WholeGroups if layer.groups >= max(sizes) else EqualGroups
        return kind().bind(node, values)


class Grouped(Conv):
    """A convolution of groups of channels, each alone."""

    @property
    def is_linear(self) -> bool:
        """Whether all outputs have the same inputs; they do not."""
        return False

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The number of groups, and of inputs and outputs of each."""
        groups = self.layer.groups
        inputs = self.layer.kernel.shape[-2]
        return groups, inputs, self.layer.filters // groups

    def total(self, rows):
        """Returns, for some inputs, the sum of the kernel over positions."""
        return self._spread(self.kernel().sum(0, dtype="float64"))[rows]

    @functools.cached_property
    def links(self):
        """Which input reaches which output, a matrix."""
        return self._spread(self.kernel().any(0))

    def smaller(self, kept_inputs, kept_outputs):
        """Returns the kernel of the groups that stay."""
        kernel = self.values(self.layer.kernel)
        rows = kept_inputs.reshape(self.sizes[:2]).any(0)
        return {"kernel": kernel[..., rows, :][..., kept_outputs]}

    def _spread(self, small):
        """Returns what `(inputs of a group, outputs)` is of all inputs."""
        groups, inputs, outputs = self.sizes
        whole = np.zeros((groups, inputs, groups, outputs), small.dtype)
        own = small.reshape(inputs, groups, outputs)
        for group in range(groups):
            whole[group, :, group] = own[:, group]
        return whole.reshape(groups * inputs, groups * outputs)


class EqualGroups(Grouped):
    """Groups that lose equally many channels each.

    Input `i` of every group is cut with input `i` of the others, outputs
    likewise.
    """

    def ties(self):
        """Returns that channels go with those at their place in each group."""
        groups, inputs, outputs = self.sizes
        return [
            np.tile(np.arange(inputs), groups),
            np.tile(inputs + np.arange(outputs), groups),
        ]

    def slices(self):
        """Returns the rows, one for all groups, the columns and the bias."""
        inputs = np.arange(self.sizes[1])
        outputs = np.arange(self.node.outputs[0].channels)
        found = [
            Slices("kernel", -2, inputs, "reader"),
            Slices("kernel", -1, outputs, "member"),
        ]
        return found + self._bias_slices(outputs)


class WholeGroups(Grouped):
    """Groups that are cut as a whole, as those of a depthwise convolution."""

    cuts = False
    carries = True

    @property
    def why_inputs_stay(self) -> str:
        """Why no input channel can be cut, empty where it can."""
        return self.why_outputs_stay

    def ties(self):
        """Returns that all channels of a group go together."""
        groups, inputs, outputs = self.sizes
        own = np.arange(groups)
        return [np.repeat(own, inputs), np.repeat(own, outputs)]

    def slices(self):
        """Returns the columns of the kernel, and the bias."""
        outputs = np.arange(self.node.outputs[0].channels)
        kernel = Slices("kernel", -1, outputs, "member")
        return [kernel, *self._bias_slices(outputs)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer groups."""
        change = super().rewrite(kept_inputs, kept_outputs, input_constants)
        kept = kept_outputs.reshape(self.sizes[0], -1).any(1)
        config = change.config | {"groups": int(kept.sum())}
        return Rewrite(config, change.weights)
