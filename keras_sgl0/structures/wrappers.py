"""The rules of the layers that call one other layer: they are that layer's."""

import keras
import numpy as np

from keras_sgl0.network.copying import with_config
from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.structures.registry import find, refusal, rule
from keras_sgl0.structures.rules import Opaque, Rule
from keras_sgl0.structures.slices import Rewrite, Slices, Zeros


class Wrapper(Rule):
    """A layer that does to channels what the layer in it does."""

    axes_before = 0
    """How many axes the layer in it does not see, behind that of the batch."""

    def bind(self, node, values):
        super().bind(node, values)
        tensors = (*node.inputs, *node.outputs)
        self._within = {x: self._seen(x) for x in tensors}
        layer = self.layer.layer
        inputs = tuple(self._within[x] for x in node.inputs)
        results = [self._within[y] for y in node.outputs]
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
        """Whether the layer in it is linear."""
        return self._own.is_linear

    @property
    def zeros_only(self) -> bool:
        """Whether it can do without a constant only where that is zero."""
        return self._own.zeros_only

    def refusal(self):
        if isinstance(self._own, Opaque):
            return self.node.reason or self._own.reason
        reason = refusal(self._own, self._own.node)
        if not reason and self._own.inner():
            return "its layer has channels inside"
        return reason

    def all_axes(self):
        """Returns the axes of the layer's outputs, in those of the wrapper."""
        found = self._own.all_axes()
        for y, axes in zip(self._own.node.outputs, found, strict=True):
            y.axes = axes
        return [tuple(a + self.axes_before for a in axes) for axes in found]

    def ties(self):
        """Returns the ties of the layer."""
        return self._own.ties()

    def slices(self):
        """Returns the slices of the layer's variables."""
        whole = {inner: x for x, inner in self._within.items()}
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
        own = {inner: kept[x] for x, inner in self._within.items()}
        change = self._own.cut(own, input_constants)
        weights = {f"layer.{name}": w for name, w in change.weights.items()}
        config = with_config(self.layer.layer, change.config)
        zeros = change.zeros
        if zeros is not None:
            axis = zeros.axis + self.axes_before
            zeros = Zeros(axis, zeros.number, zeros.removed)
        return Rewrite({"layer": config}, weights, zeros=zeros)

    def _seen(self, x: Tensor) -> Tensor:
        """Returns a tensor as the layer in the wrapper sees it."""
        shape = (*x.shape[:1], *x.shape[1 + self.axes_before :])
        axes = tuple(max(axis - self.axes_before, 0) for axis in x.axes)
        return Tensor(keras.KerasTensor(shape, x.spec.dtype), axes)


@rule(keras.layers.TimeDistributed)
class TimeDistributed(Wrapper):
    """A layer called on each step alone.

    A model or a block in it is unfolded instead (`network.unfolding`).
    """

    axes_before = 1

    def refusal(self):
        if any(1 in x.axes for x in self.node.inputs):
            return "its channels are its steps"
        return super().refusal()


@rule(keras.layers.SpectralNormalization)
class SpectralNormalization(Wrapper):
    """A layer whose kernel is divided by its largest singular value.

    That is done in training, to the kernel itself, so that inference is the
    layer alone. A column of the kernel that is zero has no part in it.
    """

    def refusal(self):
        kernel = getattr(self.layer.layer, "kernel", None)
        if kernel is None:
            return "its layer has no kernel"
        reason = super().refusal()
        if reason:
            return reason
        self.all_axes()  # which the slices depend on
        axes = [np.atleast_1d(own.axis) for own in self._kernel_slices()]
        if any(len(own) > 1 for own in axes):
            return "the channels of its kernel run over several axes"
        return ""

    def slices(self):
        """Returns the layer's slices, and those of the singular vector."""
        return [*super().slices(), *self._vector_slices()]

    def cut(self, kept, input_constants):
        """Returns the wrapper with a smaller layer and singular vector."""
        change = super().cut(kept, input_constants)
        for own in self._vector_slices():
            vector = self.values(self.layer.vector_u)
            kept_entries = kept[own.tensor][own.channels]
            change.weights["vector_u"] = vector[:, kept_entries]
        return change

    def _vector_slices(self):
        """Returns what belongs to the last axis of the kernel."""
        last = len(self.layer.kernel.shape) - 1
        return [
            Slices("vector_u", 1, own.channels, "follower", own.tensor)
            for own in self._kernel_slices()
            if own.axis % (last + 1) == last
        ]

    def _kernel_slices(self):
        found = super().slices()
        return [own for own in found if own.variable == "layer.kernel"]
