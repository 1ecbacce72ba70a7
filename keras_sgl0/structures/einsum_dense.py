"""The rule of `EinsumDense`, a kernel with any axes.

Every axis of the input, the kernel and the output has a letter. Letters of the
kernel that the output has not are summed over: those of the input's channels
are inputs, the others positions. Letters of kernel and output alone are
outputs. In `abc,cde->abde` the channels `c` become `d * e` channels over two
axes. In `beh,eho->beo` there is a kernel for each index of `e`, as each of
several experts has one: what has one index of `h` is cut for all of them.
"""

from typing import NamedTuple

import keras
import numpy as np

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.equations import Name, spell
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.activations import evaluate
from keras_sgl0.structures.kernels import Kernel, is_altered, mixing
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.structures.slices import Rewrite, Role, Slices, sides


class Equation(NamedTuple):
    """The names of the axes of an input, a kernel and an output.

    Args:
        x: Those of the input.
        kernel: Those of the kernel.
        y: Those of the output.
        start: The first axis of the output that `output_shape` is about.
    """

    x: list[Name]
    kernel: list[Name]
    y: list[Name]
    start: int

    @property
    def made(self) -> list[Name]:
        """The axes of the output that only the kernel has."""
        return [a for a in self.y if a in self.kernel and a not in self.x]

    @property
    def summed(self) -> list[Name]:
        """The axes that are summed over."""
        return [a for a in self.kernel if a not in self.y]

    @property
    def apart(self) -> list[Name]:
        """The axes that there is a kernel for each index of."""
        return [a for a in self.kernel if a in self.x and a in self.y]

    def output_shape(self, given, sizes: dict[Name, int]) -> list:
        """Returns the argument `output_shape` with other sizes.

        Args:
            given: What it is, a number or several.
            sizes: The new sizes by name.
        """
        before = np.atleast_1d(np.array(given, object)).tolist()
        after = self.y[self.start : self.start + len(before)]
        pairs = zip(after, before, strict=True)
        return [sizes.get(name, n) for name, n in pairs]


def equation_of(node: Node) -> Equation:
    """Returns the names of the axes of a call.

    Args:
        node: A call of an `EinsumDense`.
    """
    equation = node.operation.equation
    operands, y = equation.split("->")
    x, kernel = operands.split(",")
    rank = node.inputs[0].rank
    hidden = rank - len(x.replace("...", ""))
    return Equation(
        spell(x, rank),
        list(kernel),
        spell(y, node.outputs[0].rank),
        max(hidden, 1) if x.startswith(".") else 1,
    )


