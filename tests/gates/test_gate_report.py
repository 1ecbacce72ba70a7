"""What counts as behind a closed gate: what the rules of the layers say."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sgl0 as ks

# layers between two gates, how many of the second one's inputs come through
# the first, of whose four feature maps one is closed
BETWEEN = {
    "nothing": ([layers.Flatten], 3 * 16),
    "pooling": ([lambda: layers.MaxPooling2D(2), layers.Flatten], 3 * 4),
    "global": ([layers.GlobalAveragePooling2D], 3),
    "reshaped": ([lambda: layers.Reshape((64,))], 3 * 16),
    "batch_norm": ([layers.BatchNormalization, layers.Flatten], 3 * 16),
    "depthwise": (
        [lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)],
        3 * 2,
    ),
    "convolution": ([lambda: layers.Conv2D(4, 3)], 4),
    "softmax": ([lambda: layers.Activation("softmax"), layers.Flatten], 64),
    "layer_norm": ([layers.LayerNormalization, layers.Flatten], 64),
    "permuted": ([lambda: layers.Permute((3, 1, 2)), layers.Flatten], 64),
}


@pytest.mark.parametrize(("between", "count"), BETWEEN.values(), ids=BETWEEN)
def test_what_is_behind_a_closed_gate(between, count):
    penalty = ks.ExpectedL0(0.1, 3)
    first, second = (ks.HardConcrete(regularizer=penalty) for _ in range(2))
    x = inputs = keras.Input((4, 4, 4))
    for layer in (first, *(make() for make in between), second):
        x = layer(x)
    model = keras.Model(inputs, x)
    first.log_alpha.assign(np.array([4.0, -4.0, 4.0, 4.0]))
    second.log_alpha.assign(np.full(second.log_alpha.shape, 4.0))
    assert [g.open for g in ks.gate_report(model).layers] == [3, count]
