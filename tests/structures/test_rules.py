"""Which calls a rule covers, and what it makes of constants."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scramble
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.structures.rules import evaluate, finite, is_elementwise


class Documented(layers.Dense):
    """A dense layer with what any subclass may have of its own."""

    def __init__(self, units, note="", **options):
        super().__init__(units, **options)
        self.note = note

    def get_config(self):
        return super().get_config() | {"note": self.note}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Undocumented(layers.Dense):
    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("kind", [Documented, Undocumented])
def test_a_subclass_with_a_config_of_its_own_is_still_that_layer(kind):
    x = inputs = keras.Input((6,))
    x = kind(8, activation="relu", name="first")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.get_layer("first").units < 8


def images(layer):
    """Returns how many filters are left before a layer, and the report."""
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same", name="first")(x)
    x = layers.GlobalAveragePooling2D()(layer(x))
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    return small.get_layer("first").filters, report


@pytest.mark.parametrize(
    ("noise_shape", "stays"),
    [((None, 1, 1, 8), True), ((None, 4, 4, 1), False), (None, False)],
)
def test_a_noise_shape_that_names_the_channels_keeps_them(noise_shape, stays):
    left, report = images(layers.Dropout(0.5, noise_shape=noise_shape))
    assert (left == 8) is stays
    notes = " ".join(whole.note for whole in report.whole)
    assert ("is in its `noise_shape`" in notes) is stays


def test_a_layer_with_weights_that_is_called_twice_stays_whole():
    x = inputs = keras.Input((6,))
    twice = layers.Dense(6, name="twice")
    model = scramble(keras.Model(inputs, layers.Dense(3)(twice(twice(x)))))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("twice").units == 6
    assert "it is called more than once" in report.whole[0].note


def test_what_is_elementwise():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x

    assert is_elementwise(keras.activations.relu)
    assert is_elementwise(ops.tanh)
    assert not is_elementwise(keras.activations.softmax)
    assert is_elementwise(Unhashable()) is False


def test_a_function_of_constants():
    nan = np.nan
    found = evaluate(lambda x: 1 / x, np.array([2.0, nan, 0.0, 4.0]))
    np.testing.assert_array_equal(found, [0.5, nan, nan, 0.25])
    assert found.dtype == "float64"
    found = evaluate(
        lambda x, y: x + y, np.array([1.0, nan, 3.0]), np.array([nan, 2.0, 4.0])
    )
    np.testing.assert_array_equal(found, [nan, nan, 7])
    called = []
    found = evaluate(called.append, np.array([nan, nan]))
    assert np.isnan(found).all() and not called
    third = evaluate(lambda x: x / 3, np.array([1.0]))
    assert third[0] == np.float32(1) / np.float32(3)
    third = evaluate(lambda x: x / 3, np.array([1.0]), dtype="float16")
    assert third[0] == np.float16(1) / np.float16(3)


def test_constants_are_finite_or_nan():
    found = finite(np.array([1, np.inf, -np.inf, np.nan], "float32"))
    np.testing.assert_array_equal(found, [1, np.nan, np.nan, np.nan])
    assert found.dtype == "float64"
