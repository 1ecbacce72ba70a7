"""Running a model call by call is calling the model."""

import gc
import weakref

import keras
import numpy as np
import pytest
from helpers import scramble, to_numpy
from keras import layers, ops

from keras_sgl0.network.running import Walk, run


class TrainsByDefault(layers.Layer):
    def call(self, x, training=True):
        return 2 * x if training else x


def masked():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.LSTM(3)(x)), [[1, 2, 3, 0, 0, 0]]


def several():
    first, second = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    outer = layers.Add()([first, second])
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu")])
    outputs = {"y": inner(outer), "z": inner(first) * 2.0}
    model = keras.Model({"a": first, "b": second}, outputs)
    return model, {k: np.ones((3, 4), "float32") for k in "ab"}


def modes():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dropout(0.5)(inputs))
    x = TrainsByDefault()(x)
    x = layers.BatchNormalization()(x, training=True)
    return keras.Model(inputs, x), np.random.default_rng(0).normal(size=(5, 4))


def vector():
    inputs = keras.Input((1,))
    return keras.Model(inputs, layers.Dense(2)(inputs)), np.arange(3.0)


@pytest.mark.parametrize("build", [masked, several, modes, vector])
def test_the_outputs_are_those_of_the_model(build):
    model, inputs = build()
    scramble(model)
    x = keras.tree.map_structure(np.asarray, inputs)
    if isinstance(inputs, list):
        x = np.array(inputs)
    expected = keras.tree.flatten(model(x, training=False))
    received = run(model, x)
    for a, b in zip(expected, received, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_a_tensor_is_given_up_after_its_last_use():
    seen = []

    class Watch(layers.Layer):
        def call(self, x):
            gc.collect()
            alive.append(sum(own() is not None for own in seen))
            y = x + 1.0
            if not isinstance(y, keras.KerasTensor):
                seen.append(weakref.ref(y))
            return y

    alive = []
    x = inputs = keras.Input((4,))
    for _ in range(5):
        x = Watch()(x)
    model = keras.Model(inputs, x)
    alive.clear()
    run(model, ops.ones((2, 4)))
    assert max(alive[-3:]) <= 2


def test_outputs_are_taken_one_by_one():
    x = inputs = keras.Input((4,))
    taken = [x]
    for _ in range(3):
        x = layers.Dense(4)(x)
        taken.append(x)
    model = keras.Model(inputs, [*taken, x])
    given = np.ones((2, 4), "float32")
    walk = Walk(model, given, model.outputs[1:])
    first = to_numpy(walk.take(model.outputs[1]))
    # What comes later is made with the weights of then.
    model.layers[2].set_weights([np.eye(4), np.full(4, 2.0)])
    second = to_numpy(walk.take(model.outputs[2]))
    np.testing.assert_allclose(second, first + 2, rtol=1e-6)
    assert walk.held() == 8
    third = [to_numpy(walk.take(y)) for y in model.outputs[3:]]
    np.testing.assert_array_equal(*third)
    assert walk.held() == 0
