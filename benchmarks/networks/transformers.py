"""Transformers of Keras's own layers."""

import keras
import numpy as np
from keras import layers, ops

import keras_sgl0 as ks
from networks.common import network


def _mlp(x, width, activation="gelu"):
    y = layers.Dense(width, activation)(x)
    return layers.Dense(x.shape[-1])(y)


def encoder(x, heads=4, norm=layers.LayerNormalization, pre=True, **call):
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
        x = encoder(x, norm=norm)
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
        x = encoder(x, pre=False)
    x = layers.Dense(64, "tanh")(x[:, 0])
    return keras.Model(tokens, layers.Dense(2)(x))


@network
def gpt_like():
    tokens = keras.Input((32,), dtype="int32")
    x = Positions()(layers.Embedding(200, 64)(tokens))
    for _ in range(4):
        x = encoder(x, use_causal_mask=True)
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
    x = encoder(layers.Embedding(100, 48)(source))
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
        x = encoder(x)
        y = layers.Conv1D(96, 1)(layers.LayerNormalization()(x))
        a, b = ops.split(y, 2, axis=-1)
        y = layers.DepthwiseConv1D(5, padding="same")(a * ops.sigmoid(b))
        y = layers.Activation("silu")(layers.BatchNormalization()(y))
        x = x + layers.Conv1D(48, 1)(y)
    return keras.Model(inputs, layers.Dense(30)(x))
