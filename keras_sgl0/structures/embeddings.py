"""The rules of tables of tokens."""

import keras
import numpy as np

from keras_sgl0.structures.kernels import is_altered
from keras_sgl0.structures.rules import Rewrite, Rule, Slices, rule


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
        """Returns the columns of the table."""
        outputs = np.arange(self.node.outputs[0].channels)
        return [Slices("embeddings", -1, outputs, "member")]

    def constants(self, input_constants):
        """Returns the entry that all tokens share."""
        table = self._table()
        same = (table == table[:1]).all(0)
        return np.where(same, table[0], np.nan)

    def reads(self, live, input_constants):
        """Returns that the tokens are read."""
        return [np.ones(self.node.inputs[0].channels, bool)]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with fewer columns."""
        table = self._table()[:, kept_outputs]
        return Rewrite(
            {"output_dim": int(kept_outputs.sum())}, {"embeddings": table}
        )

    def _table(self):
        return self.values(self.layer.embeddings)


@rule(keras.layers.ReversibleEmbedding)
class ReversibleEmbedding(Embedding):
    """A table of tokens that is not used in reverse."""

    def refusal(self):
        if self.node.kwargs.get("reverse") or any(self.node.args[1:]):
            return "its table is used in reverse"
        return super().refusal()

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
        own = super().rewrite(kept_inputs, kept_outputs, input_constants)
        if not self.layer.tie_weights:
            rows = self.values(self.layer.reverse_embeddings)[kept_outputs]
            own.weights["reverse_embeddings"] = rows
        return own
