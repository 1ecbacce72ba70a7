"""Layers that a user has made of other layers, of many kinds."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("tests")
class Residual(layers.Layer):
    """Convolutions, batch normalization and dropout around a shortcut."""

    def __init__(self, filters, inner=6, drop=0.0, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(inner, 3, padding="same", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(drop, name="drop")
        self.second = layers.Conv2D(filters, 3, padding="same", name="second")

    def call(self, x, training=None):
        y = self.norm(self.first(x), training=training)
        y = self.drop(ops.relu(y), training=training)
        return ops.relu(x + self.second(y))


class Excite(layers.Layer):
    """Squeeze and excite."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.pool = layers.GlobalAveragePooling2D(keepdims=True, name="pool")
        self.down = layers.Dense(3, activation="relu", name="down")
        self.up = layers.Dense(filters, activation="sigmoid", name="up")

    def call(self, x):
        return x * self.up(self.down(self.pool(x)))


class Nested(layers.Layer):
    """A block of blocks, one of them Sequential."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [
            Residual(filters, name="residual"),
            keras.Sequential([layers.Conv2D(filters, 1)], name="plain"),
            Excite(filters, name="excite"),
        ]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Pair(layers.Layer):
    """Two inputs, one of them by keyword, and two outputs."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.one = layers.Dense(units, name="one")
        self.two = layers.Dense(units, name="two")

    def call(self, x, other=None, scale=1.0):
        y, z = self.one(x), self.two(other)
        return {"sum": y + scale * z, "product": ops.multiply(y, z)}


class Patches(layers.Layer):
    """No weights, and the batch size in a shape."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, images):
        batch, height, width, channels = ops.shape(images)
        n, m = height // self.size, width // self.size
        x = ops.reshape(images, (batch, n, self.size, m, self.size, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (batch, n * m, self.size**2 * channels))


class Windows(layers.Layer):
    """Works on windows: there are a multiple of the batch size."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, name="dense")

    def call(self, x):
        batch, length, channels = ops.shape(x)
        y = ops.reshape(x, (batch * (length // 2), 2, channels))
        return ops.reshape(self.dense(y), (batch, length, self.dense.units))


class Causal(layers.Layer):
    """An attention with a mask that it makes itself, for each example."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.dense = layers.Dense(width, name="dense")

    def call(self, x):
        batch, length, _ = ops.shape(x)
        i = ops.arange(length)
        mask = ops.broadcast_to(i[:, None] >= i, (batch, length, length))
        y = self.attention(x, x, attention_mask=mask)
        return self.dense(x + y)


class Scale(layers.Layer):
    """A leaf with a weight of its own."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.gamma


class Scaled(layers.Layer):
    """A block with a weight of its own next to such a leaf and a block."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.scale = Scale(name="scale")
        self.body = Residual(filters, name="body")

    def call(self, x):
        return self.scale(self.body(x))


class Raw(layers.Layer):
    """A block that multiplies by a weight of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, name="dense")

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x * self.gamma)


class Baked(Raw):
    """As `Raw`, the weight being read before."""

    def call(self, x):
        return self.dense(x * ops.exp(self.gamma))


class WithLoss(Raw):
    """Adds a loss."""

    def call(self, x):
        self.add_loss(ops.mean(x))
        return self.dense(x)


class Branching(Raw):
    """Does something else in training."""

    def call(self, x, training=None):
        return self.dense(-x if training else x)


class ByValue(Raw):
    """Python asks for a number."""

    def call(self, x):
        if keras.ops.is_tensor(x):  # the numbers are there
            return self.dense(x)
        return self.dense(x) if ops.sum(x) > 0 else x


class Remembering(Raw):
    """Keeps what it was called on."""

    def call(self, x):
        self.last = ops.shape(x)
        return self.dense(x)


class Counting(Raw):
    """Counts its calls in a variable."""

    def build(self, shape):
        super().build(shape)
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def call(self, x):
        self.calls.assign_add(1.0)
        return self.dense(x)


class Penalised(Raw):
    """Has an activity regularizer."""

    def __init__(self, units, **kwargs):
        super().__init__(units, activity_regularizer="l2", **kwargs)

    def call(self, x):
        return self.dense(x)


class Noisy(layers.Layer):
    """Draws random numbers itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        noise = keras.random.normal(ops.shape(x)[1:], seed=self.seeds)
        return x + noise if training else x


@keras.saving.register_keras_serializable("tests")
class DropPath(layers.Layer):
    """Whole examples that are zero in training."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        kept = keras.random.uniform(shape, seed=self.seeds) > self.rate
        return x * ops.cast(kept, x.dtype) / (1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


class Own(keras.Model):
    """A subclassed model of a dictionary of inputs."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(9, units, name="table")
        self.body = layers.Dense(6, activation="relu", name="body")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.2, name="drop")
        self.head = layers.Dense(2, name="head")

    def call(self, inputs, training=None):
        x = self.table(inputs["tokens"]) + inputs["bias"]
        x = self.norm(self.body(x), training=training)
        return {"logits": self.head(self.drop(x, training=training))}
