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
    "no_activation": (ops.square, (4, 2), 0, 0),
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


def test_models_in_models_and_unknown_layers():
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="conv")],
        name="inner",
    )
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((36, 4))(inner(x))
    model = keras.Model(inputs, layers.LSTM(5, name="lstm")(x))
    report = ks.count_macs(model)
    costs = {e.layer: e for e in report.layers}
    assert costs["inner/conv"].macs == 36 * 108
    assert costs["lstm"].macs == 0
    assert costs["lstm"].note == "not counted: kernel, recurrent_kernel"
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
