import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.gates.lookup import gates
from keras_sgl0.gates.wiring import gated_by

LOAD = """
import sys
sys.modules["keras_sgl0"] = None
import keras, numpy as np
for name in sys.argv[2:]:
    path = f"{sys.argv[1]}/{name}"
    model = keras.saving.load_model(f"{path}.keras")
    y = model.predict(np.load(f"{path}.x.npy"), verbose=0)
    np.save(f"{path}.y.npy", y)
"""


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


@pytest.mark.parametrize("test_gate", ["median", "mean"])
@pytest.mark.parametrize("name", MODELS)
def test_folding_keeps_the_outputs(name, test_gate):
    build, rescalings = MODELS[name]
    model = build(lambda: ks.HardConcrete(test_gate=test_gate))
    folded = None

    @budget(max_examples=3, deadline=None, database=None)
    @given(st.integers(0, 10**6))
    def check(seed):
        nonlocal folded
        randomise(model, seed)
        before = model.get_weights()
        folded = ks.fold_gates(model)
        assert_same_outputs(model, folded)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    check()
    modules = {type(layer).__module__ for layer in layers_of(folded)}
    assert not [name for name in modules if name.startswith("keras_sgl0")]
    found = [x for x in layers_of(folded) if isinstance(x, layers.Rescaling)]
    assert len(found) == rescalings
    mine = {id(layer) for layer in layers_of(model)}
    assert not mine & {id(layer) for layer in layers_of(folded)}


def test_a_folded_model_keeps_the_names_and_structure_of_its_outputs():
    model = conv_is_an_output(ks.HardConcrete)
    folded = ks.fold_gates(model)
    assert set(folded(inputs_of(model))) == {"maps", "logits"}
    assert folded.name == model.name


def test_folded_models_load_without_this_package(tmp_path):
    built = {
        "lenet": lenet(ks.HardConcrete),
        "tanh": MODELS["tanh"][0](ks.HardConcrete),
        "nested": nested(ks.HardConcrete),
    }
    for name, model in built.items():
        randomise(model, 1)
        ks.fold_gates(model).save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.x.npy", inputs_of(model))
    command = [sys.executable, "-c", LOAD, tmp_path, *built]
    subprocess.run(command, check=True, capture_output=True)
    for name, model in built.items():
        found = np.load(tmp_path / f"{name}.y.npy")
        assert_close(found, predict(model, inputs_of(model))[0])


def test_a_folded_model_is_not_compiled_and_has_the_size_of_a_plain_one():
    model = lenet(ks.HardConcrete)
    model.compile("adam", "mse", **QUICK)
    folded = ks.fold_gates(model)
    assert not folded.compiled
    assert folded.count_params() == 431_080


def test_a_rescaling_computes_in_the_dtype_of_its_gate():
    gate = ks.HardConcrete(dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((8,)), gate])
    x = inputs_of(model)
    assert ks.fold_gates(model)(x).dtype == model(x).dtype


def test_a_closed_gate_is_a_dead_group_of_the_folded_model():
    model = lenet(ks.HardConcrete)
    randomise(model, 2)
    report = ks.sparsity_report(ks.fold_gates(model), axis="auto")
    open_gates = [
        np.count_nonzero(to_numpy(gate.test_gates())) for gate in gates(model)
    ]
    assert list(report.neurons_alive) == open_gates
    assert 0 < report.neuron_sparsity < 1


def test_which_weights_a_gate_rules():
    for build in (by_add, MODELS["sequential"][0]):
        model = build(ks.HardConcrete)
        maps, inputs = (gated_by(gate) for gate in gates(model))
        assert (maps.axis, maps.biases, maps.group_size) == (-1, True, 19)
        assert (inputs.axis, inputs.biases, inputs.group_size) == (0, False, 3)
        assert isinstance(maps.layer, layers.Conv2D)
        assert inputs.layer is model.layers[-1]
    found = gated_by(gates(MODELS["no_bias"][0](ks.HardConcrete))[0])
    assert (found.biases, found.group_size) == (False, 18)


def test_gates_in_unclear_places():
    unclear = [
        ks.HardConcrete(),  # not called
        gates(MODELS["gate_alone"][0](ks.HardConcrete))[0],
        gates(MODELS["two_gates_in_a_row"][0](ks.HardConcrete))[1],
        gates(gate_is_read_twice(ks.HardConcrete))[0],
        gates(nested(ks.HardConcrete))[0],
    ]
    assert [gated_by(gate) for gate in unclear] == 5 * [None]
    with pytest.raises(ValueError, match="not clear which weights the gates"):
        ks.gate_report(MODELS["gate_alone"][0](ks.HardConcrete))


