"""Blocks that read weights of their own, or call layers on arrays."""

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


class Places(Block):
    """It joins its input with the places of it, which are no input."""

    def build(self, shape):
        super().build((*shape[:-1], shape[-1] + 2))

    def call(self, x):
        batch, (steps, _) = ops.shape(x)[0], x.shape[1:]
        places = ops.stack([ops.linspace(0.0, 1.0, steps)] * 2, axis=-1)
        places = ops.tile(places[None], (batch, 1, 1))
        return super().call(ops.concatenate([x, places], axis=-1))


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


@pytest.mark.parametrize("kind", [Block, Windows, Places])
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


def test_a_table_that_is_cast():
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = network(Block(10, name="block", dtype=policy))
    assert not any(node.reason for node in trace(model).nodes)
    small, _ = cut(model, 1e-1)
    table = small.get_layer("table")
    assert table.embeddings.dtype == "float32"
    assert table.compute_dtype == "bfloat16"


class Weights(layers.Layer):
    """A dense layer, and weights of its own; subclasses say what they do."""

    shape: tuple = ()

    def __init__(self, width=8, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.dense = layers.Dense(width, name="dense", dtype=self.dtype_policy)

    def build(self, shape):
        self.dense.build(shape)
        own = [self.width if n is None else n for n in self.shape]
        self.own = self.add_weight(own, name="own")


class Vector(Weights):
    """A scale for each channel, as `LayerScale` has it."""

    shape = (None,)

    def call(self, x):
        return self.dense(x) * self.own


class VectorWithAxes(Weights):
    shape = (None,)

    def call(self, x):
        own = ops.reshape(self.own, (1, 1, -1)) + ops.exp(self.own)
        return ops.relu(self.dense(x) + own[:, :, :])


class Scalar(Weights):
    """A temperature."""

    def call(self, x):
        return ops.tanh(self.dense(x) * ops.exp(self.own))


class Positions(Weights):
    """A vector at each position."""

    shape = (1, 5, None)

    def call(self, x):
        return self.dense(x) + self.own


class Turned(Weights):
    """A table whose columns are the positions."""

    shape = (None, 5)

    def call(self, x):
        return self.dense(x) + ops.transpose(self.own)


class Token(Weights):
    """A token before the others, for each example."""

    shape = (1, 1, None)

    def repeated(self, batch):
        return ops.tile(self.own, (batch, 1, 1))

    def call(self, x):
        token = self.repeated(ops.shape(x)[0])
        x = ops.concatenate([token, self.dense(x)], axis=1)
        return ops.relu(x)


class BroadcastToken(Token):
    shape = (None,)

    def repeated(self, batch):
        return ops.broadcast_to(self.own, (batch, 2, self.width))


class RepeatedToken(Token):
    def repeated(self, batch):
        return ops.repeat(self.own, batch, axis=0)


class TiledRows(Token):
    shape = (1, None)

    def repeated(self, batch):
        return ops.tile(self.own, (batch, 3, 1))


class Listed(Weights):
    """Weights in a list and in a dictionary."""

    shape = (None,)

    def build(self, shape):
        super().build(shape)
        self.scales = [self.own]
        more = self.add_weight((self.width,), name="more")
        self.others = {"more": more, "what": "it is"}

    def call(self, x):
        y = self.dense(x) * self.scales[0]
        return ops.relu(y + self.others["more"])


class OfArrays(Weights):
    """Layers that are called on arrays: positions as many write them."""

    def build(self, shape):
        super().build(shape)
        self.embedding = layers.Embedding(
            5, self.width, name="embedding", dtype=self.dtype_policy
        )
        self.embedding.build()
        self.project = layers.Dense(
            self.width, name="project", dtype=self.dtype_policy
        )
        self.project.build((5, 3))

    def call(self, x):
        positions = self.embedding(ops.arange(x.shape[1]))
        waves = self.project(np.sin(np.arange(15.0)).reshape(5, 3))
        return ops.relu(self.dense(x) + positions + waves) * self.own


KINDS = [
    *(Vector, VectorWithAxes, Scalar, Positions, Token),
    *(BroadcastToken, RepeatedToken, TiledRows, Listed, OfArrays),
]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_any_shape_are_cut(kind, tmp_path):
    block = kind(name="block")
    model = network(block)
    graph = trace(model)
    assert not any(node.reason for node in graph.nodes)
    operations = [node.operation for node in graph.nodes]
    own = {id(v) for x in operations for v in getattr(x, "weights", ())}
    assert own == {id(v) for v in model.weights}
    small, _ = cut(model)
    assert small.get_layer("dense").units == 4
    assert {type(x).__module__.partition(".")[0] for x in small.layers} == {
        "keras"
    }
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = np.ones((4, 5, 6), "float32")
    assert_same_outputs(small, again, inputs=x)


def test_a_table_whose_columns_are_positions_stays():
    model = network(Turned(name="block"))
    assert not any(node.reason for node in trace(model).nodes)
    small, _ = cut(model)
    assert small.get_layer("dense").units == 8


@pytest.mark.parametrize("kind", [Vector, Token, OfArrays])
def test_under_mixed_precision(kind):
    block = kind(name="block", dtype="mixed_bfloat16")
    model = network(block)
    assert not any(node.reason for node in trace(model).nodes)
    small, _ = cut(model, 1e-1)
    assert small.get_layer("dense").units == 4


def test_what_a_weight_can_do_and_no_tensor_stays_whole():
    class Assigned(Vector):
        def call(self, x):
            self.own.assign(ops.abs(self.own))
            return super().call(x)

    model = network(Assigned(name="block"))
    reasons = {node.path: node.reason for node in trace(model).nodes}
    assert "its weight `own` itself" in reasons["block"]
    cut(model)


def test_training_goes_on_with_a_smaller_weight():
    model = network(Positions(name="block"))
    found = ks.structures(model)
    dead = np.arange(found.size) % 2 == 0
    found.zero(dead)
    # It has slots for what is cut, and nothing comes back to life.
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9), "mse")
    x = np.random.default_rng(0).normal(size=(8, 5, 6))
    y = np.zeros((8, 5, 3))
    small, history = ks.fit_shrinking(
        model, x, y, epochs=2, shrink_every=1, verbose=0
    )
    assert [done for done, _ in history.cuts] == [1]
    assert small.count_params() == found.cost(~dead).parameters


def test_a_block_that_is_called_twice():
    block = Block(8, name="block")
    x = inputs = keras.Input((5, 8))
    for _ in range(2):
        x = block(x)
    cut(randomized(keras.Model(inputs, layers.Dense(3)(x))))
