"""Recurrent networks."""

import keras
from keras import layers

from networks.common import network


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


@network
def video_mobilenet():
    pictures = keras.applications.MobileNetV2(
        (32, 32, 3), include_top=False, weights=None, pooling="avg"
    )
    x = inputs = keras.Input((6, 32, 32, 3))
    x = layers.TimeDistributed(pictures)(x)
    x = layers.Dropout(0.2)(layers.GRU(64)(x))
    return keras.Model(inputs, layers.Dense(4)(x))
