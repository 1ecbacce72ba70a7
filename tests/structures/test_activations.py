"""Activations that are layers, or functions of a backend."""

import importlib

import keras
import numpy as np
import pytest
from helpers import BACKEND, cut_half
from keras import layers

from keras_sgl0.structures.activations import is_elementwise

MODULE = {
    "tensorflow": "tensorflow.nn",
    "jax": "jax.nn",
    "torch": "torch.nn.functional",
}[BACKEND]


def of_backend(name):
    return getattr(importlib.import_module(MODULE), name)


def model_with(activation):
    x = inputs = keras.Input((4,))
    x = layers.Dense(6, activation=activation)(x)
    x = layers.Activation(activation)(layers.Dense(6)(x))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    "activation",
    [
        layers.ReLU(6.0),
        layers.LeakyReLU(0.2),
        layers.ELU(),
        layers.Activation("tanh"),
    ],
)
def test_layers_are_activations(activation):
    assert is_elementwise(activation)
    cut_half(model_with(activation))


@pytest.mark.parametrize("name", ["relu", "elu", "gelu", "softplus"])
def test_functions_of_a_backend_are_activations(name):
    assert is_elementwise(of_backend(name))
    # Keras cannot save a function of JAX, so its layer stays whole.
    if name == "relu" and BACKEND != "jax":
        cut_half(model_with(of_backend(name)))


def test_what_may_mix_is_not_elementwise():
    assert not is_elementwise(of_backend("softmax"))
    assert not is_elementwise(layers.Softmax())
    assert not is_elementwise(layers.Activation("softmax"))
    assert not is_elementwise(np.tanh)
    assert not is_elementwise(lambda x: x - keras.ops.max(x, -1))
    assert not is_elementwise(lambda x: x * np.array([1.0, 2.0]))
    assert not is_elementwise(lambda x: x if x > 0 else 0 * x)
    assert not is_elementwise(lambda x: 1.0)


def test_functions_made_of_elementwise_ones_are_elementwise():
    assert is_elementwise(lambda x: x)
    assert is_elementwise(lambda x: keras.activations.gelu(x, True))
    assert is_elementwise(lambda x: x * keras.ops.sigmoid(1.702 * x))
    assert is_elementwise(lambda x: keras.ops.where(x > 0.0, x, 0.1 * x))


def relu(x):
    return keras.ops.cumsum(x, -1)


def test_a_name_alone_says_nothing():
    assert not is_elementwise(relu)
