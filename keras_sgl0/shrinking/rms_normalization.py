"""An equal model with `RMSNormalization` for `LayerNormalization`."""

from typing import NoReturn

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.graph import Graph, Node, Tensor, tensors
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.discovery import find_rules
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.rules import Opaque, Rule
from keras_sgl0.utils.validation import InputError, require

# What is the same linear function of every channel, in training up to noise.
_PASSES = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Concatenate,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)
_OPERATIONS = (
    "Add Subtract Negative Multiply Divide TrueDivide "
    "Reshape Squeeze ExpandDims Transpose GetItem"
).split()


def to_rms_normalization(model: keras.Model) -> keras.Model:
    r"""Returns an equal model with `RMSNormalization` for `LayerNormalization`.

    Layer normalization subtracts the mean over channels. So a residual stream
    that nothing else reads may be centred where it is written. What writes it
    is linear, and with :math:`C = I - \frac{1}{D} \mathbf{1} \mathbf{1}^T`

    .. math::
        \mathrm{LN}\left(\sum_i x_i W_i + b_i\right) =
        \gamma \, \mathrm{RMS}\left(\sum_i x_i W_i C + b_i C\right) + \beta

    Of the centred stream the mean of squares is the variance. Use it before
    training: from then on the width of the stream is a family of structures,
    which penalties, targets and `shrink` can make smaller with all that reads
    it. Layer normalization keeps its size, and is given zeros for the rest.

    Each `LayerNormalization` becomes an `RMSNormalization` with gamma as its
    scale and, if there is a beta, an `EinsumDense` that adds it. The last of
    them has the layer's name. The outputs are the same up to rounding. In
    training they differ as far as dropout on the stream moves its mean.
    Penalties on gamma and beta are left out.

    The result is Functional, models in it are unfolded. It is not compiled and
    shares no weights with `model`, which is not changed; but a layer that
    cannot be made from its config, such as a `Lambda` that calls
    TensorFlow, is in both models.

    Args:
        model: A built model in which layer normalizations read a stream that
            dense layers, convolutions, embeddings and attentions write: a
            pre-norm transformer. The last of them may be in front of the head.

    Returns:
        The model.

    Raises:
        ValueError: If the model is not built or cannot be traced, has no layer
            normalization, or if one of them reads what another layer reads, or
            what is not written linearly. The message names the layer.

    Example:
        >>> model = to_rms_normalization(vit)
        >>> print(structures(model))

    Reference:
        Ashkboos et al., SliceGPT: Compress large language models by deleting
        rows and columns, 2024, section 3.1.
    """
    graph = trace(model)
    rules = find_rules(graph)
    norms = [n for n in graph.nodes if _is_norm(n)]
    require(norms, "model", "a model with a `LayerNormalization`", model)
    for node in graph.nodes:
        layer = node.operation
        masks = isinstance(layer, keras.layers.Masking)
        if masks or getattr(layer, "mask_zero", False):
            _refuse(node.path, "makes a mask, which `RMSNormalization` drops")
    streams = _Streams(graph, rules, norms)
    copy = _Centred(graph, norms, streams, model)
    for node in copy.shared:
        if any(id(v) in streams.centred for v in node.operation.weights):
            _refuse(node.path, "cannot be made from its config")
    return copy.model


def _is_norm(node: Node) -> bool:
    return isinstance(node.operation, keras.layers.LayerNormalization)


