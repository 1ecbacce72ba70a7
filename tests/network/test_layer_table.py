"""The one table of layers with kernels."""

import keras
import pytest
from keras import layers

from keras_sgl0.network.layer_table import layouts, layouts_of

# layer, input shape, the fan-in of each kernel
FANS_IN = {
    "dense": (layers.Dense(5), (4, 7), [7]),
    "conv1d": (layers.Conv1D(4, 3), (8, 2), [3 * 2]),
    "conv2d": (layers.Conv2D(4, (3, 5)), (8, 8, 2), [15 * 2]),
    "conv3d": (layers.Conv3D(4, 2), (3, 3, 3, 2), [8 * 2]),
    "groups": (layers.Conv2D(4, 3, groups=2), (8, 8, 6), [9 * 3]),
    "channels_first": (
        layers.Conv2D(4, 3, data_format="channels_first"),
        (2, 8, 9),
        [9 * 2],
    ),
    "transpose": (layers.Conv2DTranspose(4, 3), (5, 5, 2), [9 * 2]),
    "depthwise": (
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        (8, 8, 256),
        [9],
    ),
    "separable": (
        layers.SeparableConv2D(5, 3, depth_multiplier=2),
        (8, 8, 7),
        [9, 14],
    ),
    "einsum": (
        layers.EinsumDense("abc,cde->abde", (4, 2, 5)),
        (4, 7),
        [7],
    ),
    "einsum_of_two": (
        layers.EinsumDense("abde,dec->abc", (4, 3)),
        (4, 2, 5),
        [10],
    ),
    "einsum_by_index": (
        layers.EinsumDense("abc,bcd->abd", (4, 3)),
        (4, 7),
        [7],
    ),
    "embedding": (layers.Embedding(9, 5), (4,), [1]),
}


@pytest.mark.parametrize(
    ("layer", "shape", "expected"), FANS_IN.values(), ids=FANS_IN
)
def test_fan_in(layer, shape, expected):
    # Built alone, as some backends cannot call 'channels_first'.
    layer.build((None, *shape))
    found = [
        layout.fan_in(tuple(getattr(layer, layout.kernel).shape))
        for layout in layouts((layer,))
    ]
    assert found == expected


def test_a_layer_that_is_not_built_has_no_kernels_yet():
    assert layouts((layers.Dense(3),)) == ()


def test_projections_are_grouped_by_their_outputs():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.EinsumDense("abc,cd->abd", (4, 5))(x)
    model = keras.Model(inputs, x)
    found = layouts_of(model).values()
    assert [layout.auto for layout in found] == [-1, -1, -1, -1, -2]
    assert {layout.applied for layout in found} == {"einsum"}
