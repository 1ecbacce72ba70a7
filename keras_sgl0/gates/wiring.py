"""Which weights a gate rules: read off the graph the gate stands in."""

import dataclasses

import keras
from keras import ops

from keras_sgl0.groups import by_group, group_size, upcast
from keras_sgl0.network.neighbours import parents, readers
from keras_sgl0.utils.validation import require

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
# z >= 0 moves through these: f(z * x) = z * f(x).
_HOMOGENEOUS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.leaky_relu,
)


@dataclasses.dataclass(frozen=True)
class GatedWeights:
    """The weights that a gate rules, one group a gate.

    Attributes:
        layer: The convolution whose output maps, or the dense layer whose
            inputs are gated.
        axis: The kernel's axis whose every index has a gate: the last for a
            convolution `(..., cin, cout)`, the first for a dense kernel `(in,
            out)`.
        biases: Whether a group has a bias too: those of a convolution.
    """

    layer: keras.layers.Layer
    axis: int
    biases: bool

    @property
    def group_size(self) -> int:
        """The parameters one gate rules, its bias among them."""
        return group_size(self.layer.kernel.shape, self.axis) + self.biases

    def squares(self):
        """Returns the sum of the squared weights, and bias, of each group."""
        rows = by_group(self.layer.kernel, self.axis)
        squares = ops.sum(ops.square(rows), axis=1)
        if self.biases:
            squares += ops.square(upcast(self.layer.bias))
        return squares

    @property
    def can_fold(self) -> bool:
        """Whether gates may be multiplied into the weights.

        The kernel must be a weight, which one that is quantized or has LoRA is
        not. A dense layer must have no inputs but gated ones. A gate behind a
        convolution must be its only reader, and stand behind no activation
        but one with `f(z x) = z f(x)`, such as ReLU.
        """
        if all(self.layer.kernel is not v for v in self.layer.weights):
            return False
        if self.axis == 0:
            return len(parents(self.layer)) == 1
        homogeneous = self.layer.activation in _HOMOGENEOUS
        return len(readers(self.layer)) == 1 and homogeneous


def gated_by(gate: keras.layers.Layer) -> GatedWeights | None:
    """Returns the weights that a gate rules, `None` where that is not clear.

    * A gate whose only reader is a dense layer rules that layer's inputs: a
      group is a row of the kernel.
    * A gate directly behind a convolution rules its output maps: a group is
      a filter and its bias.

    Args:
        gate: A layer of a Functional or Sequential model.

    Raises:
        ValueError: If it is something else.
    """
    require(isinstance(gate, keras.layers.Layer), "gate", "a layer", gate)
    after, before = readers(gate), parents(gate)
    if len(after) == 1 and isinstance(after[0], keras.layers.Dense):
        return GatedWeights(after[0], 0, biases=False)
    if (
        len(before) == 1
        and isinstance(before[0], _CONVOLUTIONS)
        and before[0].data_format == "channels_last"
    ):
        return GatedWeights(before[0], -1, biases=before[0].use_bias)
    return None
