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

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.graph import Node, Tensor, tensors
from keras_sgl0.network.tracing import keep_whole
from keras_sgl0.utils.validation import require

Values = Callable[[keras.Variable], np.ndarray]
_RULES: dict[type | str, type["Rule"]] = {}
# What a subclass of a layer may have of its own and still be such a layer.
_HARMLESS = {"get_config", "from_config", "__init__", "__doc__", "__module__"}


Role = Literal["member", "statistic", "follower", "reader"]


class Slices(NamedTuple):
    """Which part of a variable belongs to which channel of a call.

    Args:
        variable: The layer's attribute that holds the variable, with dots
            where a layer in it has it: `"cell.kernel"`.
        axis: The axis of the variable that runs over channels, or several, in
            ascending order.
        channels: For each index of that axis, the channel of `tensor`. For
            several axes an array with as many.
        role: `"member"` for what makes a channel: all its members zero means
            that the channel is zero. `"statistic"` for what must be zero for
            that too, and is not trained. `"follower"` for what is cut with
            the channel and may have any value. `"reader"` for what reads it.
        tensor: The tensor whose channels they are: an input, an output or one
            inside the call. `None` stands for the first input where the role
            is `"reader"`, or else for the first output.
    """

    variable: str
    axis: int | tuple[int, ...]
    channels: np.ndarray
    role: Role
    tensor: Tensor | None = None

    def of(self, layer: keras.Operation) -> keras.Variable:
        """Returns the variable of a layer.

        Args:
            layer: The layer.
        """
        return variable_of(layer, self.variable)

    def channels_of(self, node: Node) -> Tensor:
        """Returns the tensor of a call whose channels they are.

        Args:
            node: The call.
        """
        if self.tensor is not None:
            return self.tensor
        return (node.inputs if self.role == "reader" else node.outputs)[0]

    def along(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Returns values of the channels, to broadcast over the variable.

        Args:
            values: One for each channel of the tensor.
            rank: The number of axes of the variable.
        """
        axes = np.atleast_1d(self.axis) % rank
        others = [i for i in range(rank) if i not in axes]
        return np.expand_dims(values[self.channels], others)

    def side(self, values: np.ndarray, rank: int) -> tuple[int, np.ndarray]:
        """Returns the one axis that values of the channels vary along.

        Args:
            values: One for each channel of the tensor.
            rank: The number of axes of the variable.

        Returns:
            The axis of the variable, and the value for each of its indices.
        """
        axes = np.atleast_1d(self.axis) % rank
        place, along = side_of(values[self.channels])
        return int(axes[place]), along


def variable_of(layer: keras.Operation, path: str) -> keras.Variable:
    """Returns a variable of a layer, or of a layer in it.

    Args:
        layer: The layer.
        path: The attribute that holds it, `"kernel"` or `"cell.kernel"`.
    """
    return operator.attrgetter(path)(layer)


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """A layer without the channels that are cut.

    Attributes:
        config: The entries of its config that change.
        weights: The values of its variables by attribute, with dots as in
            `Slices`.
        arguments: The positional and keyword arguments of its call where they
            change, with a `Tensor` for every tensor.
    """

    config: dict = dataclasses.field(default_factory=dict)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    arguments: tuple[tuple, dict] | None = None


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

    def vectors(self, role: Role, *names: str) -> list[Slices]:
        """Returns the slices of variables with one entry a channel.

        Args:
            role: Their role.
            *names: The attributes that hold them; `None` there is left out.
        """
        own = np.arange(self.node.outputs[0].channels)
        return [
            Slices(name, 0, own, role)
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


def rule(*classes: type | str) -> Callable:
    """Registers a rule for layer classes, to be used as a decorator.

    The rule holds for subclasses too, as long as they override nothing but
    their constructor and their config.

    Args:
        *classes: Layer classes, or class names of operations of `keras.ops`.

    Raises:
        ValueError: If there is no class, one is no layer class and no name, or
            what is decorated is no subclass of `Rule`.

    Example:
        >>> @ks.rule(ChannelScale)
        ... class ChannelScaleRule(ks.rules.Channelwise):
        ...     def slices(self):
        ...         return self.vectors("follower", "scale")
        >>> print(ks.check_rule(ChannelScale(), (8, 8, 6)))
    """
    known = [
        isinstance(c, str) and c.isidentifier()
        if not isinstance(c, type)
        else issubclass(c, keras.Operation)
        for c in classes
    ]
    require(
        known and all(known),
        "classes",
        "layer classes, or class names of operations",
        classes,
    )

    def register(kind):
        require(
            isinstance(kind, type) and issubclass(kind, Rule),
            "kind",
            "a subclass of `Rule`",
            kind,
        )
        _RULES.update(dict.fromkeys(classes, kind))
        keep_whole(*(c for c in classes if isinstance(c, type)))
        return kind

    return register


def rule_for(node: Node, values: Values) -> Rule:
    """Returns the rule for a call, `Opaque` where there is none.

    Args:
        node: The call, the axes of its inputs being set.
        values: Gives the values of a variable.
    """
    kind = find(node.operation)
    if kind is None:
        reason = node.reason or "its type is not known"
        return Opaque(reason).bind(node, values)
    found = kind().bind(node, values)
    reason = refusal(found, node)
    if reason:
        node.inner = []
        return Opaque(reason).bind(node, values)
    node.inner = node.inner or found.inner()
    return found


def refusal(found: Rule, node: Node) -> str:
    """Returns why a call stays whole, empty if its rule covers it.

    Args:
        found: The rule, bound to the call.
        node: The call.
    """
    vague = any(
        x.rank < 2 or None in [x.shape[axis] for axis in x.axes]
        for x in found.data
    )
    spread = any(len(x.axes) > 1 for x in node.inputs)
    if node.kwargs.get("training") and not found.any_mode:
        return "it is called with `training=True`"
    if found.needs_channels and vague:
        return "its input has no known channels"
    if spread and not found.several_axes:
        return "the channels of its input run over several axes"
    if found.masks and not found.takes_mask:
        return "it has a mask"
    return found.refusal()


def find(operation: keras.Operation) -> type[Rule] | None:
    """Returns the rule registered for the type of an operation.

    Args:
        operation: A layer or another operation.
    """
    if not isinstance(operation, keras.layers.Layer):
        return _RULES.get(type(operation).__name__)
    line = type(operation).__mro__
    for i, known in enumerate(line):
        if known in _RULES:
            own = {name for c in line[:i] for name in vars(c)}
            altered = own & (set(dir(known)) - _HARMLESS)
            return None if altered else _RULES[known]
    return None


def side_of(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the one axis that values vary along, and the values there.

    Channels over several axes are cut along one of them.

    Args:
        values: An array of one axis or more. If all are equal, it is the first.
    """
    places = range(values.ndim)
    for place in places:
        others = tuple(i for i in places if i != place)
        least = values.min(others, keepdims=True)
        if (values == least).all():
            return place, least.ravel()
    raise AssertionError("The values vary along several axes.")


def sides(flags: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Returns which indices of each channel axis stay.

    What is cut of channels over several axes is whole slices along one axis.

    Args:
        flags: For each channel whether it stays.
        sizes: The sizes of the axes.
    """
    grid = flags.reshape(sizes)
    rows = (
        np.moveaxis(grid, place, 0).reshape(size, -1)
        for place, size in enumerate(sizes)
    )
    return [np.asarray(own.any(1)) for own in rows]


_ELEMENTWISE = (
    "abs arcsinh arctan celu cos cosh elu erf exp expm1 exponential gelu "
    "hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log1p "
    "log_sigmoid mish relu relu6 selu sigmoid silu sin sinh soft_shrink "
    "softplus softsign sparse_plus sparse_sigmoid sqrt square squareplus tanh "
    "tanh_shrink threshold"
).split()
_ACTIVATIONS = {
    getattr(module, name)
    for module in (keras.activations, ops)
    for name in _ELEMENTWISE
    if hasattr(module, name)
}


_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
# The functions of these have the names of Keras's, as `tf.nn.relu`.
_BACKENDS = ("tensorflow", "jax", "torch")


def is_elementwise(activation: Callable) -> bool:
    """Returns whether an activation is known to treat each entry alone.

    Args:
        activation: A function of a tensor, or a layer.
    """
    own: Any = activation
    if type(own) is keras.layers.Activation:
        own = own.activation
    try:
        known = own in _ACTIVATIONS
    except TypeError:
        known = False
    package = str(getattr(own, "__module__", "")).partition(".")[0]
    name = getattr(own, "__name__", "")
    of_backend = package in _BACKENDS and name in (*_ELEMENTWISE, "swish")
    return known or of_backend or type(own) in _LAYERS


def evaluate(
    function: Callable, *arguments: np.ndarray, dtype: str = "float32"
) -> np.ndarray:
    """Returns a function of constants, NaN where one of them is unknown.

    Args:
        function: Takes and returns tensors of the shape `(1, channels)`.
        arguments: The constants, vectors with NaN for unknown.
        dtype: What to compute in.
    """
    unknown = np.isnan(np.sum(np.broadcast_arrays(*arguments), axis=0))
    if unknown.all():
        return np.full(unknown.shape, np.nan)
    known = [np.nan_to_num(x, nan=1.0)[None] for x in arguments]
    known = [ops.convert_to_tensor(x, dtype) for x in known]
    result = ops.convert_to_numpy(ops.cast(function(*known), dtype))
    result = result.reshape(-1)  # a constant of more axes adds some in front
    return finite(np.where(unknown, np.nan, result))


def finite(values: np.ndarray) -> np.ndarray:
    """Returns constants with NaN for infinity, which must not be folded.

    Args:
        values: The constants.
    """
    return np.where(np.isfinite(values), values, np.nan).astype("float64")
