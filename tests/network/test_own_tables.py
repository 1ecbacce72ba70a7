"""Blocks that look things up in a table of their own."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace


class Block(layers.Layer):
    """A dense layer plus rows of a table."""

    def __init__(self, width, table=None, **kwargs):
        super().__init__(**kwargs)
        self.width, self.options = width, table or {}
        self.dense = layers.Dense(width, dtype=self.dtype_policy, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        shape = (7, self.width)
        self.table = self.add_weight(shape, name="table", **self.options)

    def call(self, x):
        rows = ops.take(self.table, np.arange(x.shape[1])[::-1], axis=0)
        rows = ops.cast(rows, self.compute_dtype)
        return ops.relu(self.dense(x) + ops.expand_dims(rows, 0))

    def get_config(self):
        return super().get_config() | {"width": self.width}


class Windows(Block):
    """Some examples belong together: it fails for other numbers of them."""

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.width)

    def call(self, x):
        y = super().call(x)
        size = ops.shape(x)[0]
        y = ops.reshape(y, (size // 4, 4, *y.shape[1:]))
        y = y * ops.reshape(ops.arange(1, 5, dtype=y.dtype), (1, 4, 1, 1))
        return ops.reshape(y, (size, *x.shape[1:-1], self.width))


class Examples(Block):
    """The examples are not on the first axis for a while."""

    def call(self, x):
        y = super().call(x)
        y = ops.reshape(y, (ops.shape(x)[0], x.shape[1], 2, self.width // 2))
        y = ops.tanh(ops.transpose(y, (2, 0, 1, 3)))
        return ops.concatenate(ops.unstack(y, axis=0), axis=-1)


class Padded(Block):
    """It takes what is missing to four examples from the first ones."""

    def call(self, x):
        y = super().call(x)
        size = ops.shape(x)[0]
        y = ops.concatenate([y, y[: -size % 4]])
        return ops.flip(y, axis=0)[:size]


def network(block, shape=(5, 6)):
    """Returns a block between dense layers, with random weights."""
    x = inputs = keras.Input(shape)
    x = layers.Dense(8, name="first")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(block(x)))
    return randomized(model)


def randomized(model):
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.normal(size=v.shape) / 2)
    return model


def cut(model, tolerance=1e-5):
    """Returns a model without half of its structures."""
    found = ks.structures(model)
    dead = np.zeros(found.size, bool)
    for family in range(len(found.counts)):
        dead[np.flatnonzero(found.families == family)[::2]] = True
    found.zero(dead)
    small, report = ks.shrink(model, 0, verify=False)
    x = np.random.default_rng(1).normal(size=(8, *model.input.shape[1:]))
    assert_same_outputs(model, small, tolerance, inputs=x.astype("float32"))
    assert small.count_params() == found.cost(~dead).parameters
    assert ks.count_macs(small).macs == found.cost(~dead).macs
    return small, report


@pytest.mark.parametrize("kind", [Block, Windows])
def test_the_columns_of_a_table_are_cut(kind, tmp_path):
    model = network(kind(10, name="block"))
    assert not any(node.reason for node in trace(model).nodes)
    found = ks.structures(model)
    assert {"block/dense", "block/table"} in [
        set(found.made_by(i)) for i in range(found.size)
    ]
    small, _ = cut(model)
    assert small.get_layer("table").embeddings.shape == (7, 5)
    # It is made of Keras's own layers.
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = np.ones((4, 5, 6), "float32")
    assert_same_outputs(small, again, inputs=x)


def test_the_examples_may_leave_the_first_axis():
    model = network(Examples(12, name="block"))
    assert not any(node.reason for node in trace(model).nodes)
    cut(model)


def test_the_variable_is_the_one_of_the_block():
    block = Block(10, name="block")
    network_ = network(block)
    nodes = trace(network_).nodes
    table = next(n for n in nodes if n.path == "block/table").operation
    assert table.embeddings is block.table
    assert isinstance(block.table, keras.Variable)
    assert not block._inbound_nodes[1:]


def test_what_a_table_is_made_with_stays():
    model = network(
        Block(10, {"trainable": False, "regularizer": keras.regularizers.L2(2)})
    )
    small, _ = cut(model)
    table = small.get_layer("table")
    assert not table.trainable
    assert table.embeddings_regularizer.l2 == 2


def test_other_examples_stay_what_they_are():
    model = network(Padded(10, name="block"))
    reasons = {node.path: node.reason for node in trace(model).nodes}
    assert reasons["block"]
    cut(model)


def test_a_table_that_is_cast_stays_whole():
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = network(Block(10, name="block", dtype=policy))
    reasons = {node.path: node.reason for node in trace(model).nodes}
    assert "its weight" in reasons["block"]


def test_a_block_that_is_called_twice():
    block = Block(8, name="block")
    x = inputs = keras.Input((5, 8))
    for _ in range(2):
        x = block(x)
    cut(randomized(keras.Model(inputs, layers.Dense(3)(x))))
