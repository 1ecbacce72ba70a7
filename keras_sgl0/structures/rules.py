"""What a call of a layer does to channels: one small rule per layer type.

A rule answers five questions, channel by channel: which outputs are the same
number for every example and position (`constants`), which inputs a change of
the outputs can come from (`reads`), which channels of inputs and outputs can
only be cut together (`ties`), which parts of the layer's variables belong to a
channel (`slices`), and what the layer looks like without the channels that are
cut (`rewrite`). A rule is registered for a layer class, and
holds for its subclasses as long as they do not override any of its methods.
What has no rule, or is used in a way that its rule does not cover, is `Opaque`.
"""

from collections.abc import Callable, Mapping

import keras
import numpy as np

from keras_sgl0.network.graph import Node, Tensor, tensors
from keras_sgl0.structures.slices import Rewrite, Role, Slices

Values = Callable[[keras.Variable], np.ndarray]


class Rule:
    """What one call does to channels; the base of all rules.

    A rule for one output answers by `axes`, `constants`, `reads` and
    `rewrite`. A rule for several outputs, or with channels inside the call,
    overrides `inner` and what these are asked by: `all_axes`, `all_constants`,
    `all_needed`, `all_reads` and `cut`.
    """

    cuts = False
    """Whether outputs can be cut on their own: the layer makes channels."""
    narrows = False
    """Whether outputs have a part of the channels, of which one must stay."""
    carries = False
    """Whether an output is there only if the inputs tied to it are."""
    several_axes = False
    """Whether the channels of the inputs may run over several axes."""
    any_mode = False
    """Whether the layer does in training what it does at inference."""
    is_entrywise = False
    """Whether each entry of the output depends on that entry alone."""
    takes_mask = False
    """Whether the call may have a mask, one flag for each position."""
    needs_channels = True
    """Whether the inputs must have channels, a known number of them."""
    kernels_apart = False
    """Whether each kernel that reads an input reads the input itself.

    Otherwise the second reads what the first makes of it.
    """

    @property
    def why_inputs_stay(self) -> str:
        """Why no input channel can be cut, empty where it can."""
        return ""

    @property
    def why_outputs_stay(self) -> str:
        """Why no output channel can be cut, empty where it can."""
        return ""

    @property
    def border(self) -> bool:
        """Whether the inputs meet zeros at the border."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether one map of all outputs can be taken into the weights.

        The outputs are then sums of the member slices, each with the same
        factors for all slices.
        """
        return False

    @property
    def zeros_only(self) -> bool:
        """Whether it can do without a constant only where that is zero."""
        return False

    @property
    def why_constants_stay(self) -> str:
        """Why a constant that the call sees as none cannot be cut."""
        if self.zeros_only:
            return f"its constant, not zero, counts in `{self.node.path}`"
        return f"its constant meets the zeros around `{self.node.path}`"

    def bind(self, node: Node, values: Values) -> "Rule":
        """Returns the rule, applied to one call.

        Args:
            node: The call. The axes of its inputs are set, those of its
                outputs are not.
            values: Gives the values of a variable, with zeros for what counts
                as zero.
        """
        self.node = node
        self.layer = node.operation
        self.values = values
        return self

    def refusal(self) -> str:
        """Returns why the rule does not cover this call, empty if it does."""
        if len(self.data) != 1 or len(self.node.outputs) != 1:
            return "several inputs or outputs"
        return ""

    @property
    def masks(self) -> list[Tensor]:
        """The masks among the inputs of a layer."""
        is_layer = isinstance(self.layer, keras.layers.Layer)
        return tensors(self.node.kwargs.get("mask")) if is_layer else []

    @property
    def data(self) -> list[Tensor]:
        """The inputs that are no masks."""
        return [x for x in self.node.inputs if x not in self.masks]

    def fixed_inputs(self) -> list[Tensor]:
        """Returns the inputs of which all channels stay, such as masks."""
        return self.masks

    def axes(self) -> tuple[int, ...]:
        """Returns the channel axes of the output."""
        return self.node.inputs[0].axes

    def all_axes(self) -> list[tuple[int, ...]]:
        """Returns the channel axes of every output."""
        return [self.axes()]

    def inner(self) -> list[Tensor]:
        """Returns new tensors for the channels inside the call."""
        return []

    def ties(self) -> list[np.ndarray | None] | None:
        """Returns which channels can only be cut together.

        One vector for each input, then each output, then what is inside the
        call: channels with the same number are cut together. `None` stands for
        a tensor without ties.
        """
        return None

    def slices(self) -> list[Slices]:
        """Returns which parts of the variables belong to which channels.

        A variable may have two of them, as the outputs and the inputs of a
        kernel. What is in none of them stays with the layer.
        """
        return []

    def read_back(self) -> list[Tensor]:
        """Returns the outputs that the layer itself reads, step by step."""
        found = {
            own.channels_of(self.node): None
            for own in self.slices()
            if own.role == "reader"
        }
        return [y for y in self.node.made if y in found]

    def constants(self, input_constants: list[np.ndarray]) -> np.ndarray:
        """Returns the constant of every output channel, NaN for none.

        Args:
            input_constants: The constants of the input channels, NaN for none.
        """
        raise NotImplementedError

    def all_constants(
        self, input_constants: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns the constants of every output, then of what is inside.

        Args:
            input_constants: The constants of the input channels, NaN for none.
        """
        return [self.constants(input_constants)]

    def held(self, input_constants: list[np.ndarray]) -> np.ndarray:
        """Returns which outputs only the activation keeps from being constant.

        Args:
            input_constants: The constants of the input channels, NaN for none.
        """
        return np.zeros(self.node.outputs[0].channels, bool)

    def needed(
        self, live: np.ndarray, input_constants: list[np.ndarray]
    ) -> np.ndarray:
        """Returns which outputs the live ones depend on, themselves included.

        More than themselves only where a layer reads its own outputs, step by
        step, as recurrent layers do.

        Args:
            live: Which output channels are read and not constant.
            input_constants: The constants of the input channels, NaN for none.
        """
        return live

    def all_needed(
        self, live: list[np.ndarray], input_constants: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns what is needed of every output.

        Args:
            live: For each output, which channels are needed and not constant.
            input_constants: The constants of the input channels, NaN for none.
        """
        if len(live) > 1:
            return live
        return [self.needed(own, input_constants) for own in live]

    def reads(
        self, live: np.ndarray, input_constants: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns, for each input, which channels the live outputs depend on.

        Args:
            live: Which output channels are needed and not constant.
            input_constants: The constants of the input channels, NaN for none.
        """
        raise NotImplementedError

    def all_reads(
        self, live: list[np.ndarray], input_constants: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns what is read of every input, then of what is inside.

        Args:
            live: For each output, which channels are needed and not constant.
            input_constants: The constants of the input channels, NaN for none.
        """
        return self.reads(live[0], input_constants)

    def rewrite(
        self,
        kept_inputs: list[np.ndarray],
        kept_outputs: np.ndarray,
        input_constants: list[np.ndarray],
    ) -> Rewrite:
        """Returns the layer without the channels that are cut.

        Args:
            kept_inputs: For each input, which channels stay.
            kept_outputs: Which output channels stay.
            input_constants: The constants of the input channels, NaN for none.
        """
        return Rewrite()

    def cut(
        self,
        kept: Mapping[Tensor, np.ndarray],
        input_constants: list[np.ndarray],
    ) -> Rewrite:
        """Returns the layer without the channels that are cut.

        Args:
            kept: For each tensor of the call, which channels stay.
            input_constants: The constants of the input channels, NaN for none.
        """
        inputs = [kept[x] for x in self.node.inputs]
        return self.rewrite(inputs, kept[self.node.outputs[0]], input_constants)


class Opaque(Rule):
    """A call of which nothing is known: it reads all and stays as it is.

    Args:
        reason: Why it stays whole.
    """

    def __init__(self, reason: str):
        self.reason = reason

    @property
    def why_inputs_stay(self) -> str:
        """Why no input channel can be cut."""
        path, kind = self.node.path, self.node.type
        return f"`{path}` ({kind}) stays whole: {self.reason}"

    why_outputs_stay = why_inputs_stay

    def refusal(self):
        """Returns an empty string, as it covers every call."""
        return ""

    def reads(self, live, input_constants):
        """Returns that every channel of every input is read."""
        return [np.ones(x.channels, bool) for x in self.node.inputs]


class Channelwise(Rule):
    """Channel `i` of the output comes from channel `i` of each input alone.

    By itself this is the rule of layers that leave a constant as it is:
    pooling, dropout, upsampling, cropping.
    """

    carries = True
    data_format: str | None = None
    """Where the channels are, for a layer that does not say so."""

    def refusal(self):
        own = getattr(self.layer, "data_format", self.data_format)
        x = self.node.inputs[0]
        axes = {"channels_last": x.rank - 1, "channels_first": 1}
        if own is not None and x.axis != axes[own]:
            return f"its channels are not where those of its input are ({own})"
        noise = getattr(self.layer, "noise_shape", None)
        if noise is not None and noise[x.axis] not in (None, 1):
            return "the number of channels is in its `noise_shape`"
        return super().refusal()

    def ties(self):
        """Returns that all channels of one number are cut together."""
        own = np.arange(self.node.inputs[0].channels)
        inputs = self.node.inputs
        return [*(None if x in self.masks else own for x in inputs), own]

    def constants(self, input_constants):
        return input_constants[0]

    def vectors(
        self, role: Role, *names: str, stays: bool = False
    ) -> list[Slices]:
        """Returns the slices of variables with one entry a channel.

        Args:
            role: Their role.
            *names: The attributes that hold them; `None` there is left out.
            stays: Whether they are as long without a channel.
        """
        own = np.arange(self.node.outputs[0].channels)
        return [
            Slices(name, 0, own, role, stays=stays)
            for name in names
            if getattr(self.layer, name, None) is not None
        ]

    def reads(self, live, input_constants):
        """Returns that the channels of the live outputs are read."""
        *inputs, output = self.ties()
        every = [own for own in (*inputs, output) if own is not None]
        wanted = np.zeros(1 + max(own.max() for own in every), bool)
        wanted[output[live]] = True
        return [
            np.ones(x.channels, bool) if own is None else wanted[own]
            for x, own in zip(self.node.inputs, inputs, strict=True)
        ]
