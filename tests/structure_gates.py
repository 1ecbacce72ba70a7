"""Small models whose structures get gates, and what one does with them."""

import keras
import networks
import numpy as np
from helpers import scale_all, scramble
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates


def residual():
    return networks.residual(6, stream=3, inner=4, outputs=2)


def inverted():
    """Wide inside, a depthwise convolution there, and a narrow stream."""
    x = inputs = keras.Input((6, 6, 3))
    x = stream = layers.Conv2D(3, 3, padding="same", use_bias=False)(x)
    x = layers.Conv2D(5, 1, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(3, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, stream]))
    return keras.Model(inputs, layers.Dense(2)(x))


def concatenated():
    """Each layer reads all before it, the input too."""
    x = inputs = keras.Input((6, 6, 2))
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(3, 3, padding="same")(y)
        x = layers.Concatenate()([x, y])
    x = layers.Flatten()(layers.MaxPooling2D(3)(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(x)))


def nested():
    """A stream that runs through a model in the model."""
    inside = keras.Input((6, 6, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(inside)
    y = layers.Conv2D(3, 3, padding="same")(y)
    inner = keras.Model(inside, layers.Add()([inside, y]), name="inner")
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3),
            layers.ReLU(),
            layers.ZeroPadding2D(),
            inner,
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def same_family():
    """A convolution reads and makes the same stream."""
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, padding="same")(x)
    y = layers.Conv2D(3, 3, padding="same")(layers.ReLU()(x))
    x = layers.Flatten()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x))


def kinds_of_kernels():
    x = inputs = keras.Input((6, 6, 2))
    x = layers.SeparableConv2D(3, 3, padding="same", depth_multiplier=2)(x)
    x = layers.PReLU(shared_axes=(1, 2))(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    z = layers.Conv2DTranspose(3, 3, padding="same")(x)
    z = layers.SeparableConv2D(2, 3, padding="same", depth_multiplier=2)(z)
    x = layers.Flatten()(layers.Concatenate()([y, z]))
    return keras.Model(inputs, layers.Dense(2)(x))


MODELS = {
    "residual": residual,
    "inverted": inverted,
    "concatenated": concatenated,
    "nested": nested,
    "same_family": same_family,
    "kinds_of_kernels": kinds_of_kernels,
}


def build(name):
    """Returns a model with random weights, none of them zero."""
    keras.utils.set_random_seed(0)
    return scale_all(scramble(MODELS[name](), dead=0))


def set_gates(model, values):
    """Gives all gates of a model a `log_alpha`, one after the other."""
    start = 0
    for gate in gates(model):
        end = start + gate.log_alpha.shape[0]
        gate.log_alpha.assign(values[start:end])
        start = end


def close(model, closed):
    """Closes some gates of a model and opens all others."""
    set_gates(model, np.where(closed, -4.0, 4.0))


def at_random(model, seed=0):
    """Gives the gates of a model values between 0 and 1, some 0, some 1."""
    size = sum(gate.log_alpha.shape[0] for gate in gates(model))
    values = np.linspace(-3, 3, size)
    set_gates(model, np.random.default_rng(seed).permutation(values))


def half_closed(model):
    """Returns flags of structures, some of every family left."""
    found = ks.structures(model)
    closed = np.random.default_rng(1).random(found.size) < 0.5
    first = np.flatnonzero(np.diff(found.families, prepend=-1))
    closed[first] = False
    return closed
