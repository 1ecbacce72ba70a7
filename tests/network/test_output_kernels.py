"""The walk from a model's outputs back to the kernels that make them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sgl0.network.layer_table import layouts_of, walk_layers
from keras_sgl0.network.output_kernels import output_kernels


class Opaque(layers.Layer):
    """A layer made of others that does more than call them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, name="first")
        self.second = layers.Dense(3, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, x):
        self.add_loss(ops.sum(x))
        return self.second(self.first(x))


class Mixing(layers.Layer):
    """A layer of a type that nobody knows, with a matrix of its own."""

    def build(self, shape):
        self.mixer = self.add_weight(shape=(shape[-1],) * 2, name="mixer")

    def call(self, x):
        return x @ self.mixer


class Scaling(layers.Layer):
    """A layer of a type that nobody knows, without a matrix."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(1,), name="scale")

    def call(self, x):
        return x * self.scale


def names(model, ids):
    """Returns the paths of the layers whose kernels these are."""
    found = {}
    for line in walk_layers(model):
        for attribute in ("kernel", "embeddings", "pointwise_kernel"):
            kernel = getattr(line[-1], attribute, None)
            path = "/".join(layer.name for layer in line[1:])
            found.setdefault(id(kernel), path)
    return {found[i] for i in ids}


def dense(units, name):
    return layers.Dense(units, name=name)


def body(shape=(6, 6, 2)):
    inputs = keras.Input(shape)
    return inputs, layers.Conv2D(4, 3, activation="relu", name="body")(inputs)


IMAGE_HEADS = {
    "global pooling": [layers.GlobalAveragePooling2D()],
    "activation": [layers.Activation("sigmoid")],
    "softmax over maps": [layers.Softmax(axis=-1)],
    "flat": [layers.Flatten()],
    "reshaped": [layers.Reshape((6, 8)), layers.Permute((2, 1))],
    "normalized": [layers.BatchNormalization(), layers.LayerNormalization()],
    "PReLU": [layers.PReLU()],
    "upsampled": [layers.UpSampling2D(2), layers.Dropout(0.1)],
    "a layer nobody knows": [Scaling()],
    "a lambda": [layers.Lambda(lambda x: x * 2, output_shape=(4, 4, 3))],
    "an operation": [lambda x: ops.softmax(x)],
    "some of them": [lambda x: x[..., :2]],
    "the largest": [lambda x: ops.max(x, axis=-1)],
    "nothing": [],
}


@pytest.mark.parametrize("name", IMAGE_HEADS)
def test_what_hands_channels_on_is_walked_through(name):
    inputs, x = body()
    x = layers.Conv2D(3, 1, name="head")(x)
    for layer in IMAGE_HEADS[name]:
        x = layer(x)
    model = keras.Model(inputs, x)
    found = output_kernels(model)
    assert (names(model, found.known), found.unclear) == ({"head"}, set())


def test_denormalized_outputs():
    inputs = keras.Input((5,))
    x = dense(3, "head")(dense(4, "body")(inputs))
    scale = layers.Normalization(
        mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0], invert=True
    )
    model = keras.Model(inputs, scale(x))
    assert names(model, output_kernels(model).known) == {"head"}


def test_two_heads_and_a_hidden_layer_that_is_an_output():
    inputs = keras.Input((5,))
    x = dense(4, "features")(inputs)
    y = dense(4, "hidden")(x)
    outputs = {
        "class": dense(3, "left")(y),
        "size": layers.Softmax()(dense(1, "right")(y)),
        "features": x,
    }
    model = keras.Model(inputs, outputs)
    expected = {"left", "right", "features"}
    assert names(model, output_kernels(model).known) == expected


def test_all_terms_of_a_sum_make_outputs():
    inputs, x = body()
    stem = layers.Conv2D(4, 1, name="stem")(x)
    y = layers.Conv2D(4, 3, padding="same", name="inner")(stem)
    y = layers.Conv2D(4, 3, padding="same", name="last")(y)
    y = layers.GlobalAveragePooling2D()(layers.Add()([stem, y]))
    model = keras.Model(inputs, y)
    assert names(model, output_kernels(model).known) == {"stem", "last"}


def test_a_depthwise_kernel_shares_its_channels_with_the_one_before():
    inputs, x = body()
    x = layers.Conv2D(3, 1, name="pointwise")(x)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    model = keras.Model(inputs, x)
    expected = {"pointwise", "depthwise"}
    assert names(model, output_kernels(model).known) == expected


def test_of_a_separable_convolution_the_pointwise_kernel():
    inputs, x = body()
    layer = layers.SeparableConv2D(3, 2, name="head")
    model = keras.Model(inputs, layer(x))
    assert output_kernels(model).known == {id(layer.pointwise_kernel)}


@pytest.mark.parametrize(
    "layer",
    [
        layers.MultiHeadAttention(2, 3, name="attention"),
        layers.GroupQueryAttention(3, 4, 2, name="attention"),
    ],
)
def test_of_an_attention_its_output_projection(layer):
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input((5, 4))
    x = dense(4, "body")(inputs)
    model = keras.Model(inputs, layer(x, x))
    found = output_kernels(model)
    assert names(model, found.known) == {"attention/attention_output"}
    assert found.unclear == set()


def test_a_wrapped_layer():
    inputs = keras.Input((5, 4))
    x = layers.TimeDistributed(dense(4, "inner"), name="body")(inputs)
    x = layers.TimeDistributed(dense(3, "last"), name="head")(x)
    model = keras.Model(inputs, x)
    assert names(model, output_kernels(model).known) == {"head/last"}


def test_a_product_of_channels_is_not_walked_through():
    inputs = [keras.Input((1,), name="user"), keras.Input((1,), name="item")]
    tables = [layers.Embedding(9, 4)(x) for x in inputs]
    for product in (
        layers.Dot(axes=2)(tables),
        ops.matmul(tables[0], ops.transpose(tables[1], (0, 2, 1))),
        ops.einsum("abc,adc->abd", *tables),
    ):
        model = keras.Model(inputs, product)
        assert output_kernels(model) == (set(), set())


@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
def test_models_in_the_model_are_looked_into(kind):
    head = keras.Sequential(
        [keras.Input((4,)), dense(4, "inner"), dense(3, "last")], name="head"
    )
    inputs = keras.Input((5,))
    if kind == "Sequential":
        parts = [inputs, dense(4, "body"), head, layers.Softmax()]
        model = keras.Sequential(parts)
    else:
        x = head(dense(4, "body")(inputs))
        model = keras.Model(inputs, layers.Softmax()(x))
    found = output_kernels(model)
    assert (names(model, found.known), found.unclear) == ({"head/last"}, set())


def test_what_cannot_be_looked_into_is_unclear():
    inputs = keras.Input((5,))
    x = Opaque(name="opaque")(dense(4, "body")(inputs))
    model = keras.Model(inputs, layers.Softmax()(x))
    found = output_kernels(model)
    assert found.known == set()
    assert names(model, found.unclear) == {"opaque/first", "opaque/second"}


def test_a_layer_with_a_matrix_of_its_own_makes_the_outputs():
    inputs = keras.Input((5,))
    mixing = Mixing()
    model = keras.Model(inputs, mixing(dense(4, "body")(inputs)))
    assert output_kernels(model) == ({id(mixing.mixer)}, set())


def test_a_recurrent_layer_makes_the_outputs():
    inputs = keras.Input((5,))
    x = layers.Reshape((2, 2))(dense(4, "body")(inputs))
    model = keras.Model(inputs, layers.LSTM(3)(x))
    assert output_kernels(model) == (set(), set())


@pytest.mark.parametrize("traced", [True, False])
def test_a_subclassed_model_is_clear_if_it_can_be_traced(traced):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.head = dense(4, "inner"), dense(3, "head")

        def call(self, x):
            if not traced:
                self.add_loss(ops.sum(x))
            return self.head(self.inner(x))

    own = Own()
    own(np.ones((1, 5), "float32"))
    clear, unclear = {id(own.head.kernel)}, set(layouts_of(own))
    expected = (clear, set()) if traced else (set(), unclear)
    assert output_kernels(own) == expected
    inputs = keras.Input((5,))
    model = keras.Model(inputs, own(inputs))
    assert output_kernels(model) == expected
