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


class OwnKernel(layers.Layer):
    """A product with a kernel that the layer itself has.

    Args:
        units: The number of channels it makes.
        kind: `"matmul"`, `"turned"`, `"einsum"`, `"conv"` or `"computed"`.
        biased: Whether it adds a bias.
    """

    def __init__(self, units, kind, biased):
        super().__init__()
        self.units, self.kind, self.biased = units, kind, biased

    def build(self, shape):
        sizes = (shape[-1], self.units)
        if self.kind in ("turned", "einsum"):
            sizes = sizes[::-1]
        if self.kind == "conv":
            sizes = (*(2 for _ in shape[2:]), *sizes)
        self.own = self.add_weight(sizes, name=f"kernel_of_{self.name}")
        self.bias = self.add_weight((self.units,)) if self.biased else None

    def call(self, x):
        y = {
            "matmul": lambda: x @ self.own,
            "turned": lambda: ops.matmul(x, ops.transpose(self.own)),
            "einsum": lambda: ops.einsum("...i,oi->...o", x, self.own),
            "conv": lambda: ops.conv(x, self.own, padding="same"),
            "computed": lambda: ops.matmul(x, ops.tanh(self.own)),
        }[self.kind]()
        return ops.relu(y + self.bias) if self.biased else y


PRODUCTS = ("matmul", "turned", "einsum", "computed")
KINDS = ("vector", "scalar", "places")
# Those for channels behind one axis of positions.
KINDS_OF_STEPS = ("token", "array")
