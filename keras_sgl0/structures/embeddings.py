"""The rules of tables of tokens."""

import keras
import numpy as np

from keras_sgl0.network.positions import is_reversed
from keras_sgl0.structures.kernels import is_altered
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.reshaping import OffChannels
from keras_sgl0.structures.rules import Channelwise, Rule
from keras_sgl0.structures.slices import Rewrite, Slices


@rule(keras.layers.Embedding)
class Embedding(Rule):
    """A table of tokens; a column of equal numbers is a constant."""

    cuts = True
    needs_channels = False

    @property
    def is_linear(self) -> bool:
        """Whether the outputs are rows of the table."""
        return True

    def refusal(self):
        if is_altered(self.layer):
            return "its table is quantized or adapted (LoRA)"
        return super().refusal()

    def axes(self):
        """Returns the last axis."""
        return (self.node.outputs[0].rank - 1,)

    def slices(self):
        """Returns the columns of the table, none of a single number."""
        if len(self.layer.embeddings.shape) == 0:
            return []
        outputs = np.arange(self.node.outputs[0].channels)
        return [Slices("embeddings", -1, outputs, "member")]

    def constants(self, input_constants):
        """Returns the entry that all tokens share."""
        table = self._rows()
        same = (table == table[:1]).all(0)
        return np.where(same, table[0], np.nan)

    def reads(self, live, input_constants):
        """Returns that the tokens are read."""
        return [np.ones(self.node.inputs[0].channels, bool)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer columns."""
        table = self._rows()[:, kept_outputs]
        return Rewrite(
            {"output_dim": int(kept_outputs.sum())}, {"embeddings": table}
        )

    def _rows(self):
        """Returns the table; a weight of a block may have other axes."""
        table = self.values(self.layer.embeddings)
        return table.reshape(-1, self.node.outputs[0].channels)


@rule(keras.layers.ReversibleEmbedding)
class ReversibleEmbedding(Embedding):
    """A table of tokens, which another call may use in reverse."""

    def bind(self, node, values):
        """Returns the rule, `Reversed` for a call in reverse."""
        if is_reversed(node):
            return Reversed().bind(node, values)
        return super().bind(node, values)

    def slices(self):
        """Returns the columns of the table, and the rows of a second one."""
        outputs = np.arange(self.node.outputs[0].channels)
        found = super().slices()
        if not self.layer.tie_weights:
            own = Slices("reverse_embeddings", 0, outputs, "follower")
            found.append(own)
        return found

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer columns."""
        return _narrowed(self, kept_outputs)


class Reversed(Rule):
    """A product with the table; there is no bias to hold a constant."""

    zeros_only = True

    @property
    def why_outputs_stay(self) -> str:
        """Why no output can be cut."""
        return f"the outputs of `{self.node.path}` are the tokens of its table"

    def refusal(self):
        if is_altered(self.layer):
            return "its table is quantized or adapted (LoRA)"
        if self.node.inputs[0].axis != self.node.inputs[0].rank - 1:
            return "its channels are not at the last axis of its input"
        return super().refusal()

    def slices(self):
        """Returns the columns of the table, or the rows of the second one."""
        inputs, x = np.arange(self.node.inputs[0].channels), self.node.inputs[0]
        if self.layer.tie_weights:
            return [Slices("embeddings", -1, inputs, "reader", x)]
        return [
            Slices("embeddings", -1, inputs, "follower", x),
            Slices("reverse_embeddings", 0, inputs, "reader", x),
        ]

    def constants(self, input_constants):
        """Returns zero for the tokens that read nothing but zeros."""
        read = self._links()[:, np.isnan(input_constants[0])].any(1)
        return np.where(read, np.nan, 0.0)

    def reads(self, live, input_constants):
        """Returns the channels that live tokens read, but for zeros."""
        zero = input_constants[0] == 0
        return [self._links()[live].any(0) & ~zero]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer columns."""
        return _narrowed(self, kept_inputs[0])

    def _links(self):
        """Returns which token reads which channel."""
        if self.layer.tie_weights:
            return self.values(self.layer.embeddings) != 0
        return self.values(self.layer.reverse_embeddings).T != 0


@rule("Take")
class Take(OffChannels):
    """What is at some indices of an axis of positions."""

    def bind(self, node, values):
        """Returns the rule, `Lookup` where a tensor says which indices."""
        if len(node.inputs) > 1:
            return Lookup().bind(node, values)
        return super().bind(node, values)


class Lookup(Channelwise):
    """Rows of one tensor, by the indices in another one."""

    several_axes = True

    def refusal(self):
        table, _ = self.node.inputs
        if self.layer.axis is None or self._axis in table.axes:
            return "it moves single channels"
        return ""

    def fixed_inputs(self):
        """Returns the indices."""
        return self.node.inputs[1:]

    def axes(self):
        """Returns the channel axes, behind those of the indices."""
        table, indices = self.node.inputs
        more = indices.rank - 1
        return tuple(a + more * (a > self._axis) for a in table.axes)

    def ties(self):
        """Returns that the channels of the rows are those of the table."""
        own = np.arange(self.node.inputs[0].channels)
        return [own, None, own]

    @property
    def _axis(self):
        return self.layer.axis % self.node.inputs[0].rank


def _narrowed(rule: Rule, kept: np.ndarray) -> Rewrite:
    """Returns a layer with fewer columns, whichever way it is called."""
    layer = rule.layer
    weights = {"embeddings": rule.values(layer.embeddings)[:, kept]}
    if not layer.tie_weights:
        second = rule.values(layer.reverse_embeddings)
        weights["reverse_embeddings"] = second[kept]
    return Rewrite({"output_dim": int(kept.sum())}, weights)
