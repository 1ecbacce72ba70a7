"""The rule of `TimeDistributed`: that of the layer in it, at every step."""

import keras

from keras_sgl0.network.copying import with_config
from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.structures.registry import find, refusal, rule
from keras_sgl0.structures.rules import Opaque, Rule
from keras_sgl0.structures.slices import Rewrite, Slices, Zeros


@rule(keras.layers.TimeDistributed)
class TimeDistributed(Rule):
    """A layer called on each step alone.

    What it does to channels is what the layer does to those of one step, whose
    tensors have one axis less.
    """

    def bind(self, node, values):
        super().bind(node, values)
        pairs = ((x, _step(x)) for x in (*node.inputs, *node.outputs))
        self._steps = dict(pairs)
        layer = self.layer.layer
        inputs = tuple(self._steps[x] for x in node.inputs)
        results = [self._steps[y] for y in node.outputs]
        masked = node.masked
        inner = Node(layer, node.path, inputs, {}, results, masked=masked)
        kind = find(layer)
        own = kind() if kind else Opaque("the type of its layer is not known")
        self._own = own.bind(inner, values)
        self.cuts = self._own.cuts
        self.needs_channels = self._own.needs_channels
        return self

    @property
    def why_inputs_stay(self) -> str:
        """Why no input channel can be cut, empty where it can."""
        return self._own.why_inputs_stay

    @property
    def why_outputs_stay(self) -> str:
        """Why no output channel can be cut, empty where it can."""
        return self._own.why_outputs_stay

    @property
    def border(self) -> bool:
        return self._own.border

    @property
    def is_linear(self) -> bool:
        """Whether the layer at every step is linear."""
        return self._own.is_linear

    @property
    def zeros_only(self) -> bool:
        """Whether it can do without a constant only where that is zero."""
        return self._own.zeros_only

    def refusal(self):
        if isinstance(self._own, Opaque):
            return self._own.reason
        if any(1 in x.axes for x in self.node.inputs):
            return "its channels are its steps"
        reason = refusal(self._own, self._own.node)
        if not reason and self._own.inner():
            return "its layer has channels inside"
        return reason

    def all_axes(self):
        """Returns the axes of the layer's outputs, after that of the steps."""
        found = self._own.all_axes()
        for y, axes in zip(self._own.node.outputs, found, strict=True):
            y.axes = axes
        return [tuple(axis + 1 for axis in axes) for axes in found]

    def ties(self):
        """Returns the ties of the layer."""
        return self._own.ties()

    def slices(self):
        """Returns the slices of the layer's variables."""
        whole = {step: x for x, step in self._steps.items()}
        return [
            Slices(
                f"layer.{own.variable}",
                own.axis,
                own.channels,
                own.role,
                whole[own.channels_of(self._own.node)],
                own.stays,
            )
            for own in self._own.slices()
        ]

    def all_constants(self, input_constants):
        """Returns the constants of the layer."""
        return self._own.all_constants(input_constants)

    def held(self, input_constants):
        """Returns what only the layer's activation keeps."""
        return self._own.held(input_constants)

    def all_needed(self, live, input_constants):
        """Returns what is needed of every output of the layer."""
        return self._own.all_needed(live, input_constants)

    def all_reads(self, live, input_constants):
        """Returns what the layer reads."""
        return self._own.all_reads(live, input_constants)

    def cut(self, kept, input_constants):
        """Returns the wrapper with a smaller layer in it."""
        own = {step: kept[x] for x, step in self._steps.items()}
        change = self._own.cut(own, input_constants)
        weights = {f"layer.{name}": w for name, w in change.weights.items()}
        config = with_config(self.layer.layer, change.config)
        zeros = change.zeros
        if zeros is not None:
            zeros = Zeros(zeros.axis + 1, zeros.number, zeros.removed)
        return Rewrite({"layer": config}, weights, zeros=zeros)


def _step(x: Tensor) -> Tensor:
    """Returns a tensor without the axis of the steps."""
    shape = (*x.shape[:1], *x.shape[2:])
    axes = tuple(max(axis - 1, 0) for axis in x.axes)
    return Tensor(keras.KerasTensor(shape, x.spec.dtype), axes)
