"""What modules of networks share."""

import keras
from keras import layers

NETWORKS: dict = {}


def network(builder):
    """Registers a builder under its own name."""
    NETWORKS[builder.__name__] = builder
    return builder


def conv(x, filters, size=3, strides=1, groups=1, activation="relu"):
    x = layers.Conv2D(
        filters, size, strides, "same", groups=groups, use_bias=False
    )(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def image(size=32):
    return keras.Input((size, size, 3))


def head(inputs, x, classes=10):
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))
