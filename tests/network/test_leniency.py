"""Calls that work on tensors and that Keras refuses on symbolic ones."""

import keras
import pytest
from helpers import cut_half
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.leniency import as_on_tensors

CALLS = {
    "slice": lambda x: x[:],
    "ellipsis": lambda x: x[...],
    "sum": lambda x: ops.sum([x, 2 * x, ops.tanh(x)], axis=0),
    "max": lambda x: ops.max([x, ops.tanh(x)], axis=0),
    "min": lambda x: ops.min((x, ops.tanh(x)), axis=0),
    "dots": lambda x: ops.einsum("...,...->...", x, ops.tanh(x)),
    "capitals": lambda x: ops.einsum("bTd,bSd->bTS", x, ops.tanh(x)),
}


class Calling(layers.Layer):
    """Dense layers around a call."""

    def __init__(self, call):
        super().__init__()
        self.first = layers.Dense(6)
        self.last = layers.Dense(3)
        self.function = call

    def call(self, x):
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize("name", CALLS)
def test_a_block_may_call_what_works_on_tensors(name):
    x = inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(2)(Calling(CALLS[name])(x)))
    cut_half(model)


class Biased(layers.Layer):
    """A weight with a new axis, as the table of an attention."""

    def build(self, shape):
        self.first = layers.Dense(6)
        self.bias = self.add_weight((5, 6))

    def call(self, x):
        return self.first(x) + self.bias[None]


def test_a_weight_with_a_new_axis():
    x = inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(2)(Biased()(x)))
    cut_half(model)


def test_keras_is_as_it_was_afterwards():
    before = keras.KerasTensor.__getitem__, keras.Operation.symbolic_call
    with pytest.raises(ZeroDivisionError), as_on_tensors():
        assert keras.KerasTensor((3, 2))[None].shape == (1, 3, 2)
        raise ZeroDivisionError
    after = keras.KerasTensor.__getitem__, keras.Operation.symbolic_call
    assert after == before


def test_a_sum_over_another_axis_of_a_list_stays_an_error():
    class Over(layers.Layer):
        def call(self, x):
            return ops.sum([x, x], axis=1)

        def compute_output_shape(self, shape):
            return (2, *shape[1:])

    x = inputs = keras.Input((4,))
    model = keras.Model(inputs, Over()(layers.Dense(3)(x)))
    assert "no attribute" in str(ks.structures(model))
