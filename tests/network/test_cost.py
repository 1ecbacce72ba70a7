import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_sgl0 as ks


def test_lenet_has_the_papers_multiply_adds():
    model = ks.models.LeNet5Caffe()
    report = ks.count_macs(model)
    assert (report.parameters, report.macs) == (431_080, 2_293_000)
    costs = {e.layer: (e.parameters, e.macs) for e in report.layers}
    assert costs["conv1"] == (520, 288_000)
    assert costs["conv2"] == (25_050, 1_600_000)
    assert costs["fc1"] == (400_500, 400_000)
    assert costs["fc2"] == (5_010, 5_000)
    assert ks.count_macs(model, elementwise=True).macs == 2_327_130


# layer, input shape, multiply-adds, those of the wider count
LAYERS = {
    "dense": (layers.Dense(5), (7,), 35, 40),
    "dense_no_bias": (layers.Dense(5, use_bias=False), (7,), 35, 35),
    "dense_everywhere": (layers.Dense(5, "relu"), (4, 7), 140, 180),
    "conv": (layers.Conv2D(4, 3), (8, 8, 2), 36 * 72, 36 * 76),
    "same": (layers.Conv2D(4, 3, 2, "same"), (8, 8, 2), 16 * 72, 16 * 76),
    "groups": (layers.Conv2D(4, 3, groups=2), (8, 8, 2), 36 * 36, 36 * 40),
    "conv1d": (layers.Conv1D(4, 3), (8, 2), 6 * 24, 6 * 28),
    "conv3d": (layers.Conv3D(4, 2), (3, 3, 3, 2), 8 * 64, 8 * 68),
    "transpose": (
        layers.Conv2DTranspose(4, 3, 2),
        (5, 5, 2),
        25 * 72,
        25 * 72 + 11 * 11 * 4,
    ),
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        (8, 8, 2),
        36 * 36,
        36 * 40,
    ),
    "separable": (
        layers.SeparableConv2D(5, 3),
        (8, 8, 2),
        36 * (18 + 10),
        36 * (18 + 15),
    ),
    "einsum": (
        layers.EinsumDense("...x,xy->...y", 5),
        (4, 7),
        140,
        140,
    ),
    "heads": (
        layers.EinsumDense("abc,cde->abde", (4, 2, 5), bias_axes="de"),
        (4, 7),
        280,
        320,
    ),
    "embedding": (layers.Embedding(9, 5), (4,), 0, 0),
    "relu": (layers.ReLU(), (8, 8, 2), 0, 128),
    "linear": (layers.Activation("linear"), (8, 8, 2), 0, 0),
    "pooling": (layers.MaxPooling2D(2), (8, 8, 2), 0, 32),
    "global_pooling": (layers.GlobalAveragePooling2D(), (8, 8, 2), 0, 2),
    "batch_norm": (layers.BatchNormalization(), (8, 8, 2), 0, 0),
    "prelu": (layers.PReLU(), (4, 2), 0, 8),
    "operation": (ops.leaky_relu, (4, 2), 0, 8),
    "activation_relu": (keras.activations.relu, (4, 2), 0, 8),
    "activation_exp": (keras.activations.exponential, (4, 2), 0, 8),
    "log_sigmoid": (ops.log_sigmoid, (4, 2), 0, 8),
    "no_activation": (ops.square, (4, 2), 0, 0),
    # Steps times (inputs + units) times the units of all gates.
    "simple_rnn": (layers.SimpleRNN(4, "linear"), (7, 3), 7 * 28, 7 * 28),
    "lstm": (layers.LSTM(4, "linear"), (7, 3), 7 * 4 * 28, 7 * 4 * 28),
    "gru": (layers.GRU(4, "linear"), (7, 3), 7 * 3 * 28, 7 * 3 * 28),
    "bidirectional": (
        layers.Bidirectional(layers.LSTM(4)),
        (7, 3),
        2 * 7 * 4 * 28,
        2 * 7 * 4 * 28,
    ),
    "stacked": (
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)]),
        (7, 3),
        7 * 4 * 28 + 7 * 3 * 45,
        7 * 4 * 28 + 7 * 3 * 45,
    ),
    "conv_lstm": (
        layers.ConvLSTM2D(4, 3, activation="linear"),
        (7, 8, 8, 2),
        7 * 36 * 9 * (2 + 4) * 16,
        7 * 36 * 9 * (2 + 4) * 16,
    ),
    "conv_lstm_sequences": (
        layers.ConvLSTM1D(
            4,
            3,
            padding="same",
            return_sequences=True,
            activation="linear",
        ),
        (7, 8, 2),
        7 * 8 * 3 * (2 + 4) * 16,
        7 * 8 * 3 * (2 + 4) * 16,
    ),
    "everywhere": (
        layers.TimeDistributed(layers.Conv2D(4, 3)),
        (5, 8, 8, 2),
        5 * 36 * 72,
        5 * 36 * 72,
    ),
    "everywhere_recurrent": (
        layers.TimeDistributed(layers.Bidirectional(layers.GRU(4))),
        (5, 7, 3),
        5 * 2 * 7 * 3 * 28,
        5 * 2 * 7 * 3 * 28,
    ),
}


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "wider"), LAYERS.values(), ids=LAYERS
)
def test_one_layer(layer, shape, macs, wider):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    report = ks.count_macs(model)
    assert report.macs == macs
    assert report.parameters == model.count_params()
    assert report.layers[0].note == ""
    assert ks.count_macs(model, elementwise=True).macs == wider
    each = ks.macs_per_weight(model)
    assert sum(int(np.prod(v.shape)) * n for v, n in each) == macs


