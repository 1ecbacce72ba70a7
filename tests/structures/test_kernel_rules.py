"""The rules of layers with kernels, where they differ by layer."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness


def rule_of(layer, shape):
    """Returns the rule of the one call of a model."""
    inputs = keras.Input(shape)
    liveness = Liveness(
        trace(keras.Model(inputs, layer(inputs))), to_numpy, "keep"
    )
    liveness.forward({})
    (rule,) = liveness.rules.values()
    return rule


@pytest.mark.parametrize(
    ("layer", "rank"),
    [
        (layers.Dense(5), 1),
        (layers.Conv1D(5, 2), 2),
        (layers.Conv2D(5, 2), 3),
        (layers.Conv1DTranspose(5, 2), 2),
        (layers.Conv2DTranspose(5, 2), 3),
        (layers.SeparableConv1D(5, 2, depth_multiplier=2), 2),
        (layers.SeparableConv2D(5, 2, depth_multiplier=2), 3),
        (layers.DepthwiseConv1D(2, depth_multiplier=2), 2),
        (layers.DepthwiseConv2D(2, depth_multiplier=2), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_slices_of_kernels(layer, rank):
    rule = rule_of(layer, (*[6] * (rank - 1), 3))
    outputs = 5 if rule.cuts else 6
    for part in rule.slices():
        shape = getattr(layer, part.variable).shape
        assert shape[part.axis] == len(part.channels)
        assert set(part.channels) <= set(
            range(3 if part.role == "reader" else outputs)
        )
    bias = rule.slices()[-1]
    assert (bias.variable, bias.axis, bias.role) == ("bias", 0, "member")
    assert bias.channels.tolist() == list(range(outputs))


@pytest.mark.parametrize("size", [1, 2, 3, (1, 2), (2, 1)])
@pytest.mark.parametrize("strides", [1, 2])
def test_where_same_padding_adds_zeros(size, strides):
    layer = layers.Conv2D(4, size, strides, padding="same")
    rule = rule_of(layer, (6, 6, 2))
    taps = np.broadcast_to(size, 2)
    # Six entries: stride 2 and up to 2 taps need no zero.
    needs = taps > strides
    assert rule.border == needs.any()
    assert not rule_of(layers.Conv2D(4, size, strides), (6, 6, 2)).border


def test_unknown_sizes_and_causal_padding_add_zeros():
    layer = layers.Conv2D(4, 2, 2, padding="same")
    assert rule_of(layer, (None, None, 2)).border
    assert rule_of(layers.Conv1D(4, 2, padding="causal"), (6, 2)).border
    assert not rule_of(layers.Conv1D(4, 1, padding="causal"), (6, 2)).border
    assert rule_of(layers.Conv2DTranspose(4, 1), (6, 6, 2)).border


def test_a_depthwise_kernel_with_a_zero_tap_lets_its_input_through():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    kernel = to_numpy(model.get_layer("depthwise").kernel).copy()
    kernel[0, 0, 1] = 0
    kernel[:, :, 2] = 0
    model.get_layer("depthwise").kernel.assign(kernel)
    liveness = Liveness(trace(model), to_numpy, "keep")
    liveness.forward({})
    node = next(n for n in liveness.rules if n.path == "depthwise")
    bias = to_numpy(model.get_layer("depthwise").bias)
    found = liveness.constants[node.outputs[0]]
    np.testing.assert_allclose(found, [np.nan, np.nan, bias[2]])


def test_a_depthwise_activation_that_mixes_keeps_all():
    rule = rule_of(layers.DepthwiseConv2D(2, activation="softmax"), (4, 4, 3))
    assert "may mix channels" in rule.why_inputs_stay
    assert "may mix channels" in rule.why_outputs_stay


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_is_cut_whichever_way_it_is_used(tied):
    inputs = keras.Input((4,), dtype="int32")
    table = layers.ReversibleEmbedding(6, 8, tie_weights=tied, name="table")
    x = table(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    tokens = np.array([[0, 1, 2, 3], [5, 4, 3, 2]])
    small, _ = cut_half(model, inputs=tokens)
    assert small.get_layer("table").output_dim == 4
    x = layers.Dense(8)(x)
    model = keras.Model(inputs, table(x, reverse=True))
    small, _ = cut_half(model, inputs=tokens)
    assert small.get_layer("table").output_dim == 4


def test_a_column_that_all_tokens_share_is_folded():
    x = inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(6, 5, name="table")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    table = to_numpy(model.get_layer("table").embeddings).copy()
    table[:, 1] = 0.5
    table[1, 2] = table[0, 2]  # some share it, not all
    table[:, 3] = 0
    model.get_layer("table").embeddings.assign(table)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("table").output_dim == 3
    tokens = np.random.default_rng(0).integers(0, 6, (8, 4))
    assert_same_outputs(model, small, inputs=tokens)
