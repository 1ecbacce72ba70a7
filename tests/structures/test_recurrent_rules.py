"""The rules of recurrent layers: units, their gates and what reads them."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_same_outputs,
    compile_quickly,
    cut_half,
    scramble,
    to_numpy,
)
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness, analyse

UNITS = 6
# The gates of a unit, and the number of the candidate.
GATES = {
    layers.SimpleRNN: (1, 0),
    layers.GRU: (3, 2),
    layers.LSTM: (4, 2),
}


def around(layer, shape=(5, 4), first=None):
    """Returns a model with a layer between two others."""
    x = inputs = keras.Input(shape)
    x = (first or layers.Dense(5, "relu", name="first"))(x)
    x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def rule_of(layer, shape=(5, 4)):
    """Returns the rule of the one call of a model."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    liveness = Liveness(trace(model), to_numpy, "keep")
    liveness.forward({})
    (rule,) = liveness.rules.values()
    return rule


def columns(layer, gates, units):
    """Sets some columns of some gates to zero, in kernels and bias."""
    for variable in layer.weights:
        value = to_numpy(variable).copy()
        own = value.reshape(-1, len(gates), UNITS)
        for gate, zero in enumerate(gates):
            if zero:
                own[:, gate, units] = 0
        variable.assign(own.reshape(value.shape))


def unread(layer, units):
    """Sets the rows of some units in the recurrent kernel to zero."""
    value = to_numpy(layer.cell.recurrent_kernel).copy()
    value[..., units, :] = 0
    layer.cell.recurrent_kernel.assign(value)


def random(model, seed=0):
    """Gives a model random weights, none of them zero."""
    return scramble(model, dead=0, seed=seed)


def units_left(model, name):
    """Returns how many units of a layer `shrink` leaves; exactly."""
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    return small.get_layer(name).units


