"""`EinsumDense` without some of its inputs and outputs."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half, scramble, to_numpy
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.network.equations import spell


def between(*several, shape=(5, 6), width=8, last=True, activation="tanh"):
    """Returns a model of layers between two dense ones."""
    x = inputs = keras.Input(shape)
    x = layers.Dense(width, activation, name="before")(x)
    for layer in several:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3, name="after")(x) if last else x)


def einsum(equation, output_shape, bias_axes=None, **options):
    return layers.EinsumDense(
        equation, output_shape, bias_axes=bias_axes or None, **options
    )


LAYERS = {
    "a row": lambda b: [einsum("abc,cd->abd", (5, 7), "d" * b)],
    "dots": lambda b: [einsum("...x,xy->...y", 7, "y" * b)],
    "flipped": lambda b: [einsum("abc,dc->abd", (5, 7), "d" * b)],
    "relu": lambda b: [
        einsum("...c,cd->...d", (7,), "d" * b, activation="relu")
    ],
    "positions": lambda b: [einsum("abc,bcd->ad", 7, "d" * b)],
    "made first": lambda b: [
        einsum("abc,cd->adb", (7, 5), "d" * b),
        layers.Permute((2, 1)),
    ],
    "split and joined": lambda b: [
        einsum("abc,cde->abde", (5, 2, 4), "de" * b),
        einsum("abde,dec->abc", (5, 7), "c" * b),
    ],
    "joined in another order": lambda b: [
        einsum("abc,ecd->abde", (5, 2, 4), "ed" * b),
        layers.Activation("tanh"),
        einsum("abde,fed->abf", (5, 7), "f" * b),
    ],
    "at the second axis": lambda b: [
        layers.Permute((2, 1)),
        einsum("ac...,cd->ad...", 7, "d" * b),
        layers.Permute((2, 1)),
    ],
    "spread": lambda b: [
        einsum("abc,cde->aebd", (2, 5, 7), "ed" * b),
        einsum("aebd,edf->abf", (5, 7), "f" * b),
    ],
}


# With a kernel for each index of an axis.
APART = {
    "each position": lambda b: [einsum("abc,bcd->abd", (5, 7), "d" * b)],
    "experts": lambda b: [
        einsum("abc,ecd->abed", (5, 4, 6), "ed" * b),
        layers.Activation("relu"),
        einsum("abed,edf->abef", (5, 4, 7), "f" * b),
        layers.GlobalMaxPooling2D(),
    ],
    "experts first": lambda b: [
        # With as many experts as channels, Keras adds the bias to the former.
        einsum("abc,cde->abed", (5, 3, 6), "ed" * b),
        einsum("abed,fde->abfe", (5, 7, 3), "f" * b),
        layers.Permute((1, 3, 2)),
    ],
}


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS | APART)
def test_a_random_half_is_cut(kind, has_bias):
    model = between(*(LAYERS | APART)[kind](has_bias))
    small, _ = cut_half(model)
    assert small.count_params() < 0.6 * model.count_params()


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_constants_are_folded(kind, has_bias):
    own = LAYERS[kind](has_bias)
    model = scramble(between(*own, activation="sigmoid"))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert_same_outputs(model, small)
    assert small.get_layer("before").units < 8


def test_a_constant_that_each_kernel_makes_another_of_stays():
    own = einsum("abc,bcd->abd", (5, 7), name="own")
    model = between(own, activation="sigmoid")
    rng = np.random.default_rng(0)
    kernel, bias = model.get_layer("before").get_weights()
    kernel[:, :3] = 0
    model.get_layer("before").set_weights([kernel, bias])
    own.kernel.assign(rng.normal(size=own.kernel.shape) * (np.arange(7) > 2))
    small, report = ks.shrink(model, 0)
    assert report.whole == () and small.get_layer("before").units == 8
    assert any("counts in `own`" in kept.reason for kept in report.kept)
    assert small.get_layer("own").kernel.shape == (5, 8, 4)
    assert_same_outputs(model, small)


@pytest.mark.parametrize("bias_axes", [None, "c"])
@pytest.mark.parametrize("equation", ["abc,c->abc", "...c,c->...c"])
def test_a_factor_for_each_channel(equation, bias_axes):
    shape = 8 if "." in equation else (5, 8)
    layer = einsum(equation, shape, bias_axes, activation="relu", name="scale")
    model = between(layer)
    small, _ = cut_half(model)
    assert small.get_layer("scale").kernel.shape == (4,)
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.normal(size=v.shape))
    kernel = to_numpy(layer.kernel).copy()
    kernel[[1, 4]] = 0
    layer.kernel.assign(kernel)
    small, report = ks.shrink(model, 0)
    assert small.get_layer("before").units == 6
    assert report.whole == ()
    assert_same_outputs(model, small)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: einsum("abc,b->ac", 8), "makes no channels"),
        (lambda: einsum("abc,bd->adc", (7, 8)), "not at the channel axis"),
        (lambda: einsum("abc,cd->ad", 7), "without a kernel"),
        (lambda: einsum("abc,cd->abd", (5, 7), "bd"), "its bias is not"),
        (lambda: einsum("abc,cde->abde", (5, 2, 4), "e"), "its bias is not"),
        (lambda: einsum("abc,b->abc", (5, 8)), "does not scale channels"),
        (lambda: einsum("abc,c->abc", (5, 8), "bc"), "its bias is not"),
        (
            lambda: einsum("abc,c->abc", (5, 8), activation="softmax"),
            "may mix",
        ),
    ],
)
def test_what_is_not_covered(layer, reason):
    model = between(layer(), last=False)
    small, report = ks.shrink(model, 0)
    assert reason in " ".join(entry.note for entry in report.whole)
    assert_same_outputs(model, small)


def test_an_adapted_kernel_stays():
    layers_of_it = [einsum("abc,cd->abd", (5, 7)), einsum("abc,c->abc", (5, 7))]
    model = between(*layers_of_it)
    layers_of_it[0].enable_lora(2)
    _, report = ks.shrink(model, 0)
    assert "LoRA" in report.whole[0].note


def test_an_activation_that_mixes_keeps_the_outputs():
    layer = einsum("abc,cd->abd", (5, 7), activation="softmax", name="mixed")
    model = between(layer)
    small, _ = cut_half(model)
    assert small.get_layer("mixed").kernel.shape == (4, 7)
    assert small.get_layer("before").units == 4


def test_the_names_of_axes():
    assert spell("abc", 3) == ["a", "b", "c"]
    assert spell("...c", 3) == [-2, -1, "c"]
    assert spell("ab...", 2) == ["a", "b"]
    assert spell("a...b", 4) == ["a", -2, -1, "b"]
