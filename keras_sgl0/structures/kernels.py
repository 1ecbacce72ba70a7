"""The rules of the layers that have kernels: they mix and make channels."""

import functools
from collections.abc import Sequence

import keras
import numpy as np

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.activations import evaluate, is_elementwise
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise, Rule
from keras_sgl0.structures.slices import Rewrite, Slices


class Kernel(Rule):
    """A layer whose outputs are sums over its inputs, then an activation."""

    size = "filters"
    """The entry of the config that holds the number of outputs."""
    input_axis = -2
    """The axis of the kernel that runs over input channels."""
    output_axis = -1
    """The axis of the kernel that runs over output channels."""
    cuts = True

    @property
    def why_outputs_stay(self) -> str:
        """Why no output can be cut, empty where it can."""
        return mixing(self.node)

    @property
    def is_linear(self) -> bool:
        """Whether it has no activation."""
        return self.layer.activation in (None, keras.activations.linear)

    def refusal(self):
        if is_altered(self.layer):
            return "its kernel is quantized or adapted (LoRA)"
        if getattr(self.layer.activation, "weights", ()):
            return "its activation has weights"
        if self.node.inputs[0].axes != self.input_axes():
            return "its channels are not at the channel axis of its input"
        return super().refusal()

    def axes(self):
        """Returns the channel axis of the layer."""
        first = getattr(self.layer, "data_format", "") == "channels_first"
        return (1 if first else self.node.inputs[0].rank - 1,)

    def input_axes(self) -> tuple[int, ...]:
        """Returns where the channels of the input must be."""
        return self.axes()

    @property
    def border(self) -> bool:
        x = self.node.inputs[0]
        sizes = [n for i, n in enumerate(x.shape) if i not in (0, x.axis)]
        return is_padded(self.layer, sizes)

    def kernel(self) -> np.ndarray:
        """Returns the kernel as `(positions, inputs, outputs)`."""
        kernel = self.values(self.layer.kernel)
        return kernel.reshape(-1, *kernel.shape[-2:])

    def total(self, rows: np.ndarray) -> np.ndarray:
        """Returns, for some inputs, the sum of the kernel over positions.

        Args:
            rows: Which inputs.
        """
        return self.kernel()[:, rows].sum(0, dtype="float64")

    @functools.cached_property
    def links(self) -> np.ndarray:
        """Which input reaches which output, a matrix."""
        return np.asarray(self.kernel().any(0))

    def constants(self, input_constants):
        """Returns what the outputs make of constants alone."""
        sums = self._sums(input_constants[0])
        if self.why_outputs_stay:
            return np.full_like(sums, np.nan)
        return evaluate(
            self.layer.activation, sums, dtype=wide_dtype(self.layer)
        )

    def held(self, input_constants):
        """Returns which sums are constant, if the activation mixes them."""
        sums = self._sums(input_constants[0])
        return ~np.isnan(sums) & bool(self.why_outputs_stay)

    def reads(self, live, input_constants):
        """Returns which inputs reach a live output."""
        live = live.any() if self.why_outputs_stay else live
        return [(self.links & live).any(1)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with a smaller kernel and the constants folded."""
        folded = self._fold(~kept_inputs[0], input_constants[0])
        has_bias = self.layer.use_bias or folded.any()
        weights = self.smaller(kept_inputs[0], kept_outputs)
        if has_bias:
            weights["bias"] = (self._bias() + folded)[kept_outputs]
        config = {
            self.size: int(kept_outputs.sum()),
            "use_bias": bool(has_bias),
        }
        return Rewrite(config, weights)

    def slices(self):
        """Returns the rows and columns of the kernel, and the bias."""
        inputs = np.arange(self.node.inputs[0].channels)
        outputs = np.arange(self.node.outputs[0].channels)
        found = [
            Slices("kernel", self.input_axis, inputs, "reader"),
            Slices("kernel", self.output_axis, outputs, "member"),
        ]
        return found + self._bias_slices(outputs)

    def smaller(
        self, kept_inputs: np.ndarray, kept_outputs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the smaller kernels by attribute.

        Args:
            kept_inputs: Which inputs stay.
            kept_outputs: Which outputs stay.
        """
        # By one index, as a step in between would take much memory.
        rows, columns = map(np.flatnonzero, (kept_inputs, kept_outputs))
        kernel = self.values(self.layer.kernel)
        return {"kernel": kernel[..., rows[:, None], columns]}

    def _bias_slices(self, outputs):
        if self.layer.bias is None:
            return []
        return [Slices("bias", 0, outputs, "member")]

    def _bias(self):
        bias = self.layer.bias
        outputs = self.links.shape[1]
        return np.zeros(outputs) if bias is None else self.values(bias)

    def _sums(self, constants):
        """Returns the constants of the outputs before the activation."""
        unknown = np.isnan(constants)
        sums = self._bias() + self._fold(~unknown, constants)
        return np.where(self.links[unknown].any(0), np.nan, sums)

    def _fold(self, which, constants):
        """Returns what constant inputs add to the sums of the outputs."""
        which = which & ~np.isnan(constants) & (constants != 0)
        return constants[which] @ self.total(which)


@rule(
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
class ConvTranspose(Kernel):
    """A transposed convolution; each output position has its own sum.

    A constant is folded as the mean over the positions far from the border.
    """

    border = True
    input_axis = -1
    output_axis = -2

    def kernel(self):
        kernel = self.values(self.layer.kernel)
        return kernel.reshape(-1, *kernel.shape[-2:]).swapaxes(1, 2)

    def total(self, rows):
        """Returns the sum of the kernel over positions, shared by strides."""
        return super().total(rows) / np.prod(self.layer.strides)

    def smaller(self, kept_inputs, kept_outputs):
        """Returns the smaller kernel."""
        kernel = self.values(self.layer.kernel)
        return {"kernel": kernel[..., kept_outputs, :][..., kept_inputs]}


@rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
class SeparableConv(Kernel):
    """A depthwise convolution, then one over channels alone."""

    def kernel(self):
        """Returns the product of both kernels, summed over positions."""
        first, second = self._pair()
        return self._product(first.sum(0, dtype="float64"), second)[None]

    def slices(self):
        """Returns the channels of both kernels, and the bias."""
        inputs = np.arange(self.node.inputs[0].channels)
        outputs = np.arange(self.node.outputs[0].channels)
        rows = np.repeat(inputs, self.layer.depth_multiplier)
        found = [
            Slices("depthwise_kernel", -2, inputs, "reader"),
            Slices("pointwise_kernel", -2, rows, "reader"),
            Slices("pointwise_kernel", -1, outputs, "member"),
        ]
        return found + self._bias_slices(outputs)

    @functools.cached_property
    def links(self):
        """Which input reaches which output, a matrix."""
        first, second = self._pair()
        flags = (first.any(0).astype("float32"), (second != 0) * np.float32(1))
        return self._product(*flags) > 0

    def smaller(self, kept_inputs, kept_outputs):
        """Returns the smaller kernels."""
        rows = np.repeat(kept_inputs, self.layer.depth_multiplier)
        pointwise = self.values(self.layer.pointwise_kernel)
        return {
            "depthwise_kernel": self.values(self.layer.depthwise_kernel)[
                ..., kept_inputs, :
            ],
            "pointwise_kernel": pointwise[..., rows, :][..., kept_outputs],
        }

    def _pair(self):
        """Returns both as `(positions, in, multiplier)`, `(in, m., out)`."""
        first = self.values(self.layer.depthwise_kernel)
        first = first.reshape(-1, *first.shape[-2:])
        second = self.values(self.layer.pointwise_kernel)
        return first, second.reshape(*first.shape[1:], -1)

    def _product(self, first, second):
        return np.einsum("cm,cmo->co", first, second)


@rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
class DepthwiseConv(Channelwise):
    """A convolution of every channel alone, into `multiplier` channels."""

    def refusal(self):
        return mixing(self.node) or super().refusal()

    def input_axes(self) -> tuple[int, ...]:
        """Returns where the channels of the input must be."""
        return self.axes()

    @property
    def border(self) -> bool:
        x = self.node.inputs[0]
        sizes = [n for i, n in enumerate(x.shape) if i not in (0, x.axis)]
        return is_padded(self.layer, sizes)

    def ties(self):
        """Returns that a channel goes with all it is turned into."""
        own = np.arange(self.node.inputs[0].channels)
        return [own, np.repeat(own, self.layer.depth_multiplier)]

    def slices(self):
        """Returns the channels of the kernel, and the bias."""
        multiplier = self.layer.depth_multiplier
        first = np.arange(self.node.inputs[0].channels) * multiplier
        kernel = Slices("kernel", -2, first, "member")
        return [kernel, *self.vectors("member", "bias")]

    def constants(self, input_constants):
        """Returns what the outputs make of constants alone."""
        kernel = self._kernel()
        given = np.repeat(input_constants[0], self.layer.depth_multiplier)
        total = kernel.sum(0, dtype="float64")
        value = np.where(kernel.any(0), given * total, 0) + self._bias()
        return evaluate(
            self.layer.activation, value, dtype=wide_dtype(self.layer)
        )

    def reads(self, live, input_constants):
        """Returns which channels reach a live output."""
        live = live & self._kernel().any(0)
        return [live.reshape(-1, self.layer.depth_multiplier).any(1)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with a smaller kernel."""
        weights = {
            "kernel": self.values(self.layer.kernel)[..., kept_inputs[0], :]
        }
        if self.layer.use_bias:
            weights["bias"] = self._bias()[kept_outputs]
        return Rewrite({}, weights)

    def _kernel(self):
        """Returns the kernel as `(positions, outputs)`."""
        kernel = self.values(self.layer.kernel)
        return kernel.reshape(-1, np.prod(kernel.shape[-2:]))

    def _bias(self):
        bias = self.layer.bias
        return 0.0 if bias is None else self.values(bias)


def mixing(node: Node) -> str:
    """Returns why outputs depend on each other, empty if they do not.

    Args:
        node: A call of a layer with an activation.
    """
    if is_elementwise(node.operation.activation):
        return ""
    return f"the activation of `{node.path}` may mix channels"


def is_altered(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer's kernel is not all that makes its outputs.

    Args:
        layer: The layer.
    """
    quantized = getattr(layer, "quantization_mode", None) is not None
    return quantized or getattr(layer, "lora_enabled", False)


def is_padded(layer: keras.layers.Layer, sizes: Sequence[int | None]) -> bool:
    """Returns whether a convolution sees zeros beyond the border.

    Args:
        layer: What holds its options.
        sizes: The sizes of the axes that it runs over.
    """
    if getattr(layer, "padding", "valid") == "valid":
        return False
    return any(
        _padding(*axis, causal=layer.padding == "causal") > 0
        for axis in zip(
            sizes,
            layer.kernel_size,
            layer.strides,
            layer.dilation_rate,
            strict=True,
        )
    )


def _padding(size, taps, stride, dilation, causal) -> int:
    """Returns how many zeros 'same' padding adds along one axis."""
    reach = (taps - 1) * dilation
    if size is None or causal:
        return reach
    last = (-(-size // stride) - 1) * stride
    return max(last + 1 + reach - size, 0)
