"""Layers whose config Keras cannot tell."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, cut_half
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.network.configs import config_of, has_config, has_own_config
from keras_sgl0.network.unfolding import trace


class Times(layers.Layer):
    """A layer with an argument and without `get_config`."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), name="scale")

    def call(self, x):
        return self.factor * self.scale * x


@ks.rule(Times)
class TimesRule(ks.rules.Channelwise):
    """What is zero stays zero."""

    def slices(self):
        return self.vectors("follower", "scale")

    def constants(self, input_constants):
        return np.where(input_constants[0] == 0, 0.0, np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        scale = self.values(self.layer.scale)[kept_outputs]
        return ks.rules.Rewrite({}, {"scale": scale})


class Twice(Times):
    """What it holds is not what it was made with."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(2 * factor, **kwargs)


class Inverse(Times):
    """It does not hold what it was made with."""

    def __init__(self, divisor=2.0, **kwargs):
        super().__init__(1 / divisor, **kwargs)


class Block(layers.Layer):
    """A block that hands its dtype policy to what is in it."""

    def __init__(self, width, kind=Times, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.dense = layers.Dense(width, name="dense")
        self.times = kind(3.0, dtype=self.dtype_policy, name="times")

    def build(self, shape):
        self.dense.build(shape)
        self.times.build((*shape[:-1], self.width))

    def call(self, x):
        return keras.ops.tanh(self.times(self.dense(x)))

    def get_config(self):
        return super().get_config() | {"width": self.width}


def in_a_block(kind):
    x = inputs = keras.Input((5,))
    x = Block(6, kind, name="block")(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def test_the_config_is_that_of_the_constructor():
    layer = Times(3.0, dtype=keras.DTypePolicy("float32"), trainable=False)
    with pytest.raises(NotImplementedError):
        layer.get_config()
    assert not has_own_config(layer)
    assert has_config(layer)
    copy = Times.from_config(config_of(layer))
    assert (copy.factor, copy.name, copy.trainable) == (3.0, layer.name, False)
    assert has_own_config(copy)


def test_what_keras_tells_comes_first():
    layer = Times(3.0)
    assert config_of(layer) == layer.get_config()
    assert has_config(layer)


@pytest.mark.parametrize("value", [np.ones(2), [1.0], object()])
def test_no_config_of_other_values(value):
    layer = Times(value, dtype=keras.DTypePolicy("float32"))
    assert not has_config(layer)
    with pytest.raises(NotImplementedError):
        config_of(layer)


@pytest.mark.parametrize("kind", [Twice, Inverse])
def test_no_config_of_what_the_layer_does_not_hold(kind):
    layer = kind(3.0, dtype=keras.DTypePolicy("float32"))
    assert not has_config(layer)


def test_a_block_with_such_a_layer_is_cut(tmp_path):
    keras.utils.set_random_seed(0)
    model = in_a_block(Times)
    small, _ = cut_half(model)
    assert small.get_layer("dense").units == 3
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(
        tmp_path / "small.keras", custom_objects={"Times": Times}
    )
    assert_same_outputs(small, again)


@pytest.mark.parametrize("kind", [Twice, Inverse])
def test_a_block_with_another_layer_stays_whole(kind):
    keras.utils.set_random_seed(0)
    model = in_a_block(kind)
    assert any("no config" in node.reason for node in trace(model).nodes)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert type(small.get_layer("block")) is Block
