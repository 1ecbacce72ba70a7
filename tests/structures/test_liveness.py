"""Which channels stay, and why, without building the smaller model."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers

from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness, analyse


def dense(*sizes, activation="relu"):
    """Returns a model of dense layers `0`, `1`, ... without a zero weight."""
    x = inputs = keras.Input((sizes[0],))
    for i, size in enumerate(sizes[1:]):
        x = layers.Dense(size, activation, name=str(i))(x)
    return filled(keras.Model(inputs, x))


def filled(model):
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def kill(model, name, *channels, bias=0.0):
    """Lets channels of a layer be the constant of their bias."""
    layer = model.get_layer(name)
    kernel, own = to_numpy(layer.kernel).copy(), to_numpy(layer.bias).copy()
    kernel[..., list(channels)] = 0
    own[list(channels)] = bias
    layer.kernel.assign(kernel)
    layer.bias.assign(own)


def unread(model, name, *channels):
    """Lets a layer not read channels of its input."""
    kernel = to_numpy(model.get_layer(name).kernel).copy()
    kernel[..., list(channels), :] = 0
    model.get_layer(name).kernel.assign(kernel)


def result(model, *arguments, **options):
    """Returns kept channels and reasons by layer, and the dead branches."""
    cuts = analyse(trace(model), to_numpy, *arguments, **options)
    kept = {
        node.path: np.flatnonzero(cuts.kept_channels[node.outputs[0]]).tolist()
        for node in cuts.rules
        if cuts.rules[node].cuts
    }
    reasons = {n.path: why for n, why in cuts.dead_but_kept.items()}
    return kept, reasons, [node.path for node in cuts.dead_branches]


def test_what_is_constant_or_not_read_goes():
    model = dense(3, 4, 5, 2)
    kill(model, "0", 1)
    kill(model, "1", 4, bias=0.5)
    unread(model, "2", 0)
    assert result(model) == (
        {"0": [0, 2, 3], "1": [1, 2, 3], "2": [0, 1]},
        {},
        [],
    )


def test_what_only_the_dead_read_goes():
    model = dense(3, 4, 2, 2)
    unread(model, "2", 1)
    kernel = to_numpy(model.get_layer("1").kernel).copy()
    kernel[2, 0] = 0  # channel 2 of the first layer is for channel 1 alone
    model.get_layer("1").kernel.assign(kernel)
    assert result(model)[0] == {"0": [0, 1, 3], "1": [0], "2": [0, 1]}


def test_an_output_of_the_model_stays_and_has_a_reason():
    model = dense(3, 4)
    kill(model, "0", 2, bias=1.0)
    kept, reasons, branches = result(model)
    assert kept == {"0": [0, 1, 2, 3]}
    assert list(reasons) == ["0"] and list(reasons["0"].values()) == [[2]]
    assert branches == []


@pytest.mark.parametrize(
    ("alive", "options", "kept", "reason"),
    [
        (3, {}, 3, None),
        (0, {}, 1, "a layer keeps at least 1"),
        (0, {"minimum": 3}, 3, "a layer keeps at least 3"),
        (3, {"minimum": 3}, 3, None),
        (2, {"minimum": 3}, 3, "a layer keeps at least 3"),
        (3, {"round_to": 4}, 4, "a layer keeps a multiple of 4"),
        (4, {"round_to": 4}, 4, None),
        (5, {"round_to": 4}, 8, "a layer keeps a multiple of 4"),
        (7, {"round_to": 6}, 9, "a layer keeps a multiple of 6"),
        (1, {"round_to": 2, "minimum": 3}, 4, "a layer keeps a multiple of 2"),
    ],
)
def test_layers_keep_enough_channels(alive, options, kept, reason):
    model = dense(3, 9, 2)
    kill(model, "0", *range(alive, 9))
    found, reasons, branches = result(model, **options)
    assert found["0"] == list(range(kept))
    expected = {"0": {reason: list(range(alive, kept))}} if reason else {}
    # The rounded head has no further channel.
    assert {k: v for k, v in reasons.items() if k != "1"} == expected
    assert branches == ([] if alive else ["0"])


def test_no_channel_left_is_an_error_with_a_minimum_of_zero():
    model = dense(3, 4, 5, 2)
    kill(model, "1", *range(5))
    with pytest.raises(ValueError) as caught:
        result(model, minimum=0)
    assert str(caught.value) == (
        "Invalid value for argument `minimum`. Expected at least 1, as no "
        "channel would stay in `0`, `1`. Received: minimum=0"
    )
    assert result(model)[2] == ["0", "1"]
    model = dense(3, 4, 2)
    kill(model, "0", 1)
    assert result(model, minimum=0)[0]["0"] == [0, 2, 3]


def stream():
    x = inputs = keras.Input((3,))
    a = layers.Dense(4, name="a")(x)
    b = layers.Dense(4, name="b")(x)
    x = layers.Add(name="add")([a, b])
    return filled(keras.Model(inputs, layers.Dense(2, name="head")(x)))


def test_what_is_tied_goes_together_or_not():
    model = stream()
    kill(model, "a", 0, 2)
    kill(model, "b", 2, 3)
    kept, reasons, _ = result(model)
    assert kept["a"] == kept["b"] == [0, 1, 3]
    why = "tied in `add` to a channel that is alive"
    assert reasons == {"a": {why: [0]}, "b": {why: [3]}}


def test_what_comes_back_in_one_layer_comes_back_in_all():
    model = stream()
    kill(model, "a", 1, 2, 3)
    kill(model, "b", 1, 2, 3)
    kept, reasons, _ = result(model, round_to=2)
    assert kept["a"] == kept["b"] == [0, 1]
    why = "a layer keeps a multiple of 2"
    assert reasons == {"a": {why: [1]}, "b": {why: [1]}}


def test_one_layer_that_comes_back_may_leave_another_uneven():
    # `wide` has the channels of `a` and `b`, side by side.
    x = inputs = keras.Input((3,))
    a = layers.Dense(1, name="a")(x)
    b = layers.Dense(4, name="b")(x)
    wide = layers.Dense(5, name="wide")(x)
    x = layers.Add()([layers.Concatenate()([a, b]), wide])
    model = filled(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    kill(model, "b", 2, 3)
    kill(model, "wide", 3, 4)
    kept, *_ = result(model)
    assert (kept["b"], kept["wide"]) == ([0, 1], [0, 1, 2])
    # Three channels of `wide` become four, so that `b` has three.
    kept, *_ = result(model, round_to=2)
    assert (kept["b"], kept["wide"]) == ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_the_first_call_that_ties_to_what_is_alive_is_named():
    x = inputs = keras.Input((3,))
    a, b, c = (layers.Dense(4, name=name)(x) for name in "abc")
    inner = layers.Add(name="inner")([a, b])
    outer = layers.Add(name="outer")([inner, c])
    model = filled(keras.Model(inputs, layers.Dense(2)(outer)))
    kill(model, "a", 0, 1)
    kill(model, "b", 0)
    _, reasons, _ = result(model)
    why = "tied in `{}` to a channel that is alive"
    assert reasons == {
        "a": {why.format("outer"): [0], why.format("inner"): [1]},
        "b": {why.format("outer"): [0]},
    }


def test_what_makes_no_channel_is_not_named_for_its_inputs():
    x = inputs = keras.Input((3,))
    x = layers.ReLU(name="relu")(x)
    model = filled(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    unread(model, "head", 1)
    assert result(model) == ({"head": [0, 1]}, {}, [])


def image(padding="same", bias=0.5):
    x = inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, name="first")(x)
    x = layers.Conv2D(2, 3, padding=padding, name="second")(x)
    model = filled(keras.Model(inputs, layers.Flatten()(x)))
    kill(model, "first", 1, bias=bias)
    return model


@pytest.mark.parametrize(
    ("on_constant", "padding", "bias", "kept"),
    [
        ("keep", "same", 0.5, [0, 1, 2]),
        ("keep", "same", 0.0, [0, 2]),
        ("keep", "valid", 0.5, [0, 2]),
        ("fold", "same", 0.5, [0, 2]),
        ("drop", "same", 0.5, [0, 2]),
    ],
)
def test_a_constant_at_a_border(on_constant, padding, bias, kept):
    found, reasons, _ = result(image(padding, bias), on_constant)
    assert found["first"] == kept
    why = "its constant meets the zeros around `second`"
    assert reasons == ({"first": {why: [1]}} if len(kept) == 3 else {})


def test_a_constant_at_a_border_that_nobody_reads_goes():
    model = image()
    unread(model, "second", 1)
    assert result(model)[:2] == ({"first": [0, 2], "second": [0, 1]}, {})


@pytest.mark.parametrize(
    ("on_constant", "seen"), [("keep", np.nan), ("fold", 0.5), ("drop", 0.0)]
)
def test_the_constants_that_a_call_sees(on_constant, seen):
    graph = trace(image())
    liveness = Liveness(graph, to_numpy, on_constant)
    liveness.forward({})
    liveness.backward()
    first, second, *_ = graph.nodes
    found = liveness.constants[first.outputs[0]]
    np.testing.assert_array_equal(found, [np.nan, 0.5, np.nan])
    (found,) = liveness.input_constants[second]
    np.testing.assert_array_equal(found, [np.nan, seen, np.nan])
    dead = liveness.dead()
    assert dead[first.outputs[0]].tolist() == [False, True, False]


def test_a_call_that_must_stay_reads_all():
    model = dense(3, 4, 4, 2)
    kill(model, "0", 1)
    unread(model, "1", 2)
    graph = trace(model)
    opaque = {graph.nodes[1]: "because"}
    cuts = analyse(graph, to_numpy, opaque=opaque)
    kept = [cuts.kept_channels[node.outputs[0]].sum() for node in graph.nodes]
    assert kept == [4, 4, 2]
    (reasons,) = cuts.dead_but_kept.values()
    assert reasons == {"`1` (Dense) stays whole: because": [1]}


def test_channels_first_are_found_from_the_readers():
    x = inputs = keras.Input((2, 5, 6))
    options = {"data_format": "channels_first"}
    x = layers.Conv2D(3, 3, name="first", **options)(x)
    x = layers.Conv2D(2, 1, name="second", **options)(x)
    x = layers.GlobalAveragePooling2D(**options)(x)
    model = filled(keras.Model(inputs, x))
    kill(model, "first", 1)
    graph = trace(model)
    assert result(model)[0] == {"first": [0, 2], "second": [0, 1]}
    analyse(graph, to_numpy)
    assert graph.nodes[0].inputs[0].axis == 1
    assert graph.nodes[0].outputs[0].axis == 1


def test_a_dead_scale_is_named_where_it_stays():
    x = inputs = keras.Input((3,))
    x = layers.BatchNormalization(name="norm")(x)
    model = filled(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    norm = model.get_layer("norm")
    for variable in (norm.gamma, norm.beta):
        variable.assign([1.0, 0.0, 1.0])
    _, reasons, _ = result(model)
    assert list(reasons) == ["norm"]
    assert list(reasons["norm"].values()) == [[1]]