OPTIONS = [
    {},
    {"return_sequences": True},
    {"return_sequences": True, "go_backwards": True},
    {"use_bias": False},
    {"unroll": True, "dropout": 0.2, "recurrent_dropout": 0.3},
    {"activation": "relu"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", GATES)
def test_half_the_units_are_cut(kind, options):
    layer = kind(UNITS, **options, name="recurrent")
    small, _ = cut_half(around(layer))
    assert small.get_layer("first").units == 3
    assert small.get_layer("recurrent").units == UNITS // 2


@pytest.mark.parametrize(
    "layer",
    [
        layers.GRU(UNITS, reset_after=False),
        layers.GRU(UNITS, recurrent_activation="hard_sigmoid"),
        layers.LSTM(UNITS, unit_forget_bias=False),
        layers.RNN(layers.SimpleRNNCell(UNITS)),
        layers.RNN(layers.GRUCell(UNITS), return_sequences=True),
        layers.RNN(layers.LSTMCell(UNITS, use_bias=False), go_backwards=True),
    ],
    ids=lambda layer: layer.name,
)
def test_half_the_units_of_other_kinds_are_cut(layer):
    cut_half(around(layer))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_half_the_filters_of_a_convolutional_lstm_are_cut(rank, padding):
    kind = getattr(layers, f"ConvLSTM{rank}D")
    layer = kind(4, 2, padding=padding, return_sequences=rank == 1, name="conv")
    small, _ = cut_half(around(layer, (3, *[4] * rank, 2)))
    assert small.get_layer("conv").filters == 2


@pytest.mark.skipif(BACKEND != "tensorflow", reason="float64")
@pytest.mark.parametrize("kind", GATES)
def test_a_cut_is_exact_in_float64(kind):
    keras.config.set_dtype_policy("float64")
    try:
        cut_half(around(kind(UNITS)), tolerance=1e-12)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("kind", GATES)
def test_the_slices_of_a_cell(kind):
    layer = kind(UNITS)
    rule = rule_of(layer)
    gates, _ = GATES[kind]
    for own in rule.slices():
        assert own.of(layer).shape[own.axis] == len(own.channels)
    kernel, columns, rows, recurrent, bias = rule.slices()
    assert kernel.channels_of(rule.node) is rule.node.inputs[0]
    assert rows.channels_of(rule.node) is rule.node.outputs[0]
    assert rows.channels.tolist() == list(range(UNITS))
    for own in (columns, recurrent, bias):
        assert own.role == "member"
        assert own.channels.tolist() == list(range(UNITS)) * gates


@pytest.mark.parametrize("kind", GATES)
def test_a_unit_is_zero_if_its_candidate_is(kind):
    layer = kind(UNITS, name="recurrent")
    model = random(around(layer))
    gates, candidate = GATES[kind]
    columns(layer, np.arange(gates) == candidate, [1, 4])
    assert units_left(model, "recurrent") == UNITS - 2
    if gates > 1:
        # The other gates alone do not do it.
        random(model)
        columns(layer, np.arange(gates) != candidate, [1, 4])
        assert units_left(model, "recurrent") == UNITS


def test_units_that_read_only_zeros_are_zero_too():
    layer = layers.LSTM(UNITS, name="recurrent")
    model = random(around(layer))
    columns(layer, [0, 0, 1, 0], [1, 4])
    # Unit 1 reads unit 4 and nothing else; unit 0 would make it change.
    value = to_numpy(layer.cell.recurrent_kernel).copy()
    value[4, 2 * UNITS + 1] = 1.0
    layer.cell.recurrent_kernel.assign(value)
    assert units_left(model, "recurrent") == UNITS - 2
    value[0, 2 * UNITS + 4] = 1.0
    layer.cell.recurrent_kernel.assign(value)
    assert units_left(model, "recurrent") == UNITS


def test_a_recurrent_bias_of_the_candidate_moves_a_unit():
    layer = layers.GRU(UNITS, name="recurrent")
    model = random(around(layer))
    columns(layer, [0, 0, 1], [2])
    bias = to_numpy(layer.cell.bias).copy()
    bias[1, 2 * UNITS + 2] = 0.1
    layer.cell.bias.assign(bias)
    assert units_left(model, "recurrent") == UNITS


def test_a_unit_below_the_kink_of_relu_is_zero():
    layer = layers.SimpleRNN(UNITS, "relu", name="recurrent")
    model = random(around(layer))
    columns(layer, [1], [2])
    layer.cell.bias.assign(np.where(np.arange(UNITS) == 2, -0.5, 0.1))
    assert units_left(model, "recurrent") == UNITS - 1


@pytest.mark.parametrize("kind", GATES)
def test_a_unit_goes_if_no_live_unit_reads_it(kind):
    layer = kind(UNITS, name="recurrent")
    model = random(around(layer))
    last = model.layers[-1]
    kernel = to_numpy(last.kernel).copy()
    kernel[[1, 3]] = 0
    last.kernel.assign(kernel)
    # The others read both, a step later.
    assert units_left(model, "recurrent") == UNITS
    # Unit 3 is read by unit 1 alone, which nobody reads.
    value = to_numpy(layer.cell.recurrent_kernel).copy()
    value[1] = 0
    own = value.reshape(UNITS, -1, UNITS)
    own[3] = 0
    own[3, :, 1] = 1.0
    layer.cell.recurrent_kernel.assign(value)
    assert units_left(model, "recurrent") == UNITS - 2
    # As soon as a live unit reads unit 1, both are needed.
    own[1, 0, 0] = 0.5
    layer.cell.recurrent_kernel.assign(value)
    assert units_left(model, "recurrent") == UNITS


def test_inputs_that_only_dead_units_read_are_cut():
    layer = layers.GRU(UNITS, name="recurrent")
    model = random(around(layer))
    kernel = to_numpy(layer.cell.kernel).copy()
    own = kernel.reshape(5, 3, UNITS)
    own[3] = 0
    own[3, :, 2] = 1.0
    own[1] = 0
    own[1, 1, 0] = 1.0  # one gate of a live unit
    layer.cell.kernel.assign(kernel)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 5
    columns(layer, [1, 1, 1], [2])
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("first").units == 4


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        *GATES,
        lambda *args, **kwargs: layers.GRU(*args, reset_after=False, **kwargs),
    ],
)
def test_constant_inputs_go_into_the_bias(kind, use_bias):
    layer = kind(UNITS, use_bias=use_bias, name="recurrent")
    first = layers.Dense(5, "sigmoid", name="first")
    model = random(around(layer, first=first))
    alive = np.array([1, 0, 1, 0, 1])
    first.kernel.assign(to_numpy(first.kernel) * alive)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("first").units == 3
    assert small.get_layer("recurrent").use_bias


