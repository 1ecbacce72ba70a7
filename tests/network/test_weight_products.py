"""Products with weights of a block, seen as the layers of Keras."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scramble
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.flat_copy import FlatCopy


class Weighted(layers.Layer):
    """A layer with two weights and a `call` that is given."""

    def __init__(self, function, kernel, bias=None, **kwargs):
        super().__init__(name="own", **kwargs)
        self.function, self.shapes = function, (kernel, bias)

    def build(self, shape):
        kernel, bias = self.shapes
        self.w = self.add_weight(shape=kernel, name="w")
        self.b = bias and self.add_weight(shape=bias, name="b")

    def call(self, x):
        return self.function(x, self.w, self.b)


def graph_of(layer, shape=(6, 4)):
    inputs = keras.Input(shape)
    model = scramble(keras.Model(inputs, layer(inputs)))
    return model, trace(model)


def kinds(graph):
    return [node.type for node in graph.nodes]


def assert_copied(model, graph):
    """The calls that were found compute what the model does."""
    copy = FlatCopy(graph, "copy").model
    assert_same_outputs(model, copy)
    copy.get_config()
    return copy


# A function of input, kernel and bias; their shapes; the one layer that it is.
LAYERS = {
    "matmul": (lambda x, w, b: ops.matmul(x, w), (4, 3), None, "Dense"),
    "at": (lambda x, w, b: x @ w + b, (4, 3), (3,), "Dense"),
    "bias first": (lambda x, w, b: b + ops.dot(x, w), (4, 3), (3,), "Dense"),
    "tensordot": (
        lambda x, w, b: ops.tensordot(x, w, axes=1) + b,
        (4, 3),
        (3,),
        "Dense",
    ),
    "tensordot over two axes": (
        lambda x, w, b: ops.tensordot(x, w, [[1, 2], [1, 0]]) + b,
        (4, 6, 3),
        (3,),
        "EinsumDense",
    ),
    "turned": (
        lambda x, w, b: ops.matmul(x, ops.transpose(w)) + b,
        (3, 4),
        (3,),
        "EinsumDense",
    ),
    "equation": (
        lambda x, w, b: ops.einsum("...i,io->...o", x, w),
        (4, 3),
        None,
        "Dense",
    ),
    "weight first": (
        lambda x, w, b: ops.einsum("oi,bti->bto", w, x) + b,
        (3, 4),
        (3,),
        "EinsumDense",
    ),
    "heads": (
        lambda x, w, b: ops.einsum("bti,hio->bhto", x, w),
        (2, 4, 3),
        None,
        "EinsumDense",
    ),
    "positions": (
        lambda x, w, b: ops.matmul(w, x),
        (5, 6),
        None,
        "EinsumDense",
    ),
    "convolution": (
        lambda x, w, b: ops.conv(x, w, strides=2, padding="same") + b,
        (3, 4, 5),
        (5,),
        "Conv1D",
    ),
    "dilated": (
        lambda x, w, b: ops.conv(x, w, dilation_rate=2),
        (2, 4, 6),
        None,
        "Conv1D",
    ),
    "depthwise": (
        lambda x, w, b: ops.depthwise_conv(x, w) + b,
        (3, 4, 2),
        (8,),
        "DepthwiseConv1D",
    ),
    "transposed": (
        lambda x, w, b: ops.conv_transpose(x, w, strides=2) + b,
        (3, 5, 4),
        (5,),
        "Conv1DTranspose",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_product_is_the_layer_that_does_the_same(name):
    function, kernel, bias, kind = LAYERS[name]
    model, graph = graph_of(Weighted(function, kernel, bias))
    assert kinds(graph) == [kind]
    (node,) = graph.nodes
    own = model.get_layer("own")
    assert node.path == "own/w"
    assert [
        v is w for v, w in zip(node.operation.weights, own.weights, strict=True)
    ]
    copy = assert_copied(model, graph)
    assert copy.count_params() == model.count_params()
    assert ks.count_macs(model).macs > 0


# As above; the weights stay tables, and the outputs are right all the same.
TABLES = {
    "computed kernel": (lambda x, w, b: x @ ops.tanh(w), (4, 3), None),
    "read in two ways": (lambda x, w, b: x @ w + ops.sum(w, 0), (4, 3), None),
    "two layers": (lambda x, w, b: x @ w + x @ ops.transpose(w), (4, 4), None),
    "an output": (lambda x, w, b: x @ w + ops.sum(x) * w[0], (4, 3), None),
    "weights alone": (lambda x, w, b: x * (w @ b), (6, 3), (3, 4)),
    "no equation": (lambda x, w, b: ops.einsum("bti,io", x, w), (4, 3), None),
    "broadcast": (lambda x, w, b: ops.matmul(x, w), (1, 4, 3), None),
    "sums of the weight": (
        lambda x, w, b: ops.einsum("bti,ijo->bto", x, w),
        (4, 2, 3),
        None,
    ),
    "a diagonal": (
        lambda x, w, b: ops.einsum("bii,io->bio", x[:, :4], w),
        (4, 3),
        None,
    ),
    "a vector": (lambda x, w, b: ops.matmul(x, w), (4,), None),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_no_such_product_stays_a_table(name):
    model, graph = graph_of(Weighted(*TABLES[name]))
    found = kinds(graph)
    assert not {"Dense", "EinsumDense"} & set(found)
    if len(found) > 1:  # Keras itself may not follow it
        assert "Embedding" in found
        assert_copied(model, graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, b: ops.relu(x @ w) + b,
        lambda x, w, b: (x @ w + b) * b,
        lambda x, w, b: (x @ w) * 2 + (x @ w + b),
        lambda x, w, b: ops.sum(x @ w + b, 1) + b,
    ],
)
def test_a_bias_that_is_read_elsewhere_is_no_part_of_the_layer(function):
    model, graph = graph_of(Weighted(function, (4, 3), (3,)))
    (dense,) = {n.operation for n in graph.nodes if n.type == "Dense"}
    assert not dense.use_bias and "Embedding" in kinds(graph)
    assert_copied(model, graph)


def test_a_weight_that_is_applied_twice_is_one_layer_called_twice():
    layer = Weighted(lambda x, w, b: ops.relu(x @ w + b) @ w + b, (4, 4), (4,))
    model, graph = graph_of(layer)
    assert kinds(graph) == ["Dense", "Relu", "Dense"]
    first, _, second = (node.operation for node in graph.nodes)
    assert first is second and first.use_bias
    assert_copied(model, graph)


def test_a_layer_that_is_called_twice_is_cut_once():
    inputs = [keras.Input((5,), name=n) for n in "ab"]
    own = Weighted(lambda x, w, b: ops.relu(x @ w + b), (5, 8), (8,))
    x = layers.Subtract()([own(x) for x in inputs])
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)))
    found = ks.structures(model)
    assert found.size == 8
    found.zero(np.arange(8) % 2 == 0)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("w").units == 4 and report.whole == ()
    assert_same_outputs(model, small)


def test_trained_together_regularized_and_cast_as_the_weights_are():
    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(
                (shape[-1], 3), name="w", regularizer="l2", constraint="non_neg"
            )
            self.b = self.add_weight((3,), name="b", trainable=False)

        def call(self, x):
            return x @ self.w + self.b

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Own(name="own", dtype="mixed_bfloat16")(inputs))
    (dense,) = (n.operation for n in trace(model).nodes if n.type == "Dense")
    assert isinstance(dense.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(dense.kernel_constraint, keras.constraints.NonNeg)
    assert dense.dtype_policy.name == "mixed_bfloat16"
    # One is trained and the other is not, so that they are no one layer.
    assert dense.trainable and not dense.use_bias


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("end", [ops.relu, lambda x: x, layers.Softmax(-2)])
def test_masks_are_handed_on_as_before(end, keeps):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    own = Weighted(lambda x, w, b: end(x @ w + b), (4, 3), (3,))
    own.supports_masking = keeps
    outputs = layers.LSTM(2)(own(x))
    model = scramble(keras.Model(inputs, outputs))
    graph = trace(model)
    # Where a mask would come to a layer that had none, the product stays.
    is_layer = isinstance(end, layers.Layer)
    stays = is_layer or (end is not ops.relu and not keeps)
    assert ("Matmul" in kinds(graph)) == stays
    assert_copied(model, graph)


def test_indices_that_a_layer_keeps_as_a_weight():
    class Biased(layers.Layer):
        """Scores with a bias by distance, as of windows of an image."""

        def build(self, shape):
            n = shape[1]
            near = np.abs(np.arange(n)[:, None] - np.arange(n))
            self.table = self.add_weight((n, shape[-1]), name="table")
            self.index = self.add_weight(
                near.shape,
                initializer=lambda shape, dtype: near,
                dtype="int32",
                trainable=False,
            )

        def call(self, x):
            rows = ops.take(self.table, ops.reshape(self.index, (-1,)), axis=0)
            rows = ops.reshape(rows, (*self.index.shape, -1))
            return ops.max(ops.expand_dims(x, 1) + rows, 2)

    inputs = keras.Input((6, 3))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.Dense(2)(Biased(name="own")(x))
    model = scramble(keras.Model(inputs, x))
    found = ks.structures(model)
    assert found.size == 8 and not {f.layer for f in found.fixed} & {"first"}
    found.zero(np.arange(8) < 3)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5 and report.whole == ()
    assert_same_outputs(model, small)


def test_a_layer_of_a_user_trains_under_a_coupled_penalty():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5)).astype("float32")
    y = x[:, :1] - x[:, 1:2]
    inputs = keras.Input((5,))
    own = Weighted(lambda x, w, b: ops.relu(x @ w + b), (5, 16), (16,))
    model = keras.Model(inputs, layers.Dense(1)(own(inputs)))
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        callbacks=[
            ks.CoupledGroups(ks.GroupLasso(1e-3)),
            ks.ProximalStep(),
            ks.TargetDensity(0.5, of="macs"),
        ],
    )
    small, _ = ks.shrink(model)
    assert ks.count_macs(small).macs <= 0.5 * ks.count_macs(model).macs
    assert_same_outputs(model, small)
