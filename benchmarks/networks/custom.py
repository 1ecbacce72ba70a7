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