def test_a_constant_that_is_not_zero_is_cut_if_no_unit_reads_it():
    layer = layers.SimpleRNN(UNITS, name="recurrent")
    model = random(around(layer))
    for variable in (layer.cell.kernel, layer.cell.recurrent_kernel):
        value = to_numpy(variable).copy()
        value[:, 2] = 0
        variable.assign(value)
    assert to_numpy(layer.cell.bias)[2] != 0
    # The others see it at 0 first, then at its constant.
    assert units_left(model, "recurrent") == UNITS
    unread(layer, [2])
    assert units_left(model, "recurrent") == UNITS - 1


def test_constants_meet_the_zeros_around_a_convolutional_lstm():
    layer = layers.ConvLSTM1D(4, 2, padding="same", name="conv")
    first = layers.Dense(5, "sigmoid", name="first")
    model = random(around(layer, (3, 4, 2), first))
    first.kernel.assign(to_numpy(first.kernel) * [1, 0, 1, 0, 1])
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("first").units == 5
    assert "meets the zeros around `conv`" in report.kept[0].reason
    assert rule_of(layers.ConvLSTM1D(4, 2), (3, 4, 2)).border is False


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": "sigmoid"}, "is not 0 at 0"),
        ({"activation": "softmax"}, "may mix channels"),
        ({"recurrent_activation": "softmax"}, "may mix channels"),
    ],
)
@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_units_stay_where_zero_does_not_stay_zero(kind, options, reason):
    layer = kind(UNITS, **options, name="recurrent")
    model = random(around(layer))
    (entry,) = [x for x in ks.structures(model).fixed if x.layer == layer.name]
    assert reason in entry.reason
    columns(layer, [1] * GATES[kind][0], [1, 4])
    first = model.get_layer("first")
    first.kernel.assign(to_numpy(first.kernel) * [1, 0, 1, 0, 1])
    first.bias.assign(np.zeros(5))
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("recurrent").units == UNITS
    assert small.get_layer("first").units == 3


@keras.saving.register_keras_serializable()
class OwnCell(layers.GRUCell):
    """A cell of the user, of which nothing is known."""


@keras.saving.register_keras_serializable()
class WithWeights(layers.Layer):
    """An activation with a weight."""

    def build(self, _):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.scale * x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.RNN(OwnCell(UNITS)), "its cell is not known"),
        (
            layers.RNN([layers.GRUCell(3), layers.GRUCell(4)]),
            "its cell is not known",
        ),
        (
            layers.LSTM(UNITS, activation=WithWeights()),
            "its activation has weights",
        ),
    ],
)
def test_what_is_not_covered_stays_whole(layer, reason):
    found = ks.structures(around(layer))
    assert any(reason in entry.reason for entry in found.fixed)


def translator(kind, units=UNITS, bidirectional=False):
    """Returns an encoder whose last states a decoder starts from."""
    source, target = keras.Input((5, 4)), keras.Input((3, 2))
    encoder = kind(units, return_state=True, name="encoder")
    decoder = kind(units, return_sequences=True, name="decoder")
    if bidirectional:
        encoder = layers.Bidirectional(encoder)
        decoder = layers.Bidirectional(decoder)
    _, *states = encoder(source)
    x = decoder(target, initial_state=states)
    x = layers.Dense(2)(layers.Flatten()(x))
    return keras.Model([source, target], x)


