"""Convolutional networks with patterns of their own."""

import functools

import keras
from keras import layers, ops

from networks.common import NETWORKS, conv, head, image, network


def _squeeze(x, how):
    channels = x.shape[-1]
    if how == "keepdims":
        s = layers.GlobalAveragePooling2D(keepdims=True)(x)
        s = layers.Conv2D(channels // 4, 1, activation="relu")(s)
        s = layers.Conv2D(channels, 1, activation="sigmoid")(s)
        return layers.Multiply()([x, s])
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Dense(channels // 4, "relu")(s)
    s = layers.Dense(channels, "sigmoid")(s)
    if how == "reshape":
        return layers.Multiply()([x, layers.Reshape((1, 1, channels))(s)])
    if how == "slices":
        return x * s[:, None, None, :]
    return layers.Multiply()([x, s])


def _se(how):
    x = inputs = image()
    x = conv(x, 32)
    for _ in range(2):
        y = conv(conv(x, 32), 32, activation=None)
        x = layers.ReLU()(layers.Add()([x, _squeeze(y, how)]))
    return head(inputs, x)


for _how in ("keepdims", "reshape", "slices"):
    NETWORKS[f"squeeze_excite_{_how}"] = functools.partial(_se, _how)


@network
def cbam():
    x = inputs = image()
    x = conv(x, 32)
    for _ in range(2):
        y = conv(x, 32)
        first, second = layers.Dense(8, "relu"), layers.Dense(32)
        mean = layers.GlobalAveragePooling2D(keepdims=True)(y)
        most = layers.GlobalMaxPooling2D(keepdims=True)(y)
        s = layers.Add()([second(first(mean)), second(first(most))])
        y = layers.Multiply()([y, layers.Activation("sigmoid")(s)])
        places = layers.Concatenate()(
            [
                ops.mean(y, axis=-1, keepdims=True),
                ops.max(y, axis=-1, keepdims=True),
            ]
        )
        places = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(
            places
        )
        x = layers.Add()([x, layers.Multiply()([y, places])])
    return head(inputs, x)


@network
def resnext():
    x = inputs = image()
    x = conv(x, 64)
    for _ in range(3):
        y = conv(conv(x, 64, 1), 64, groups=8)
        y = conv(y, 64, 1, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return head(inputs, x)


@network
def regnet_y():
    x = inputs = image()
    x = conv(x, 32)
    for filters, strides in ((48, 2), (48, 1), (96, 2)):
        y = conv(conv(x, filters, 1), filters, 3, strides, groups=filters // 8)
        y = conv(_squeeze(y, "keepdims"), filters, 1, activation=None)
        if strides > 1:
            x = conv(x, filters, 1, strides, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return head(inputs, x)


def _shuffle(x, groups):
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, groups, channels // groups))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    return layers.Reshape((height, width, channels))(x)


@network
def shufflenet():
    x = inputs = image()
    x = conv(x, 48)
    for _ in range(3):
        y = _shuffle(conv(x, 48, 1, groups=3), 3)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = conv(layers.BatchNormalization()(y), 48, 1, groups=3)
        x = layers.ReLU()(layers.Add()([x, y]))
    return head(inputs, x)


@network
def shufflenet_v2():
    x = inputs = image()
    x = conv(x, 48)
    for _ in range(3):
        left, right = ops.split(x, 2, axis=-1)
        right = conv(right, 24, 1)
        right = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(right)
        right = conv(layers.BatchNormalization()(right), 24, 1)
        x = _shuffle(layers.Concatenate()([left, right]), 2)
    return head(inputs, x)


@network
def yolo_c2f():
    x = inputs = image()
    x = conv(x, 32, activation="silu")
    for _ in range(2):
        y = conv(x, 32, 1, activation="silu")
        parts = [y[..., :16], y[..., 16:]]
        for _ in range(2):
            z = conv(conv(parts[-1], 16), 16, activation="silu")
            parts.append(parts[-1] + z)
        x = conv(layers.Concatenate()(parts), 32, 1, activation="silu")
    return head(inputs, x)


@network
def darknet_sppf():
    x = inputs = image()
    for filters in (16, 32, 64):
        x = conv(x, filters, 3, 2, activation="silu")
    y = conv(x, 32, 1, activation="silu")
    pools = [y]
    for _ in range(3):
        pools.append(layers.MaxPooling2D(5, 1, "same")(pools[-1]))
    x = conv(layers.Concatenate()(pools), 64, 1, activation="silu")
    return head(inputs, x)


@network
def unet():
    x = inputs = image()
    skips = []
    for filters in (16, 32, 64):
        x = conv(conv(x, filters), filters)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = conv(x, 128)
    for filters in (64, 32, 16):
        x = layers.Conv2DTranspose(filters, 2, 2, "same")(x)
        x = layers.Concatenate()([x, skips.pop()])
        x = conv(conv(x, filters), filters)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


@network
def unet_resize():
    x = inputs = image()
    skip = conv(x, 24)
    x = conv(layers.MaxPooling2D(2)(skip), 48)
    x = ops.image.resize(x, (32, 32))
    x = conv(ops.concatenate([x, skip], axis=-1), 24)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


@network
def fpn_head():
    x = inputs = image(64)
    levels = []
    for filters in (16, 32, 64):
        x = conv(conv(x, filters, 3, 2), filters)
        levels.append(x)
    laterals = [layers.Conv2D(32, 1)(level) for level in levels]
    for i in (1, 0):
        up = layers.UpSampling2D(2)(laterals[i + 1])
        laterals[i] = layers.Add()([laterals[i], up])
    tower = [layers.Conv2D(32, 3, padding="same", activation="relu")] * 1
    tower.append(layers.Conv2D(32, 3, padding="same", activation="relu"))
    boxes = layers.Conv2D(4, 3, padding="same")
    outputs = []
    for level in laterals:
        for layer in tower:
            level = layer(level)
        outputs.append(layers.Reshape((-1, 4))(boxes(level)))
    return keras.Model(inputs, layers.Concatenate(axis=1)(outputs))


@network
def siamese():
    x = inputs = image()
    x = conv(conv(x, 32), 64, 3, 2)
    x = layers.Dense(32)(layers.GlobalAveragePooling2D()(x))
    tower = keras.Model(inputs, x)
    first, second = image(), image()
    distance = ops.square(tower(first) - tower(second))
    return keras.Model([first, second], layers.Dense(1)(distance))


@network
def inception_v1():
    x = inputs = image()
    x = conv(x, 32)
    for _ in range(2):
        x = layers.Concatenate()(
            [
                conv(x, 16, 1),
                conv(conv(x, 16, 1), 24),
                conv(conv(x, 8, 1), 8, 5),
                conv(layers.MaxPooling2D(3, 1, "same")(x), 16, 1),
            ]
        )
    return head(inputs, x)


@network
def dcgan_generator():
    x = inputs = keras.Input((32,))
    x = layers.Dense(4 * 4 * 64, use_bias=False)(x)
    x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    x = layers.Reshape((4, 4, 64))(x)
    for filters in (32, 16):
        x = layers.Conv2DTranspose(filters, 5, 2, "same", use_bias=False)(x)
        x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2DTranspose(3, 5, 2, "same", activation="tanh")(x)
    return keras.Model(inputs, x)


@network
def autoencoder():
    x = inputs = keras.Input((64,))
    for units in (48, 16, 8, 16, 48):
        x = layers.Dense(units, "relu")(x)
    return keras.Model(inputs, layers.Dense(64)(x))


@network
def wide_and_deep():
    wide, deep = keras.Input((10,)), keras.Input((20,))
    x = layers.Dense(64, "relu")(layers.Dense(64, "relu")(deep))
    return keras.Model(
        [wide, deep], layers.Dense(1)(layers.Concatenate()([wide, x]))
    )


@network
def dlrm():
    numbers = keras.Input((13,))
    ids = [keras.Input((), dtype="int32") for _ in range(3)]
    dense = layers.Dense(16, "relu")(layers.Dense(32, "relu")(numbers))
    vectors = [layers.Embedding(50, 16)(i) for i in ids]
    x = layers.Concatenate()([dense, *vectors])
    x = layers.Dense(32, "relu")(layers.Dense(64, "relu")(x))
    return keras.Model([numbers, *ids], layers.Dense(1)(x))


@network
def spectral_discriminator():
    x = inputs = image()
    for filters in (32, 64, 128):
        convolution = layers.Conv2D(filters, 4, 2, padding="same")
        x = layers.SpectralNormalization(convolution)(x)
        x = layers.LeakyReLU(0.2)(x)
    x = layers.SpectralNormalization(layers.Dense(1))(layers.Flatten()(x))
    return keras.Model(inputs, x)