@rule(keras.layers.EinsumDense)
class EinsumDense(Kernel):
    """A sum over any axes."""

    several_axes = True

    def bind(self, node, values):
        """Returns the rule, `Scaling` for `...c,c->...c`."""
        super().bind(node, values)
        self.names = equation_of(node)
        if len(self.names.kernel) == 1 and not self.names.summed:
            return Scaling().bind(node, values)
        return self

    def refusal(self):
        own, bias_axes = self.names, self.layer.get_config()["bias_axes"]
        inward = [*own.summed, *(a for a in own.x if a in own.y)]
        if own.x[0] != own.y[0] or set(own.x) != set(inward):
            return "it sums over an axis without a kernel"
        if not own.made:
            return "it makes no channels"
        if bias_axes is not None and set(bias_axes) != set(own.made):
            return "its bias is not that of its channels"
        return super().refusal()

    def axes(self):
        """Returns the axes that only the kernel has."""
        return tuple(self.names.y.index(a) for a in self.names.made)

    def input_axes(self):
        """Returns the channel axes of the input if it sums over them."""
        axes, own = self.node.inputs[0].axes, self.names
        channels = {own.x[i] for i in axes}
        known = channels <= {*own.summed, *own.apart}
        return axes if known and channels & set(own.summed) else ()

    @property
    def is_linear(self) -> bool:
        """Whether all outputs are made by one kernel, without activation."""
        return super().is_linear and not self.names.apart

    @property
    def zeros_only(self) -> bool:
        """Whether a constant would give each index another one."""
        return bool(self.names.apart)

    def ties(self):
        """Returns that the inputs of all kernels go together."""
        own = [a in self.names.apart for a in self.inputs]
        if not any(own):
            return None
        x = self.node.inputs[0]
        sizes = [
            1 if apart else n for n, apart in zip(x.sizes, own, strict=True)
        ]
        numbers = np.arange(np.prod(sizes, dtype=int)).reshape(sizes)
        return [np.broadcast_to(numbers, x.sizes).ravel(), None]

    @property
    def inputs(self) -> list[Name]:
        """The names of the channel axes of the input."""
        return [self.names.x[i] for i in self.node.inputs[0].axes]

    def kernel(self):
        """Returns the kernel as `(positions, inputs, outputs)`."""
        inner = {*self.inputs, *self.names.made}
        outer = [a for a in self.names.kernel if a not in inner]
        order = [*outer, *self.inputs, *self.names.made]
        kernel = self.values(self.layer.kernel)
        moved = kernel.transpose([self.names.kernel.index(a) for a in order])
        x, y = self.node.inputs[0], self.node.outputs[0]
        return moved.reshape(-1, x.channels, y.channels)

    def slices(self):
        """Returns the slices of the kernel, and the bias."""
        x, y, own = self.node.inputs[0], self.node.outputs[0], self.names
        found = [
            _slices("kernel", own.kernel, self.inputs, x.sizes, "reader"),
            _slices("kernel", own.kernel, own.made, y.sizes, "member"),
        ]
        if self.layer.bias is not None:
            names = own.y[-len(self.layer.bias.shape) :]
            found.append(_slices("bias", names, own.made, y.sizes, "member"))
        return found

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with a smaller kernel and the constants folded."""
        x, y, own = self.node.inputs[0], self.node.outputs[0], self.names
        rows = dict(
            zip(self.inputs, sides(kept_inputs[0], x.sizes), strict=True)
        )
        made = dict(zip(own.made, sides(kept_outputs, y.sizes), strict=True))
        kernel = self.values(self.layer.kernel)
        weights = {"kernel": _compress(kernel, own.kernel, rows | made)}
        config = self.layer.get_config()
        sizes = {name: int(kept.sum()) for name, kept in made.items()}
        changes: dict[str, object] = {
            "output_shape": own.output_shape(config["output_shape"], sizes)
        }
        folded = self._fold(~kept_inputs[0], input_constants[0])
        if self.layer.bias is not None or folded.any():
            # From the first axis that it has to the last of the output.
            names = own.y[y.axes[0] :]
            shape = [y.shape[i] if i in y.axes else 1 for i in range(y.rank)]
            bias = (self._bias() + folded).reshape(shape[y.axes[0] :])
            weights["bias"] = _compress(bias, names, made)
            changes["bias_axes"] = "".join(map(str, own.made))
        return Rewrite(changes, weights)

    def _bias(self):
        return super()._bias().reshape(-1)


def _slices(variable, names, channel_names, sizes, role: Role) -> Slices:
    """Returns the slices of a variable along the axes of channels."""
    axes = [i for i, name in enumerate(names) if name in channel_names]
    order = [channel_names.index(names[i]) for i in axes]
    channels = np.arange(np.prod(sizes, dtype=int)).reshape(sizes)
    axis = axes[0] if len(axes) == 1 else tuple(axes)
    return Slices(variable, axis, channels.transpose(order), role)


def _compress(values, names, kept) -> np.ndarray:
    """Returns an array without the indices that go, along named axes."""
    for axis, name in enumerate(names):
        if name in kept:
            values = np.compress(kept[name], values, axis)
    return values


class Scaling(Channelwise):
    """A factor for every channel, as in `...c,c->...c`."""

    def bind(self, node, values):
        """Returns the rule, applied to one call."""
        super().bind(node, values)
        self.names = equation_of(node)
        return self

    def refusal(self):
        own, bias = self.names, self.layer.bias
        if is_altered(self.layer):
            return "its kernel is quantized or adapted (LoRA)"
        x = self.node.inputs[0]
        if own.x != own.y or own.x[x.axes[0]] != own.kernel[0]:
            return "it does not scale channels"
        if bias is not None and tuple(bias.shape) != (x.channels,):
            return "its bias is not that of its channels"
        return mixing(self.node) or super().refusal()

    def slices(self):
        """Returns the factors and the bias."""
        return self.vectors("member", "kernel", "bias")

    def constants(self, input_constants):
        """Returns the value of the line, its bias where the factor is 0."""
        kernel = self.values(self.layer.kernel)
        value = np.where(kernel == 0, 0, kernel * input_constants[0])
        if self.layer.bias is not None:
            value = value + self.values(self.layer.bias)
        return evaluate(
            self.layer.activation, value, dtype=wide_dtype(self.layer)
        )

    def reads(self, live, input_constants):
        """Returns that the live channels with a factor are read."""
        return [live & (self.values(self.layer.kernel) != 0)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer factors."""
        given = self.layer.get_config()["output_shape"]
        sizes = {self.names.kernel[0]: int(kept_outputs.sum())}
        return Rewrite(
            {"output_shape": self.names.output_shape(given, sizes)},
            {
                name: self.values(getattr(self.layer, name))[kept_outputs]
                for name in ("kernel", "bias")
                if getattr(self.layer, name) is not None
            },
        )