@pytest.mark.parametrize("kind", GATES)
def test_states_tie_an_encoder_and_a_decoder(kind):
    model = translator(kind)
    found = ks.structures(model)
    assert found.counts.tolist() == [UNITS]
    assert found.made_by(0) == ("encoder", "decoder")
    small, _ = cut_half(model)
    for name in ("encoder", "decoder"):
        assert small.get_layer(name).units == UNITS // 2


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_states_tie_both_ways(kind):
    model = translator(kind, bidirectional=True)
    assert ks.structures(model).counts.tolist() == [UNITS]
    cut_half(model)


@pytest.mark.parametrize("kind", GATES)
def test_a_state_that_is_not_zero_keeps_a_unit(kind):
    model = random(translator(kind))
    gates, candidate = GATES[kind]
    decoder = model.get_layer("decoder")
    columns(decoder, np.arange(gates) == candidate, [1])
    assert units_left(model, "decoder") == UNITS
    columns(model.get_layer("encoder"), np.arange(gates) == candidate, [1])
    assert units_left(model, "decoder") == UNITS - 1


def test_all_outputs_of_a_layer_with_states_are_looked_at():
    x = inputs = keras.Input((5, 4))
    layer = layers.LSTM(UNITS, return_sequences=True, return_state=True)
    x, hidden, carry = layer(x)
    x = layers.Dense(2)(layers.GlobalMaxPooling1D()(x))
    second = layers.Dense(2, name="carried")(carry)
    model = keras.Model(inputs, [x, second, layers.Dense(2)(hidden)])
    cut_half(model)
    # Only the carry of unit 3 is read.
    random(model)
    for last in model.layers[-3:]:
        rows = np.ones((UNITS, 1)) * ((np.arange(UNITS) != 3)[:, None])
        if last.name != "carried":
            last.kernel.assign(to_numpy(last.kernel) * rows)
    unread(layer, [3])
    assert units_left(model, layer.name) == UNITS
    carried = model.get_layer("carried")
    carried.kernel.assign(to_numpy(carried.kernel) * rows)
    assert units_left(model, layer.name) == UNITS - 1


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("kind", GATES)
def test_half_the_units_of_both_ways_are_cut(kind, mode, sequences):
    layer = layers.Bidirectional(
        kind(UNITS, return_sequences=sequences), mode, name="both"
    )
    small, _ = cut_half(around(layer))
    both = small.get_layer("both")
    assert both.merge_mode == mode
    assert both.forward_layer.units == both.backward_layer.units == UNITS // 2


@pytest.mark.parametrize(
    "layer",
    [
        layers.Bidirectional(
            layers.GRU(UNITS, use_bias=False),
            backward_layer=layers.LSTM(UNITS, go_backwards=True),
        ),
        layers.Bidirectional(layers.RNN(layers.GRUCell(UNITS)), "sum"),
    ],
)
def test_half_the_units_of_other_pairs_are_cut(layer):
    cut_half(around(layer))


def test_a_convolutional_lstm_may_run_both_ways():
    layer = layers.Bidirectional(layers.ConvLSTM1D(4, 2, padding="same"))
    cut_half(around(layer, (3, 4, 2)))


@pytest.mark.parametrize("mode", ["concat", "mul"])
def test_a_unit_of_one_way_stays_for_that_of_the_other(mode):
    layer = layers.Bidirectional(layers.GRU(UNITS), mode, name="both")
    model = random(around(layer))
    columns(layer.forward_layer, [0, 0, 1], [1, 2])
    columns(layer.backward_layer, [0, 0, 1], [2, 3])
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("both").forward_layer.units == UNITS - 1


def test_both_ways_apart_stay_whole():
    inputs = keras.Input((5, 4))
    x, y = layers.Bidirectional(layers.GRU(3), None)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([x, y])))
    assert "several outputs" in str(ks.structures(model))


