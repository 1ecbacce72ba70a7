"""Blocks with weights of their own, for the fuzzer."""

from keras import layers, ops


class OwnWeights(layers.Layer):
    """A layer, and a weight that the block itself has.

    Args:
        layer: Makes the channels.
        kind: What the weight is: `"vector"`, `"scalar"`, `"places"` (one for
            each position), `"token"` (before the first position) or `"array"`
            (rows of an embedding).
        axis: The axis of channels.
    """

    def __init__(self, layer, kind, axis):
        super().__init__()
        self.layer, self.kind, self.axis = layer, kind, axis

    def build(self, shape):
        self.layer.build(shape)
        shape = self.layer.compute_output_shape(shape)[1:]
        last = self.axis % (len(shape) + 1) - 1
        sizes = {
            "vector": [shape[last], *(1 for _ in shape[last + 1 :])],
            "scalar": [],
            "places": [1, *shape],
            "token": [1, 1, shape[-1]],
            "array": [shape[-1]],
        }[self.kind]
        if self.kind == "array":
            self.rows = layers.Embedding(shape[0], shape[-1])
            self.rows.build()
        self.own = self.add_weight(sizes, name="own")

    def call(self, x):
        y = self.layer(x)
        if self.kind == "places":
            return y + self.own
        if self.kind == "token":
            token = ops.tile(self.own, (ops.shape(x)[0], 1, 1))
            return ops.concatenate([token, y], 1)[:, :-1]
        if self.kind == "array":
            y = y + self.rows(ops.arange(y.shape[1]))
        return y * self.own


KINDS = ("vector", "scalar", "places")
# Those for channels behind one axis of positions.
KINDS_OF_STEPS = ("token", "array")