def test_a_convolution_of_channels_first_is_not_ruled():
    first = layers.Conv2D(4, 3, data_format="channels_first")
    gate = ks.HardConcrete()
    gate(first(keras.Input((2, 6, 6))))
    assert gated_by(gate) is None


@pytest.mark.parametrize(
    ("build", "parameters", "sizes"),
    [
        (ks.models.LeNet5Caffe, 430_570, (26, 501, 500, 10)),
        (ks.models.MLP, 266_200, (300, 100, 10)),
    ],
)
def test_the_papers_count_of_gated_parameters(build, parameters, sizes):
    report = ks.gate_report(build(gate=lambda *_: ks.HardConcrete()))
    assert report.parameters == parameters
    assert tuple(g.group_size for g in report.layers) == sizes


def lenet_with_open(conv1, conv2, fc1, fc2):
    model = lenet(ks.HardConcrete)
    for gate, alive in zip(gates(model), (conv1, conv2, fc1, fc2), strict=True):
        log_alpha = np.full(gate.log_alpha.shape, -4.0)
        log_alpha[list(alive)] = 4.0
        gate.log_alpha.assign(log_alpha)
    return model


def test_the_architecture_intersects_inputs_with_feature_maps():
    # Input i of fc1 belongs to map i % 50; fc2 has inputs of its own.
    inputs = [0, 1, 2, 50, 51, 100, 799]
    report = ks.gate_report(lenet_with_open([3], [0, 2, 7], inputs, range(400)))
    assert report.architecture == "1-3-4-400"
    assert [g.gates for g in report.layers] == [20, 50, 800, 500]
    assert [g.name for g in report.layers] == ["conv1", "conv2", "fc1", "fc2"]
    opened = 1 / (1 + np.exp(-4.0 - 2 / 3 * np.log(11)))
    closed = 1 / (1 + np.exp(4.0 - 2 / 3 * np.log(11)))
    conv2 = report.layers[1]
    expected = 3 * opened + 47 * closed
    assert conv2.expected_open == pytest.approx(expected, rel=1e-5)
    assert conv2.density == pytest.approx(expected / 50, rel=1e-5)


def test_the_report_as_text_and_plain_numbers():
    report = ks.gate_report(lenet_with_open([3], [0, 2, 7], [0], range(400)))
    plain = json.loads(json.dumps(report.to_dict()))
    active = sum(g.expected_open * g.group_size for g in report.layers)
    assert plain["density"] == pytest.approx(active / 430_570)
    assert plain["architecture"] == "1-3-1-400"
    assert plain["layers"][1]["open"] == 3
    assert plain["layers"][1]["group_size"] == 501
    lines = str(report).splitlines()
    assert lines[0].split() == [
        *("gated", "layer", "open", "gates"),
        *("parameters", "each", "expected", "density"),
    ]
    density = f"{report.layers[1].density:.2%}"
    assert lines[3].split() == ["conv2", "3", "/", "50", "501", density]
    assert lines[-1] == (
        f" architecture 1-3-1-400, expected density {report.density:.2%} of "
        "430,570 gated parameters"
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        penalty = ks.ExpectedL0(0.1, 3)
        self.gate = ks.HardConcrete(regularizer=penalty)
        self.dense = layers.Dense(3)

    def call(self, inputs, training=False):
        return self.dense(self.gate(inputs, training=training))


def test_folding_refuses_what_has_no_graph():
    subclassed = Subclassed()
    subclassed(np.ones((1, 8), "float32"))
    wrapped = keras.Sequential(
        [keras.Input((5, 8)), layers.TimeDistributed(ks.HardConcrete())]
    )
    for model in (subclassed, wrapped):
        with pytest.raises(ValueError, match="a Functional or Sequential mod"):
            ks.fold_gates(model)


def test_a_subclassed_model_is_reported_by_its_group_sizes():
    model = Subclassed()
    model(np.ones((1, 8), "float32"))
    assert ks.gate_report(model).parameters == 24


@pytest.mark.parametrize("function", [ks.fold_gates, ks.gate_report])
def test_models_without_gates_or_weights_are_refused(function):
    for model, expected in (
        (ks.models.MLP((8,)), "a model with `HardConcrete` gates"),
        (Subclassed(), "a built model"),
        ("model", "a built model"),
    ):
        with pytest.raises(ValueError, match=f"`model`. Expected {expected}"):
            function(model)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.gate_report(
            MODELS["gate_alone"][0](lambda: ks.HardConcrete(name="z"))
        )
    assert str(caught.value) == (
        "It is not clear which weights the gates `z` rule. Put them directly "
        "behind a convolution or before a dense layer, or give them an "
        "`ExpectedL0` with their `group_size`."
    )