class _Streams:
    """The tensors that layer normalizations read, and what writes them.

    Args:
        graph: The calls of a model.
        rules: The rule of every call.
        norms: The calls of layer normalizations.

    Attributes:
        centred: The values of the variables that write them, by `id`.
    """

    def __init__(self, graph: Graph, rules: dict[Node, Rule], norms):
        self._rules = rules
        self._maker = {y: node for node in graph.nodes for y in node.outputs}
        self._readers: dict[Tensor, list[Node]] = {}
        for node in graph.nodes:
            for x in node.inputs:
                self._readers.setdefault(x, []).append(node)
        self._outputs = set(tensors(graph.outputs))
        self._known: set[Tensor] = set()
        writers: dict[int, Node] = {}
        for norm in norms:
            self._require_norm(norm)
            waiting = list(norm.inputs)
            while waiting:
                x = waiting.pop()
                if x not in self._known:
                    self._known.add(x)
                    waiting += self._before(x, norm, writers)
                    waiting += self._behind(x, norm)
        calls = graph.by_operation()
        for key, node in writers.items():
            for other in calls[key]:
                if not self._known.issuperset(other.outputs):
                    _refuse(node.path, "is called elsewhere, too")
        self.centred = dict(
            pair for node in writers.values() for pair in self._centre(node)
        )

    def _require_norm(self, norm):
        rule = self._rules[norm]
        if isinstance(rule, Opaque):
            _refuse(norm.path, f"stays as it is: {rule.reason}")
        if norm.inputs[0].axis != norm.inputs[0].rank - 1:
            _refuse(norm.path, "does not normalize the last axis")

    def _before(self, x, norm, writers) -> list[Tensor]:
        """Returns what of the stream a tensor comes from."""
        node = self._maker.get(x)
        if node is None:
            _refuse(norm.path, f"reads `{x.spec.name}`, an input of the model")
        if self._passes(node):
            return node.inputs
        if _is_norm(node):
            _refuse(
                norm.path, f"reads what `{node.path}` normalizes: post-norm"
            )
        if not self._rules[node].is_linear:
            _refuse(norm.path, f"reads `{node.path}`, which is not linear")
        writers[id(node.operation)] = node
        return []

    def _behind(self, x, norm) -> list[Tensor]:
        """Returns what of the stream comes from a tensor."""
        if x in self._outputs:
            _refuse(norm.path, "reads an output of the model")
        found = []
        for node in self._readers.get(x, ()):
            if self._passes(node):
                found += node.outputs
            elif not _is_norm(node):
                _refuse(norm.path, f"reads what `{node.path}` reads, too")
        return found

    def _passes(self, node) -> bool:
        """Returns whether a call hands a stream on."""
        known = isinstance(node.operation, _PASSES) or (
            not isinstance(node.operation, keras.layers.Layer)
            and node.type in _OPERATIONS
            and _is_scaled(node)
        )
        every = [*node.inputs, *node.outputs]
        same = len({x.channels for x in every}) == 1
        alone = all(x.axis is not None for x in every)
        whole = isinstance(self._rules[node], Opaque)
        return known and same and alone and not whole

    def _centre(self, node):
        """Yields the variables that make the outputs, without their mean."""
        for own in self._rules[node].slices():
            if own.role == "member" and own.channels_of(node) in node.outputs:
                variable = own.of(node.operation)
                value = ops.convert_to_numpy(ops.cast(variable, "float64"))
                yield id(variable), value - value.mean(own.axis, keepdims=True)


class _Centred(FlatCopy):
    """A copy with other values of some variables and other normalizations.

    Args:
        graph: The calls of a model.
        norms: The calls of layer normalizations.
        streams: What they read.
        model: The model.
    """

    def __init__(self, graph, norms, streams, model):
        self._norms = {id(node.operation) for node in norms}
        self._streams = streams
        self._pairs: dict[int, list[keras.layers.Layer]] = {}
        super().__init__(graph, model.name)

    def value(self, variable):
        """Returns the value, centred if it writes a stream."""
        own = self._streams.centred.get(id(variable))
        return super().value(variable) if own is None else own

    def _call(self, node, made):
        """Calls a normalization without a mean, and then adds beta."""
        key = id(node.operation)
        if key not in self._norms:
            return super()._call(node, made)
        x = made[node.inputs[0]]
        if key not in self._pairs:
            self._pairs[key] = self._make(node, x)
        for layer in self._pairs[key]:
            x = layer(x)
        self.layers[node] = layer
        return x

    def _make(self, node, x) -> list[keras.layers.Layer]:
        """Returns the layers that do what one of the model does."""
        old, channels = node.operation, x.shape[-1]
        options = {"dtype": old.dtype_policy, "trainable": old.trainable}
        name = self._name(node)
        self._names.add(name)
        if old.beta is None:
            own = name
        else:
            own = self.unused(f"{name}_rms")
            self._names.add(own)
        norm = keras.layers.RMSNormalization(
            epsilon=old.epsilon, name=own, **options
        )
        norm.build(x.shape)
        if old.gamma is not None:
            norm.scale.assign(ops.convert_to_numpy(old.gamma))
        if old.beta is None:
            return [norm]
        shift = keras.layers.EinsumDense(
            "...c,c->...c", (channels,), bias_axes="c", name=name, **options
        )
        shift.build(x.shape)
        shift.kernel.assign(np.ones(channels))
        shift.bias.assign(ops.convert_to_numpy(old.beta))
        return [norm, shift]


def _is_scaled(node: Node) -> bool:
    """Returns whether an operation is a sum of tensors, or one times a number.

    A number that is added would have to be centred, too.
    """
    if node.type in ("Add", "Subtract"):
        return len(node.inputs) == 2
    if node.type == "Multiply":
        return len(node.inputs) == 1
    if node.type in ("Divide", "TrueDivide"):
        return len(node.inputs) == 1 and node.args[0] is node.inputs[0]
    return True


def _refuse(norm: str, why: str) -> NoReturn:
    raise InputError(
        "Invalid value for argument `model`. Expected layer normalizations "
        "that alone read what is written linearly. Received: a model in which "
        f"`{norm}` {why}"
    )
