"""Attention that is written out, and other products of tensors."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_outputs, cut_half, scramble
from keras import layers, ops

import keras_sgl0 as ks

STEPS, HEADS, SIZE = 5, 4, 3


def heads(x, number=HEADS, name=None):
    """Returns a projection of a tensor to heads."""
    y = layers.Dense(number * SIZE, name=name)(x)
    return layers.Reshape((x.shape[1], number, SIZE))(y)


def einsum(q, k, v):
    scores = ops.einsum("btnh,bsnh->bnts", q, k) * SIZE**-0.5
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores), v)


def matmul(q, k, v):
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    scores = q @ ops.transpose(k, (0, 1, 3, 2))
    return ops.transpose(layers.Softmax()(scores) @ v, (0, 2, 1, 3))


FORMS = {
    "operation": ops.dot_product_attention,
    "causal": lambda *x: ops.dot_product_attention(*x, is_causal=True),
    "masked": lambda *x: ops.dot_product_attention(
        *x, mask=np.tri(STEPS, dtype=bool)[None, None]
    ),
    "einsum": einsum,
    "matmul": matmul,
}


def attention(form, queries=HEADS, keys=HEADS, width=8, steps=STEPS):
    """Returns a model of one attention that is written out."""
    x = inputs = keras.Input((steps, 6))
    x = layers.Dense(width, "tanh", name="before")(x)
    x = FORMS[form](
        heads(x, queries, "query"),
        heads(x, keys, "key"),
        heads(x, keys, "value"),
    )
    x = layers.Reshape((steps, queries * SIZE))(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("form", FORMS)
def test_heads_are_cut(form):
    model = attention(form)
    assert sorted(ks.structures(model).counts.tolist()) == [HEADS, 8]
    small, _ = cut_half(model)
    assert small.get_layer("query").units == HEADS * SIZE // 2
    small, _ = ks.shrink(scramble(model, 0.7), 0)
    assert_same_outputs(model, small)


@pytest.mark.parametrize("form", ["operation", "causal"])
@pytest.mark.parametrize(("queries", "keys"), [(8, 4), (4, 1), (1, 1)])
def test_heads_that_share_keys_and_values(form, queries, keys):
    model = attention(form, queries, keys)
    if keys == 1 < queries or (queries > keys and BACKEND == "tensorflow"):
        assert "share one key" in whole(model)
        return
    small, _ = cut_half(model)
    # Of a single head there is no half.
    assert small.get_layer("query").units == (queries // 2 or 1) * SIZE


def test_the_number_of_steps_may_be_unknown():
    model = scramble(attention("operation", steps=None))
    found = ks.structures(model)
    found.zero(np.arange(len(found)) % 2 == 0)
    x = np.random.default_rng(0).normal(size=(2, 5, 6))
    small, _ = ks.shrink(model, 0, inputs=x)
    assert small.get_layer("query").units == 2 * SIZE
    assert_same_outputs(model, small, inputs=x)


def test_a_constant_value_stays_one():
    model = scramble(attention("operation"), dead=0)
    value = model.get_layer("value")
    kernel = np.array(value.kernel)
    kernel[:, :SIZE] = 0
    value.kernel.assign(kernel)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("query").units == 3 * SIZE
    assert_same_outputs(model, small)


def test_what_meets_no_heads():
    inputs = keras.Input((4, 5, 3))
    x = ops.dot_product_attention(inputs, inputs, inputs)
    model = keras.Model(inputs, x)
    assert "no channels" in whole(model)


def whole(model):
    """Returns why calls stay whole."""
    _, report = ks.shrink(model, 0, verify=False)
    return " ".join(entry.note for entry in report.whole)


@pytest.mark.parametrize("mask", ["array", "tensor"])
def test_a_mask_for_each_head_keeps_them(mask):
    inputs = [keras.Input((STEPS, 6))]
    flags = np.ones((1, HEADS, STEPS, STEPS), bool)
    if mask == "tensor":
        flags = keras.Input((HEADS, STEPS, STEPS), dtype="bool")
        inputs.append(flags)
    x = heads(inputs[0])
    x = ops.dot_product_attention(x, x, x, mask=flags)
    x = layers.Dense(2)(layers.Flatten()(x))
    assert "for each head" in whole(keras.Model(inputs, x))


def pair(width=8):
    """Returns inputs and two tensors of channels without heads."""
    inputs = [keras.Input((STEPS, 6)), keras.Input((STEPS, 4))]
    x, y = (layers.Dense(width, "relu")(x) for x in inputs)
    return inputs, x, y


PRODUCTS = {
    "einsum": lambda x, y: ops.einsum("btc,bsc->bts", x, y),
    "dots": lambda x, y: ops.einsum("...tc,...sc->...ts", x, y),
    "matmul": lambda x, y: x @ layers.Permute((2, 1))(y),
    "dot": lambda x, y: layers.Dot(axes=2)([x, y]),
    "of axes": lambda x, y: layers.Dot((-1, 1))([x, layers.Permute((2, 1))(y)]),
    "over steps": lambda x, y: ops.einsum("btc,btc->bt", x, y),
    "kept": lambda x, y: ops.einsum("btc,btc->btc", x, y),
    "examples": lambda x, y: ops.einsum("btc,bsc->bc", x, y),
    "three": lambda x, y: ops.einsum("btc,bsc,bsc->btc", x, y, y),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_channels_that_are_summed_over_go_together(kind):
    inputs, x, y = pair()
    x = layers.Flatten()(PRODUCTS[kind](x, y))
    model = keras.Model(inputs, layers.Dense(2)(x))
    small, dead = cut_half(model)
    assert dead.sum() == 4
    assert [x.units for x in small.layers if hasattr(x, "units")] == [4, 4, 2]
    # Dead in one operand is dead in both.
    for seed in range(2):
        small, _ = ks.shrink(scramble(model, 0.4, seed), 0)
        assert_same_outputs(model, small)
        assert small.layers[2].units == small.layers[3].units


def test_an_outer_product_is_cut_on_both_sides():
    inputs, x, y = pair()
    y = layers.Dense(5)(y)
    z = ops.einsum("btc,btd->bcd", x, y)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(z)))
    small, _ = ks.shrink(scramble(model), 0)
    assert_same_outputs(model, small)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x, y: ops.einsum("btc,bsc", x, y), "no `->`"),
        (lambda x, y: ops.matmul(x, np.ones((8, 3), "float32")), "an array"),
        (lambda x, y: ops.einsum("btc,asc->btsac", x, y), "mixes examples"),
        (lambda x, y: layers.Dot(2, normalize=True)([x, y]), "normalizes"),
        (
            lambda x, y: ops.einsum("btt,btc->bc", x[:, :, :STEPS], y),
            "diagonal",
        ),
    ],
)
def test_what_is_not_covered(make, reason):
    inputs, x, y = pair()
    assert reason in whole(keras.Model(inputs, make(x, y)))


def test_positions_that_meet_channels_keep_them():
    inputs, x, y = pair()
    # The channels of x are the steps of y.
    y = layers.Dense(4)(keras.Input((8, 4)))
    inputs.append(y._keras_history.operation.input)
    z = ops.einsum("btc,bcd->btd", x, y)
    model = keras.Model(inputs, layers.Dense(2)(z))
    small, _ = ks.shrink(scramble(model), 0)
    assert small.layers[2].units == 8 or small.layers[3].units == 8
    assert_same_outputs(model, small)


def test_softmax_over_channels_keeps_them():
    x = layers.Dense(8)(keras.Input((STEPS, 6)))
    inputs = x._keras_history.operation.input
    for axis in (-1, (1, 2), None):
        y = layers.Dense(2)(ops.softmax(x, axis))
        assert "depends on others" in whole(keras.Model(inputs, y))
    y = layers.Dense(2)(layers.Softmax(axis=1)(x))
    small, _ = cut_half(keras.Model(inputs, y))
    assert small.layers[1].units == 4


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize("use_scale", [True, False])
def test_a_layer_of_one_head(has_key, use_scale):
    inputs, x, y = pair()
    given = [x, y, layers.Dense(8, "tanh")(inputs[1])][: 2 + has_key]
    layer = layers.Attention(use_scale, name="head")
    z = layer(given, use_causal_mask=True)
    model = keras.Model(inputs, layers.Dense(2)(z))
    small, dead = cut_half(model)
    assert dead.sum() == (8 if has_key else 4)
    assert small.get_layer("head").output.shape[-1] == 4
    for seed in range(2):
        small, _ = ks.shrink(scramble(model, 0.4, seed), 0)
        assert_same_outputs(model, small)


def test_a_layer_of_one_head_that_is_not_covered():
    inputs, x, y = pair()
    z = layers.Attention(score_mode="concat")([x, y])
    assert "no products" in whole(keras.Model(inputs, z))
    z = layers.Attention()([x, y], return_attention_scores=True)
    assert "attention scores" in whole(keras.Model(inputs, z))
    x = layers.Permute((2, 1))(layers.Dense(8)(layers.Permute((2, 1))(x)))
    y = layers.Permute((2, 1))(layers.Dense(8)(layers.Permute((2, 1))(y)))
    z = layers.Attention()([x, y])
    assert "at the last axis" in whole(keras.Model(inputs, z))