def test_a_kernel_counts_for_every_call():
    shared = layers.Dense(6, use_bias=False)
    inputs = keras.Input((3, 6))
    model = keras.Model(inputs, shared(shared(inputs)))
    report = ks.count_macs(model)
    assert (report.parameters, report.macs) == (36, 2 * 3 * 36)
    ((kernel, number),) = ks.macs_per_weight(model)
    assert kernel is shared.kernel
    assert number == 6


class Mixer(layers.Layer):
    """A layer that is in no table."""

    def __init__(self, squashed=False, **kwargs):
        super().__init__(**kwargs)
        self.squashed = squashed

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")

    def call(self, x):
        return x @ (ops.tanh(self.kernel) if self.squashed else self.kernel)


def test_products_with_a_weight_of_a_layer_are_counted():
    model = keras.Sequential([keras.Input((7, 4)), Mixer(name="mixer")])
    (entry,) = ks.count_macs(model).layers
    assert (entry.layer, entry.macs) == ("mixer/kernel", 7 * 4 * 5)


def test_models_in_models_and_computed_kernels():
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="conv")],
        name="inner",
    )
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((36, 4))(inner(x))
    model = keras.Model(inputs, Mixer(squashed=True, name="mixer")(x))
    report = ks.count_macs(model)
    costs = {e.layer: e for e in report.layers}
    assert costs["inner/conv"].macs == 36 * 108
    assert costs["mixer/matmul"].macs == 0
    assert costs["mixer/matmul"].note == "not counted: a computed kernel"
    assert report.parameters == model.count_params()
    content = json.loads(json.dumps(report.to_dict()))
    assert content["macs"] == report.macs
    text = str(report)
    for part in ("inner/conv", "3,888", "not counted", "total"):
        assert part in text


def test_unknown_sizes_and_unbuilt_models_are_refused():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    for function in (ks.count_macs, ks.macs_per_weight):
        with pytest.raises(ValueError, match="inputs have known sizes"):
            function(model)
        with pytest.raises(ValueError, match="argument `model`"):
            function(keras.Sequential([layers.Dense(2)]))


