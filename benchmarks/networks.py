"""The networks of `zoo.py`: functions without arguments that build them."""

import functools
import importlib

import keras
import numpy as np
from keras import layers, ops

import keras_sgl0 as ks

NETWORKS = {}


def network(builder):
    """Registers a builder under its own name."""
    NETWORKS[builder.__name__] = builder
    return builder


def _application(name):
    size = 64 if name.startswith(("VGG", "ResNet", "Mobile")) else 96
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3))


_NAMES = [name for name in dir(keras.applications) if name[0].isupper()]
for _name in _NAMES:
    NETWORKS[_name] = functools.partial(_application, _name)

NETWORKS |= {
    "LeNet5Caffe": ks.models.LeNet5Caffe,
    "LeNet300100": ks.models.MLP,
    "WideResNet28_10": functools.partial(
        ks.models.WideResNet, (32, 32, 3), 10, depth=28, width=10
    ),
    "WideResNet16_1": functools.partial(
        ks.models.WideResNet, (32, 32, 3), 10, depth=16, width=1
    ),
    "ResNet20": functools.partial(ks.models.ResNet, (32, 32, 3), 10),
    "MobileNetV2_cifar": functools.partial(
        ks.models.MobileNetV2, (32, 32, 3), 10
    ),
}


# Transformers of Keras's own layers.


def _mlp(x, width, activation="gelu"):
    y = layers.Dense(width, activation)(x)
    return layers.Dense(x.shape[-1])(y)