def test_a_penalty_inside_a_wrapper_does_not_come_along():
    inner = layers.GRU(UNITS, kernel_regularizer=ks.GroupLasso(0.1))
    layer = layers.Bidirectional(inner, name="both")
    small, _ = cut_half(around(layer))
    both = small.get_layer("both")
    assert both.forward_layer.kernel_regularizer is None
    assert both.backward_layer.kernel_regularizer is None


def test_a_stateful_layer_stays_whole():
    inputs = keras.Input(batch_shape=(2, 5, 4))
    x = layers.LSTM(UNITS, stateful=True)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert "stateful" in str(ks.structures(model))


def test_channels_at_another_axis_stay():
    x = inputs = keras.Input((4, 5))
    x = layers.Dense(6)(x)
    x = layers.Permute((2, 1))(x)
    x = layers.LSTM(3)(x)
    model = random(keras.Model(inputs, layers.Dense(2)(x)))
    text = str(ks.structures(model))
    assert "not at the channel axis" in text


def test_what_a_unit_needs_is_found_to_the_end():
    layer = layers.SimpleRNN(UNITS)
    rule = rule_of(layer)
    chain = np.zeros((UNITS, UNITS))
    for unit in range(UNITS - 1):
        chain[unit + 1, unit] = 1  # each reads the one after it
    layer.cell.recurrent_kernel.assign(chain)
    (cell,) = rule.cells
    cell.__dict__.pop("recurrent", None)
    live = np.arange(UNITS) == 2
    (needed,) = rule.all_needed([live], [np.full(4, np.nan)])
    assert needed.tolist() == [False, False, True, True, True, True]


def test_a_coupled_penalty_pulls_whole_units():
    layer = layers.LSTM(8, name="recurrent")
    model = around(layer)
    random(model)
    compile_quickly(model, keras.optimizers.SGD(0.05), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 5, 4)), rng.normal(size=(32, 3))
    coupled = ks.CoupledGroups(ks.GroupLasso(0.15))
    model.fit(x, y, 16, 30, verbose=0, callbacks=[coupled, ks.ProximalStep()])
    gates = to_numpy(layer.cell.kernel).reshape(-1, 4, 8)
    recurrent = to_numpy(layer.cell.recurrent_kernel).reshape(-1, 4, 8)
    bias = to_numpy(layer.cell.bias).reshape(4, 8)
    zero = ~gates.any((0, 1))
    assert 0 < zero.sum()
    assert not recurrent[..., zero].any()
    assert not bias[:, zero].any()
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("recurrent").units == max(1, 8 - zero.sum())


def test_units_are_deleted_and_pruned():
    layer = layers.LSTM(UNITS, name="recurrent")
    model = random(around(layer))
    small, report = ks.delete_channels(model, {"recurrent": [0, 2]})
    assert small.get_layer("recurrent").units == UNITS - 2
    assert report.relative_difference < 1e-5
    small, _ = ks.prune(model, parameters=0.5)
    assert small.count_params() < 0.6 * model.count_params()
    assert small.get_layer("recurrent").units < UNITS


def test_units_have_no_gates_as_their_layer_reads_them():
    layer = layers.LSTM(UNITS, name="recurrent")
    model = random(around(layer))
    gated = ks.add_gates(model, droprate=0.1, seed=0)
    names = [x.name for x in gated.layers if isinstance(x, ks.HardConcrete)]
    assert names == ["first_gates"]
    alone = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3), *[]])
    alone.add(layers.Dense(2))
    with pytest.raises(ValueError, match="recurrent layers read their own"):
        ks.add_gates(alone)


def test_a_unit_that_is_kept_for_others_is_named():
    x = inputs = keras.Input((5, 4))
    layer = layers.LSTM(UNITS, name="recurrent")
    x = layers.Add()([layer(x), layers.Dense(UNITS)(layers.Flatten()(x))])
    model = random(keras.Model(inputs, layers.Dense(2)(x)))
    columns(layer, [1, 1, 1, 1], [1])
    cuts = analyse(trace(model), to_numpy)
    (reasons,) = cuts.dead_but_kept.values()
    assert list(reasons.values()) == [[1]]
