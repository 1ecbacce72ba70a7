"""Blocks and models as users write them."""

import keras
from keras import layers, ops

from networks.common import conv, head, image, network


class Residual(layers.Layer):
    """A block as users write it: layers, and a call."""

    def __init__(self, filters, strides=1):
        super().__init__()
        self.first = layers.Conv2D(filters, 3, strides, "same", use_bias=False)
        self.norm1 = layers.BatchNormalization()
        self.second = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.norm2 = layers.BatchNormalization()
        self.short = layers.Conv2D(filters, 1, strides) if strides > 1 else None

    def build(self, shape):
        x = keras.KerasTensor(shape)
        self.built = True
        self.compute_output_spec(x)

    def call(self, x):
        y = ops.relu(self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        return ops.relu(y + (x if self.short is None else self.short(x)))


@network
def custom_residual_blocks():
    x = inputs = image()
    x = conv(x, 24)
    for filters, strides in ((24, 1), (48, 2), (48, 1)):
        x = Residual(filters, strides)(x)
    return head(inputs, x)


class Subclassed(keras.Model):
    """A whole model as a class."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(24, 3, activation="relu")
        self.blocks = [Residual(24), Residual(48, 2)]
        self.head = layers.Dense(10)

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(ops.mean(x, axis=(1, 2)))


@network
def subclassed_resnet():
    model = Subclassed()
    model(ops.zeros((1, 32, 32, 3)))
    return model


class Linear(layers.Layer):
    """A dense layer as Keras's guide to layers writes it."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.w = self.add_weight((shape[-1], self.units), name="w")
        self.b = self.add_weight((self.units,), name="b")

    def call(self, x):
        return ops.matmul(x, self.w) + self.b


@network
def own_dense_layers():
    x = inputs = keras.Input((20,))
    for units in (64, 64, 32):
        x = ops.relu(Linear(units)(x))
    return keras.Model(inputs, Linear(5)(x))


class OwnConv(layers.Layer):
    """A convolution with a kernel of its own."""

    def __init__(self, filters):
        super().__init__()
        self.filters = filters

    def build(self, shape):
        self.k = self.add_weight((3, 3, shape[-1], self.filters), name="k")
        self.b = self.add_weight((self.filters,), name="b")

    def call(self, x):
        return ops.relu(ops.conv(x, self.k, padding="same") + self.b)


@network
def own_convolutions():
    x = inputs = image()
    for filters in (16, 32, 48):
        x = layers.MaxPooling2D()(OwnConv(filters)(x))
    return head(inputs, x)


class GraphConvolution(layers.Layer):
    """A graph convolution with a matrix of neighbours."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shapes):
        shape = (shapes[0][-1], self.units)
        self.kernel = self.add_weight(shape, name="kernel")
        self.bias = self.add_weight((self.units,), name="bias")

    def call(self, inputs):
        nodes, neighbours = inputs
        messages = ops.matmul(nodes, self.kernel)
        return ops.relu(ops.matmul(neighbours, messages) + self.bias)


@network
def graph_convolutions():
    x = nodes = keras.Input((20, 16))
    neighbours = keras.Input((20, 20))
    for units in (48, 48):
        x = GraphConvolution(units)([x, neighbours])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model([nodes, neighbours], layers.Dense(3)(x))


class Highway(layers.Layer):
    """A gate between a layer and what it is given."""

    def build(self, shape):
        size = (shape[-1], shape[-1])
        self.gate = self.add_weight(size, name="gate")
        self.start = self.add_weight(size[1:], name="start")
        self.own = self.add_weight(size, name="own")

    def call(self, x):
        gate = ops.sigmoid(ops.matmul(x, self.gate) + self.start)
        return gate * ops.relu(x @ self.own) + (1 - gate) * x


@network
def highway():
    x = inputs = keras.Input((20,))
    x = layers.Dense(48)(x)
    for _ in range(3):
        x = Highway()(x)
    return keras.Model(inputs, layers.Dense(5)(x))


class Experts(layers.Layer):
    """Several small networks at once, weighed for each example."""

    def __init__(self, experts, units):
        super().__init__()
        self.experts, self.units = experts, units
        self.gate = layers.Dense(experts, activation="softmax")

    def build(self, shape):
        self.gate.build(shape)
        size = (self.experts, shape[-1], self.units)
        self.inner = self.add_weight(size, name="inner")
        size = (self.experts, self.units, shape[-1])
        self.outer = self.add_weight(size, name="outer")

    def call(self, x):
        y = ops.relu(ops.einsum("bi,eih->beh", x, self.inner))
        y = ops.einsum("beh,eho->beo", y, self.outer)
        return x + ops.sum(y * ops.expand_dims(self.gate(x), -1), axis=1)


@network
def mixture_of_experts():
    x = inputs = keras.Input((20,))
    x = layers.Dense(32, activation="relu")(x)
    x = Experts(4, 24)(x)
    return keras.Model(inputs, layers.Dense(5)(x))


class Places(layers.Layer):
    """A convolution that is told where it is."""

    def __init__(self, filters):
        super().__init__()
        self.conv = layers.Conv2D(filters, 3, padding="same")

    def build(self, shape):
        self.conv.build((*shape[:-1], shape[-1] + 2))

    def call(self, x):
        _, rows, columns, _ = x.shape
        sizes = [ops.linspace(-1.0, 1.0, n) for n in (rows, columns)]
        places = ops.stack(ops.meshgrid(*sizes, indexing="ij"), axis=-1)
        places = ops.tile(places[None], (ops.shape(x)[0], 1, 1, 1))
        return self.conv(ops.concatenate([x, places], axis=-1))


@network
def coordinates():
    x = inputs = image()
    for filters in (24, 48):
        x = layers.MaxPooling2D()(ops.relu(Places(filters)(x)))
    return head(inputs, x)
