import keras
import networks
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers

import keras_sgl0 as ks


def test_a_dense_layer_by_hand():
    model = networks.mlp()
    (w1, b1), (w2, b2), (w3, b3) = (x.get_weights() for x in model.layers)
    small, report = ks.delete_channels(model, {"first": [1, 5], "second": [0]})
    one, two = np.delete(np.arange(16), [1, 5]), np.arange(1, 9)
    expected = [w1[:, one], b1[one], w2[one][:, two], b2[two], w3[two], b3]
    for a, b in zip(expected, small.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert report.relative_difference < 1e-5
    assert model.get_layer("first").units == 16


def test_a_channel_of_a_stream_goes_everywhere():
    model = networks.residual(8, stream=6, inner=8, outputs=5)
    networks.vary_statistics(model)
    _, report = ks.delete_channels(model, {"stem": [2]})
    after = {entry.layer: entry.channels_after for entry in report.layers}
    assert after["stem"] == after["stem_norm"] == 5
    assert report.relative_difference < 1e-5
    found = ks.structures(model)
    stream = found.discovery.channels[
        next(
            node.outputs[0]
            for node in found.discovery.graph.nodes
            if node.path == "stem"
        )
    ]
    kept = np.arange(found.size) != stream[2]
    assert report.parameters_after == found.cost(kept).parameters
    assert report.macs_after == found.cost(kept).macs


def test_a_layer_of_an_inner_model():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(5)],
        name="inner",
    )
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])
    small, _ = ks.delete_channels(model, {"inner/a": [0, 3]})
    w, b = inner.get_layer("a").get_weights()
    keep = [1, 2, 4, 5]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    hidden = x @ w[:, keep] + b[keep]
    v, c = inner.layers[1].get_weights()
    u, d = model.layers[1].get_weights()
    expected = (hidden @ v[keep] + c) @ u + d
    np.testing.assert_allclose(to_numpy(small(x)), expected, rtol=1e-4)


def test_no_channels_of_one_layer_is_allowed():
    model = networks.mlp()
    small, _ = ks.delete_channels(model, {"first": [], "second": [3]})
    assert [x.units for x in small.layers[1:]] == [16, 8, 3]


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({}, "a dictionary from the name of a layer"),
        ([("first", [1])], "a dictionary from the name of a layer"),
        ({"third": [1]}, "names of layers, such as"),
        ({"first": [16]}, "indices from 0 to 15 for `first`"),
        ({"first": [-1]}, "indices from 0 to 15 for `first`"),
        ({"first": [0.5]}, "indices from 0 to 15 for `first`"),
        ({"first": range(16)}, "one channel or more to be left in first"),
        ({"last": [0]}, "Channels of `last` cannot be cut: .*output"),
    ],
)
def test_refusals(channels, words):
    with pytest.raises(ValueError, match=words):
        ks.delete_channels(networks.mlp(), channels)
