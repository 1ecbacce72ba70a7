"""Small networks that several test modules shrink or export."""

import keras
import numpy as np
from keras import layers


def mlp():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, activation="relu", name="first"),
            layers.Dense(9, activation="tanh", name="second"),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    return model


def wide_resnet(width=8, classes=4):
    def rectified(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    def conv(filters, size, strides=1, name=None):
        return layers.Conv2D(
            filters, size, strides, "same", use_bias=False, name=name
        )

    inputs = keras.Input((12, 12, 3))
    x = conv(6, 3)(inputs)
    for i, (filters, strides) in enumerate([(width, 1), (2 * width, 2)]):
        for j in range(2):
            y = rectified(x)
            strides = 1 if j else strides
            h = rectified(conv(filters, 3, strides, f"inner_{i}_{j}")(y))
            h = conv(filters, 3)(layers.Dropout(0.3)(h))
            if j == 0:
                x = conv(filters, 1, strides)(y)
            x = layers.Add()([x, h])
    x = layers.GlobalAveragePooling2D()(rectified(x))
    return keras.Model(inputs, layers.Dense(classes)(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def residual(side, stream, inner, outputs, **options):
    """One block: a stream of channels, and an inner width.

    The options are those of the inner convolution.
    """
    x = inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(stream, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = shortcut = layers.ReLU()(x)
    x = layers.Conv2D(inner, 3, padding="same", name="inner", **options)(x)
    x = layers.BatchNormalization(name="inner_norm")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(stream, 3, padding="same", name="outer")(x)
    x = layers.BatchNormalization(name="outer_norm")(x)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(outputs, name="head")(x))


def vary_statistics(model):
    """Sets statistics, offsets and scales to what training would do."""
    rng = np.random.default_rng(0)
    for v in model.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(0.1 * rng.normal(size=v.shape))


def transformer(x, attention, width, blocks=1, **call):
    """Returns what blocks with an attention and two dense layers make."""
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, attention()(y, y, **call)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(2 * width, "gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    return layers.LayerNormalization()(x)


def vision_transformer(width=12, heads=4, blocks=1):
    """Returns a small classifier of images by their patches."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 4, 4, name="patches")(x)
    x = layers.Reshape((4, width))(x)
    x = transformer(
        x,
        lambda: layers.MultiHeadAttention(heads, width // 2),
        width,
        blocks,
    )
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="classes")(x))


def language_model(width=12, heads=4, blocks=1, tokens=11):
    """Returns a small model of the next token."""
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(tokens, width)(inputs)
    x = transformer(
        x,
        lambda: layers.GroupQueryAttention(width // 2, heads, heads // 2),
        width,
        blocks,
        use_causal_mask=True,
    )
    return keras.Model(inputs, layers.Dense(tokens, name="logits")(x))