def _encoder(x, heads=4, norm=layers.LayerNormalization, pre=True, **call):
    width = x.shape[-1]
    attention = layers.MultiHeadAttention(heads, width // heads)
    y = norm()(x) if pre else x
    x = layers.Add()([x, attention(y, y, **call)])
    x = x if pre else norm()(x)
    y = norm()(x) if pre else x
    x = layers.Add()([x, _mlp(y, 4 * width)])
    return x if pre else norm()(x)


@keras.saving.register_keras_serializable()
class Positions(layers.Layer):
    """Adds a learned vector at each position."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="positions")

    def call(self, x):
        return x + self.table


@ks.rule(Positions)
class _PositionsRule(ks.rules.Channelwise):
    """What a user adds for a layer with a weight of its own."""

    is_linear = True

    def slices(self):
        own = np.arange(self.node.inputs[0].channels)
        return [ks.rules.Slices("table", 1, own, "member")]

    def constants(self, input_constants):
        table = self.values(self.layer.table)
        same = (table == table[:1]).all(0)
        return np.where(same, input_constants[0] + table[0], np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        table = self.values(self.layer.table)[:, kept_outputs]
        return ks.rules.Rewrite({}, {"table": table})


def _vit(norm=layers.LayerNormalization, depth=4, width=64):
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(width, 4, 4)(x)
    x = Positions()(layers.Reshape((64, width))(x))
    for _ in range(depth):
        x = _encoder(x, norm=norm)
    x = layers.GlobalAveragePooling1D()(norm()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


@network
def vit():
    return _vit()


@network
def vit_rms():
    return _vit(layers.RMSNormalization)


@network
def bert_like():
    tokens = keras.Input((32,), dtype="int32")
    x = layers.Embedding(200, 64)(tokens)
    x = layers.LayerNormalization()(Positions()(x))
    for _ in range(4):
        x = _encoder(x, pre=False)
    x = layers.Dense(64, "tanh")(x[:, 0])
    return keras.Model(tokens, layers.Dense(2)(x))


@network
def gpt_like():
    tokens = keras.Input((32,), dtype="int32")
    x = Positions()(layers.Embedding(200, 64)(tokens))
    for _ in range(4):
        x = _encoder(x, use_causal_mask=True)
    x = layers.LayerNormalization()(x)
    return keras.Model(tokens, layers.Dense(200)(x))


@network
def llama_like():
    tokens = keras.Input((32,), dtype="int32")
    x = layers.Embedding(200, 64)(tokens)
    for _ in range(4):
        y = layers.RMSNormalization()(x)
        attention = layers.GroupQueryAttention(16, 4, 2, use_bias=False)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = layers.RMSNormalization()(x)
        gate = layers.Dense(172, "silu", use_bias=False)(y)
        y = layers.Multiply()([gate, layers.Dense(172, use_bias=False)(y)])
        x = layers.Add()([x, layers.Dense(64, use_bias=False)(y)])
    x = layers.RMSNormalization()(x)
    return keras.Model(tokens, layers.Dense(200, use_bias=False)(x))


@network
def seq2seq_transformer():
    source = keras.Input((16,), dtype="int32")
    target = keras.Input((12,), dtype="int32")
    x = _encoder(layers.Embedding(100, 48)(source))
    y = layers.Embedding(100, 48)(target)
    own = layers.LayerNormalization()(y)
    y += layers.MultiHeadAttention(4, 12)(own, own, use_causal_mask=True)
    y += layers.MultiHeadAttention(4, 12)(layers.LayerNormalization()(y), x)
    y += _mlp(layers.LayerNormalization()(y), 192)
    return keras.Model([source, target], layers.Dense(100)(y))


@network
def mlp_mixer():
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Reshape((64, 64))(layers.Conv2D(64, 4, 4)(x))
    for _ in range(4):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        x = x + layers.Permute((2, 1))(_mlp(y, 32))
        x = x + _mlp(layers.LayerNormalization()(x), 128)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


@network
def conformer_like():
    x = inputs = keras.Input((40, 20))
    x = layers.Conv1D(48, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        x = _encoder(x)
        y = layers.Conv1D(96, 1)(layers.LayerNormalization()(x))
        a, b = ops.split(y, 2, axis=-1)
        y = layers.DepthwiseConv1D(5, padding="same")(a * ops.sigmoid(b))
        y = layers.Activation("silu")(layers.BatchNormalization()(y))
        x = x + layers.Conv1D(48, 1)(y)
    return keras.Model(inputs, layers.Dense(30)(x))


# Recurrent networks.


def _tokens(width=32):
    tokens = keras.Input((20,), dtype="int32")
    return tokens, layers.Embedding(100, width)(tokens)


@network
def lstm():
    tokens, x = _tokens()
    x = layers.LSTM(64)(layers.LSTM(64, return_sequences=True)(x))
    return keras.Model(tokens, layers.Dense(3)(x))


@network
def gru():
    tokens, x = _tokens()
    x = layers.GRU(64)(layers.GRU(64, return_sequences=True)(x))
    return keras.Model(tokens, layers.Dense(3)(x))


@network
def simple_rnn():
    tokens, x = _tokens()
    return keras.Model(tokens, layers.Dense(3)(layers.SimpleRNN(64)(x)))


@network
def bilstm():
    tokens, x = _tokens()
    x = layers.Bidirectional(layers.LSTM(48, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(48))(x)
    return keras.Model(tokens, layers.Dense(3)(x))


@network
def masked_lstm():
    tokens = keras.Input((20,), dtype="int32")
    x = layers.Embedding(100, 32, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.Dense(3)(layers.LSTM(64)(x)))


@network
def lstm_seq2seq():
    source, x = _tokens()
    target = keras.Input((12,), dtype="int32")
    y = layers.Embedding(80, 32)(target)
    _, h, c = layers.LSTM(64, return_state=True)(x)
    y = layers.LSTM(64, return_sequences=True)(y, initial_state=[h, c])
    return keras.Model([source, target], layers.Dense(80)(y))


@network
def crnn():
    x = inputs = keras.Input((32, 64, 1))
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2)(x)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Dense(64, "relu")(layers.Reshape((16, 8 * 64))(x))
    x = layers.Bidirectional(layers.LSTM(48, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(20)(x))


@network
def tcn():
    x = inputs = keras.Input((50, 8))
    for i in range(4):
        y = x
        for _ in range(2):
            y = layers.Conv1D(32, 3, padding="causal", dilation_rate=2**i)(y)
            y = layers.Dropout(0.1)(layers.ReLU()(y))
        x = layers.Conv1D(32, 1)(x) if i == 0 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(5)(x[:, -1]))


@network
def conv_lstm():
    x = inputs = keras.Input((5, 12, 12, 1))
    x = layers.ConvLSTM2D(16, 3, padding="same", return_sequences=True)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ConvLSTM2D(16, 3, padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(x))


@network
def video_cnn_lstm():
    x = inputs = keras.Input((6, 16, 16, 3))
    x = layers.TimeDistributed(layers.Conv2D(24, 3, activation="relu"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(inputs, layers.Dense(4)(layers.LSTM(32)(x)))


# Convolutional networks with patterns of their own.


def _conv(x, filters, size=3, strides=1, groups=1, activation="relu"):
    x = layers.Conv2D(
        filters, size, strides, "same", groups=groups, use_bias=False
    )(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def _image(size=32):
    return keras.Input((size, size, 3))


def _head(inputs, x, classes=10):
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


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
    x = inputs = _image()
    x = _conv(x, 32)
    for _ in range(2):
        y = _conv(_conv(x, 32), 32, activation=None)
        x = layers.ReLU()(layers.Add()([x, _squeeze(y, how)]))
    return _head(inputs, x)


for _how in ("keepdims", "reshape", "slices"):
    NETWORKS[f"squeeze_excite_{_how}"] = functools.partial(_se, _how)


@network
def cbam():
    x = inputs = _image()
    x = _conv(x, 32)
    for _ in range(2):
        y = _conv(x, 32)
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
    return _head(inputs, x)


@network
def resnext():
    x = inputs = _image()
    x = _conv(x, 64)
    for _ in range(3):
        y = _conv(_conv(x, 64, 1), 64, groups=8)
        y = _conv(y, 64, 1, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return _head(inputs, x)


@network
def regnet_y():
    x = inputs = _image()
    x = _conv(x, 32)
    for filters, strides in ((48, 2), (48, 1), (96, 2)):
        y = _conv(
            _conv(x, filters, 1), filters, 3, strides, groups=filters // 8
        )
        y = _conv(_squeeze(y, "keepdims"), filters, 1, activation=None)
        if strides > 1:
            x = _conv(x, filters, 1, strides, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return _head(inputs, x)


def _shuffle(x, groups):
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, groups, channels // groups))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    return layers.Reshape((height, width, channels))(x)


@network
def shufflenet():
    x = inputs = _image()
    x = _conv(x, 48)
    for _ in range(3):
        y = _shuffle(_conv(x, 48, 1, groups=3), 3)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = _conv(layers.BatchNormalization()(y), 48, 1, groups=3)
        x = layers.ReLU()(layers.Add()([x, y]))
    return _head(inputs, x)


@network
def shufflenet_v2():
    x = inputs = _image()
    x = _conv(x, 48)
    for _ in range(3):
        left, right = ops.split(x, 2, axis=-1)
        right = _conv(right, 24, 1)
        right = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(right)
        right = _conv(layers.BatchNormalization()(right), 24, 1)
        x = _shuffle(layers.Concatenate()([left, right]), 2)
    return _head(inputs, x)


@network
def yolo_c2f():
    x = inputs = _image()
    x = _conv(x, 32, activation="silu")
    for _ in range(2):
        y = _conv(x, 32, 1, activation="silu")
        parts = [y[..., :16], y[..., 16:]]
        for _ in range(2):
            z = _conv(_conv(parts[-1], 16), 16, activation="silu")
            parts.append(parts[-1] + z)
        x = _conv(layers.Concatenate()(parts), 32, 1, activation="silu")
    return _head(inputs, x)


@network
def darknet_sppf():
    x = inputs = _image()
    for filters in (16, 32, 64):
        x = _conv(x, filters, 3, 2, activation="silu")
    y = _conv(x, 32, 1, activation="silu")
    pools = [y]
    for _ in range(3):
        pools.append(layers.MaxPooling2D(5, 1, "same")(pools[-1]))
    x = _conv(layers.Concatenate()(pools), 64, 1, activation="silu")
    return _head(inputs, x)


@network
def unet():
    x = inputs = _image()
    skips = []
    for filters in (16, 32, 64):
        x = _conv(_conv(x, filters), filters)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = _conv(x, 128)
    for filters in (64, 32, 16):
        x = layers.Conv2DTranspose(filters, 2, 2, "same")(x)
        x = layers.Concatenate()([x, skips.pop()])
        x = _conv(_conv(x, filters), filters)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


@network
def unet_resize():
    x = inputs = _image()
    skip = _conv(x, 24)
    x = _conv(layers.MaxPooling2D(2)(skip), 48)
    x = ops.image.resize(x, (32, 32))
    x = _conv(ops.concatenate([x, skip], axis=-1), 24)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


@network
def fpn_head():
    x = inputs = _image(64)
    levels = []
    for filters in (16, 32, 64):
        x = _conv(_conv(x, filters, 3, 2), filters)
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
    x = inputs = _image()
    x = _conv(_conv(x, 32), 64, 3, 2)
    x = layers.Dense(32)(layers.GlobalAveragePooling2D()(x))
    tower = keras.Model(inputs, x)
    first, second = _image(), _image()
    distance = ops.square(tower(first) - tower(second))
    return keras.Model([first, second], layers.Dense(1)(distance))


@network
def inception_v1():
    x = inputs = _image()
    x = _conv(x, 32)
    for _ in range(2):
        x = layers.Concatenate()(
            [
                _conv(x, 16, 1),
                _conv(_conv(x, 16, 1), 24),
                _conv(_conv(x, 8, 1), 8, 5),
                _conv(layers.MaxPooling2D(3, 1, "same")(x), 16, 1),
            ]
        )
    return _head(inputs, x)


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
    x = inputs = _image()
    x = _conv(x, 24)
    for filters, strides in ((24, 1), (48, 2), (48, 1)):
        x = Residual(filters, strides)(x)
    return _head(inputs, x)


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


# The face detector of the package mtcnn, with its own weights. It needs that
# package, joblib and lz4.


def _mtcnn(name, shape):
    stage = importlib.import_module(f"mtcnn.network.{name.lower()}")
    tools = importlib.import_module("mtcnn.utils.tensorflow")
    inner = getattr(stage, name)()
    inner.build((None, *shape))
    inner.set_weights(tools.load_weights(f"{name.lower()}.lz4"))
    inputs = keras.Input(shape)
    return keras.Model(inputs, inner(inputs))


TRAINED = ("mtcnn_PNet", "mtcnn_RNet", "mtcnn_ONet")
for _name, _size in zip(TRAINED, (12, 24, 48), strict=True):
    NETWORKS[_name] = functools.partial(
        _mtcnn, _name.partition("_")[2], (_size, _size, 3)
    )


# Backbones of KerasHub with tiny configs.


def _hub(name, **config):
    import keras_hub

    return getattr(keras_hub.models, name)(**config)


def _with_head(name, **config):
    """Returns a backbone of a known length, and a dense layer that reads it."""
    model = _hub(name, **config)
    if not isinstance(model.input, dict):
        return keras.Model(model.input, layers.Dense(10)(model.output))
    # With a known length its layers can be followed.
    inputs = {
        key: keras.Input(
            [_LENGTH if n is None else n for n in x.shape[1:]],
            dtype=x.dtype,
            name=key,
        )
        for key, x in model.input.items()
    }
    outputs = keras.tree.flatten(model(inputs))
    return keras.Model(inputs, [layers.Dense(10)(y) for y in outputs])


_LENGTH = 12


_TEXT = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 16,
}
_LLAMA = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
_HUB = {
    "BertBackbone": _TEXT,
    "DistilBertBackbone": _TEXT,
    "RobertaBackbone": _TEXT,
    "GPT2Backbone": _TEXT,
    "OPTBackbone": _TEXT,
    "BartBackbone": _TEXT,
    "LlamaBackbone": _LLAMA,
    "MistralBackbone": _LLAMA,
    "GemmaBackbone": _LLAMA | {"head_dim": 8},
    "WhisperBackbone": {
        "vocabulary_size": 100,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "max_encoder_sequence_length": 16,
        "max_decoder_sequence_length": 16,
    },
    "ViTBackbone": {
        "image_shape": (32, 32, 3),
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 32,
        "mlp_dim": 64,
    },
    "SwinTransformerBackbone": {
        "image_shape": (32, 32, 3),
        "patch_size": 4,
        "embed_dim": 32,
        "depths": [2, 2],
        "num_heads": [4, 4],
        "window_size": 4,
    },
    "MobileNetBackbone": {
        "stackwise_expansion": [[40, 56], [64, 144]],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_filters": [[16, 16], [24, 24]],
        "stackwise_kernel_size": [[3, 5], [5, 3]],
        "stackwise_num_strides": [[2, 1], [1, 1]],
        "stackwise_se_ratio": [[0.25, None], [0.25, 0.25]],
        "stackwise_activation": [["relu6", "hard_swish"], ["hard_swish"] * 2],
        "stackwise_padding": [[1, 2], [2, 1]],
        "output_num_filters": 64,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
        "input_num_filters": 16,
        "image_shape": (32, 32, 3),
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 64,
    },
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0] * 2,
        "stackwise_depth_coefficients": [1.0] * 2,
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [2, 2],
        "stackwise_input_filters": [16, 16],
        "stackwise_output_filters": [16, 24],
        "stackwise_expansion_ratios": [1, 4],
        "stackwise_strides": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_block_types": ["v1", "v1"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "image_shape": (32, 32, 3),
    },
}
for _name, _config in _HUB.items():
    NETWORKS[_name] = functools.partial(_with_head, _name, **_config)


def _hub_resnet(size):
    return _hub(
        "ResNetBackbone",
        input_conv_filters=[16],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(size, size, 3),
    )


@network
def ResNetBackbone():
    return _hub_resnet(64)


@network
def DeepLabV3Backbone():
    return _hub(
        "DeepLabV3Backbone",
        image_encoder=_hub_resnet(64),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[6, 12],
        upsampling_size=4,
        image_shape=(64, 64, 3),
    )


@network
def RetinaNetBackbone():
    return _hub(
        "RetinaNetBackbone",
        image_encoder=_hub_resnet(128),
        min_level=3,
        max_level=4,
        use_p5=False,
        image_shape=(128, 128, 3),
    )


@network
def SegFormerBackbone():
    encoder = _hub(
        "MiTBackbone",
        layerwise_depths=[1, 1],
        image_shape=(32, 32, 3),
        hidden_dims=[16, 32],
        num_layers=2,
        layerwise_num_heads=[2, 4],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
    )
    return _hub(
        "SegFormerBackbone", image_encoder=encoder, projection_filters=32
    )
