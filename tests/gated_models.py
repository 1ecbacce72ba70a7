"""Models with gates in all kinds of places."""

import keras
import numpy as np
from helpers import to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates


def sequence(*parts, shape=(6, 6, 2)):
    return lambda gate: keras.Sequential(
        [keras.Input(shape), *(gate() if p is GATE else p() for p in parts)]
    )


GATE = object()


def conv(**arguments):
    return lambda: layers.Conv2D(
        4,
        3,
        **({"activation": "relu", "bias_initializer": "normal"} | arguments),
    )


def dense(units=3):
    return lambda: layers.Dense(units, bias_initializer="normal")


def by_add(gate):
    model = keras.Sequential()
    model.add(keras.Input((6, 6, 2)))
    for layer in (conv()(), gate(), layers.Flatten(), gate(), dense()()):
        model.add(layer)
    return model


def nested(gate):
    inner = sequence(GATE, dense(5), GATE, dense(4), shape=(8,))(gate)
    inputs = keras.Input((8,))
    both = layers.Add()([inner(inputs), inner(gate()(inputs))])
    return keras.Model(inputs, dense()()(gate()(both)))


def graph(build):
    """Returns a maker of a model of a convolution, a gate and a dense layer."""

    def make(gate):
        inputs = keras.Input((6, 6, 2))
        outputs = build(inputs, conv()(), gate(), layers.Flatten(), dense()())
        return keras.Model(inputs, outputs)

    return make


@graph
def conv_read_twice(x, conv, gate, flatten, dense):
    maps = conv(x)
    return dense(flatten(layers.Add()([gate(maps), maps])))


@graph
def conv_is_an_output(x, conv, gate, flatten, dense):
    maps = conv(x)
    return {"maps": maps, "logits": dense(flatten(gate(maps)))}


@graph
def gate_is_an_output(x, conv, gate, flatten, dense):
    gated = gate(flatten(conv(x)))
    return [gated, dense(gated)]


@graph
def dense_is_shared(x, conv, gate, flatten, dense):
    features = flatten(conv(x))
    return layers.Add()([dense(gate(features)), dense(features)])


@graph
def gate_and_dense_are_shared(x, conv, gate, flatten, dense):
    features = flatten(conv(x))
    return layers.Add()(
        [dense(gate(features)), dense(gate(layers.ReLU()(features)))]
    )


@graph
def gate_is_read_twice(x, conv, gate, flatten, dense):
    gated = gate(flatten(conv(x)))
    return layers.Add()([dense(gated), layers.Dense(3)(gated)])


@graph
def operations_between(x, conv, gate, flatten, dense):
    maps = ops.relu(gate(2.0 * conv(x)))
    return dense(flatten(maps + 1.0))


def lenet(gate):
    return ks.models.LeNet5Caffe(gate=lambda *_: gate())


def small_mlp(gate):
    return ks.models.MLP((8,), 3, gate=lambda *_: gate(), widths=(6, 5))


MODELS = {
    "lenet": (lenet, 0),
    "mlp": (small_mlp, 0),
    "sequential": (
        sequence(
            conv(), GATE, layers.MaxPooling2D, layers.Flatten, GATE, dense()
        ),
        0,
    ),
    "sequential_by_add": (by_add, 0),
    "no_bias": (sequence(conv(use_bias=False), GATE), 0),
    "linear": (sequence(conv(activation=None), GATE), 0),
    "conv1d": (
        sequence(lambda: layers.Conv1D(4, 3), GATE, dense(), shape=(6, 2)),
        0,
    ),
    "nested": (nested, 1),
    "operations_between": (operations_between, 1),
    "gate_and_dense_are_shared": (gate_and_dense_are_shared, 0),
    "tanh": (sequence(conv(activation="tanh"), GATE), 1),
    "gate_alone": (sequence(GATE, layers.Flatten, shape=(8,)), 1),
    "two_gates_in_a_row": (sequence(conv(), GATE, GATE), 1),
    "conv_read_twice": (conv_read_twice, 1),
    "conv_is_an_output": (conv_is_an_output, 1),
    "gate_is_an_output": (gate_is_an_output, 1),
    "dense_is_shared": (dense_is_shared, 1),
    "gate_is_read_twice": (gate_is_read_twice, 1),
}


def randomise(model, seed):
    """Gives every gate a random `log_alpha`."""
    rng = np.random.default_rng(seed)
    for gate in gates(model):
        gate.log_alpha.assign(rng.uniform(-4.6, 4.6, gate.log_alpha.shape))


def inputs_of(model, count=4, seed=0):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def predict(model, x):
    return [to_numpy(y) for y in keras.tree.flatten(model(x))]


def layers_of(model):
    return list(model._flatten_layers())


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * abs(b).max())


def assert_same_outputs(model, other):
    x = inputs_of(model)
    for a, b in zip(predict(model, x), predict(other, x), strict=True):
        assert_close(a, b)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        penalty = ks.ExpectedL0(0.1, 3)
        self.gate = ks.HardConcrete(regularizer=penalty)
        self.dense = layers.Dense(3)

    def call(self, inputs, training=False):
        return self.dense(self.gate(inputs, training=training))