@pytest.mark.parametrize("attention", ["heads", "groups"])
def test_the_projections_of_attention_count_where_they_are_applied(attention):
    layer = {
        "heads": layers.MultiHeadAttention(2, 3, value_dim=5),
        "groups": layers.GroupQueryAttention(3, 4, 2),
    }[attention]
    query, value = keras.Input((7, 6)), keras.Input((9, 6))
    model = keras.Model([query, value], layer(query, value=value))
    kernels = {v.path.split("/")[-2]: v for v in layer.weights if v.ndim == 3}
    positions = {"query": 7, "key": 9, "value": 9, "attention_output": 7}
    assert kernels.keys() == positions.keys()
    report = ks.count_macs(model)
    assert report.macs == sum(
        positions[name] * np.prod(v.shape) for name, v in kernels.items()
    )
    assert {e.note for e in report.layers} == {""}
    assert ks.structures(model).cost().macs == report.macs


def test_sizes_that_no_kernel_meets_need_not_be_known():
    x = inputs = keras.Input((None,), dtype="int32")
    x = layers.ReLU(name="relu")(layers.Embedding(9, 6)(x))
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(4)(x))
    assert ks.count_macs(model).macs == 24
    assert ks.structures(model).cost().macs == 24
    assert ks.shrink(model)[1].macs == 24
    with pytest.raises(ValueError, match=r"unknown sizes at .'relu'"):
        ks.count_macs(model, elementwise=True)


def test_sizes_may_be_given():
    x = inputs = keras.Input((None, None, 3), name="image")
    other = keras.Input((None, 4), name="text")
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3)]
    )
    x = layers.GlobalMaxPooling2D()(inner(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    report = ks.count_macs(model, input_shapes=(8, 6, 3))
    assert report.macs == 24 * 108 + 8
    by_list = ks.count_macs(model, input_shapes=[(8, 6, 3)])
    by_name = ks.count_macs(model, input_shapes={"image": (8, 6, 3)})
    assert report == by_list == by_name
    y = layers.GlobalMaxPooling1D()(layers.Dense(5)(other))
    both = keras.Model([inputs, other], layers.Concatenate()([x, y]))
    given = {"image": (8, 6, 3), "text": (10, 4)}
    counted = 24 * 108 + 10 * 20
    assert ks.count_macs(both, input_shapes=given).macs == counted
    by_list = ks.count_macs(both, input_shapes=list(given.values()))
    assert by_list.macs == counted
    nested = keras.Model({"text": other}, y)
    assert ks.count_macs(nested, input_shapes={"text": (3, 4)}).macs == 60
    for wrong in ((8, 6), (8, 6, 2), [(8, 6, 3)] * 2, {"no": (8, 6, 3)}, 8):
        with pytest.raises(ValueError, match=r"argument `input_shapes`.*image"):
            ks.count_macs(model, input_shapes=wrong)


@pytest.mark.parametrize("batch", [None, 2])
def test_windows_and_pictures_are_counted_as_often_as_there_are(batch):
    x = inputs = keras.Input(batch_shape=(batch, 8, 8, 3))
    x = ops.reshape(x, (-1, 2, 4, 2, 4, 3))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, 16, 3))
    x = layers.Dense(5, name="windows")(x)
    x = ops.reshape(x, (-1, 8, 8, 5))
    x = layers.Dense(2, activation="relu", name="whole")(x)
    both = ops.concatenate([x, x], axis=0)
    both = layers.Dense(4, name="both")(both)
    first, _ = ops.split(both, 2, axis=0)
    model = keras.Model(inputs, layers.Dense(1, name="first")(first))
    report = ks.count_macs(model)
    macs = {row.layer: row.macs for row in report.layers if row.macs}
    assert macs == {
        "windows": 64 * 3 * 5,
        "whole": 64 * 5 * 2,
        "both": 2 * 64 * 2 * 4,
        "first": 64 * 4,
    }
    wider = ks.count_macs(model, elementwise=True)
    assert wider.macs - report.macs == 64 * (5 + 2 * 2 + 2 * 4 + 1)
