"""The rules of operations that move, slice, split and pad channels."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.rules import Opaque


def rule_of(function, shape, number=1):
    """Returns the rule of the last call that a function makes."""
    inputs = [keras.Input(shape) for _ in range(number)]
    graph = trace(keras.Model(inputs, function(*inputs)))
    liveness = Liveness(graph, to_numpy, "keep")
    liveness.forward({})
    *_, rule = liveness.rules.values()
    return rule


CASES = [
    # The call, the axes and the ties of input and outputs: sources by place.
    (lambda x: ops.reshape(x, (-1, 2, 12)), (4, 6), [(2,)], [[*range(6)] * 2]),
    (lambda x: ops.reshape(x, (-1, 4, 2, 3)), (4, 6), [(2, 3)], [range(6)]),
    (lambda x: ops.reshape(x, (-1, 24)), (4, 6), [(1,)], [[*range(6)] * 4]),
    (lambda x: ops.transpose(x, (0, 2, 1)), (4, 3), [(1,)], [range(3)]),
    (lambda x: ops.swapaxes(x, 1, 2), (4, 3), [(1,)], [range(3)]),
    (lambda x: ops.moveaxis(x, -1, 1), (4, 5, 3), [(1,)], [range(3)]),
    (lambda x: ops.expand_dims(x, (1, 2)), (3,), [(3,)], [range(3)]),
    (lambda x: x[:, None, :, None], (3,), [(2,)], [range(3)]),
    (lambda x: ops.squeeze(x, (1, 2)), (1, 1, 3), [(1,)], [range(3)]),
    (lambda x: ops.flip(x, -1), (4, 3), [(2,)], [[2, 1, 0]]),
    (lambda x: ops.flip(x, 1), (4, 3), [(2,)], [range(3)]),
    (lambda x: ops.roll(x, 1, 1), (4, 3), [(2,)], [range(3)]),
    (lambda x: ops.repeat(x, 2, 1), (4, 3), [(2,)], [range(3)]),
    (lambda x: ops.tile(x, (1, 1, 2)), (4, 3), [(2,)], [[0, 1, 2] * 2]),
    (lambda x: ops.take(x, [0, 2], 1), (4, 3), [(2,)], [range(3)]),
    (lambda x: x[..., 1:], (4, 3), [(2,)], [[1, 2]]),
    (lambda x: x[:, 0, :-1], (4, 3), [(1,)], [[0, 1]]),
    (lambda x: x[:, ::2], (4, 3), [(2,)], [range(3)]),
    (lambda x: ops.split(x, 2, -1), (5, 4), [(2,)] * 2, [[0, 1], [2, 3]]),
    (lambda x: ops.split(x, [1], -1), (5, 4), [(2,)] * 2, [[0], [1, 2, 3]]),
    (lambda x: ops.split(x, 2, 1), (4, 3), [(2,)] * 2, [range(3)] * 2),
    (lambda x: ops.unstack(x, 2, 1), (2, 3), [(1,)] * 2, [range(3)] * 2),
    (
        lambda x: ops.nn.depth_to_space(x, 2),
        (2, 3, 8),
        [(3,)],
        [range(2)],
    ),
    (
        lambda x: ops.nn.space_to_depth(x, 2),
        (2, 4, 3),
        [(3,)],
        [[*range(3)] * 4],
    ),
    (
        lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 0]]),
        (4, 3),
        [(2,)],
        [range(3)],
    ),
    (
        lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1]], "reflect"),
        (4, 3),
        None,
        "it repeats single channels",
    ),
    (
        lambda x: ops.pad(x, [[0, 0], [0, 0], [1, 2]]),
        (4, 3),
        [(2,)],
        [[3, 0, 1, 2, 4, 5]],
    ),
    (lambda x: ops.reshape(x, (-1, 3, 4)), (4, 3), None, "mixes channels"),
    (lambda x: ops.reshape(x, (-1,)), (4, 3), None, "mixes channels"),
    (lambda x: ops.squeeze(x), (1, 3), None, "names no axis"),
    (lambda x: ops.roll(x, 1, -1), (4, 3), None, "moves single channels"),
    (lambda x: ops.roll(x, 1), (4, 3), None, "moves single channels"),
    (lambda x: ops.repeat(x, 2, -1), (4, 3), None, "moves single channels"),
    (lambda x: ops.take(x, [0, 2], -1), (4, 3), None, "moves single channels"),
    (lambda x: x[..., ::2], (4, 3), None, "takes channels in steps"),
    (lambda x: x[..., 0], (4, 3), None, "no channels are left of it"),
    (lambda x: x[:, True], (4, 3), None, "not of numbers and slices"),
    (lambda x: x[:, 2:2], (4, 3), None, "mixes channels"),
    (lambda x: x[:, 1, None, :1], (4, 3), [(2,)], [[0]]),
    (lambda x: x[:, :2], (None, 3), [(2,)], [range(3)]),
]


@pytest.mark.parametrize(("call", "shape", "axes", "sources"), CASES)
def test_where_channels_go(call, shape, axes, sources):
    rule = rule_of(call, shape)
    if axes is None:
        assert isinstance(rule, Opaque)
        assert sources in rule.why_inputs_stay
        return
    assert rule.all_axes() == axes
    inward, *outward = rule.ties()
    assert [own.tolist() for own in outward] == [
        [(inward[i] if i < len(inward) else i) for i in own] for own in sources
    ]


WITH_SIZES = [case for case in CASES if case[2] and None not in case[1]]


@pytest.mark.parametrize(("call", "shape", "axes", "sources"), WITH_SIZES)
def test_constants_and_reads_are_what_the_operation_does(
    call, shape, axes, sources
):
    rule = rule_of(call, shape)
    node = rule.node
    rng = np.random.default_rng(0)
    inward, *outward = rule.ties()
    # What ends at one place has one constant, half of them are not known.
    given = rng.normal(size=1 + inward.max())[inward]
    filled = np.broadcast_to(given, (2, *shape)).astype("float32")
    results = keras.tree.flatten(call(ops.convert_to_tensor(filled)))
    for y, found, values in zip(
        node.outputs, rule.all_constants([given]), results, strict=True
    ):
        rows = y.by_channel(to_numpy(values))
        known = ~np.isnan(found)
        # Zeros around a constant are seen by `border`.
        rows = rows[-1:] if rule.border else rows
        np.testing.assert_allclose(rows - found, 0, atol=1e-6)
        assert known.all()
    unknown = np.full(len(given), np.nan)
    for number in range(len(node.outputs)):
        live = [np.zeros(z.channels, bool) for z in node.outputs]
        live[number][0] = True
        (read,) = rule.all_reads(live, [unknown])
        expected = np.isin(inward, outward[number][0])
        assert read.tolist() == expected.tolist()


@pytest.mark.parametrize(("call", "shape", "axes", "sources"), WITH_SIZES)
def test_what_is_left_moves_what_is_left(call, shape, axes, sources):
    rule = rule_of(call, shape)
    node = rule.node
    ties = rule.ties()
    if len(axes[0]) > 1:
        ties = [own % node.outputs[0].sizes[-1] for own in ties]
    inward, *outward = ties
    for gone in np.unique(inward):
        kept = {node.inputs[0]: inward != gone} | {
            y: own != gone for y, own in zip(node.outputs, outward, strict=True)
        }
        if not all(own.any() for own in kept.values()):
            continue
        change = rule.cut(kept, [np.full(len(inward), np.nan)])
        config = getattr(rule.layer, "get_config", dict)() | change.config
        operation = type(rule.layer).from_config(config)
        x = np.random.default_rng(0).normal(size=(2, *shape))
        args, kwargs = change.arguments or (node.args, node.kwargs)
        own = {id(node.inputs[0]): _kept(x, node.inputs[0], kept)}
        args = [
            ops.convert_to_tensor(own[id(a)]) if id(a) in own else a
            for a in args
        ]
        found = keras.tree.flatten(operation(*args, **kwargs))
        expected = keras.tree.flatten(call(ops.convert_to_tensor(x, "float32")))
        for y, a, b in zip(node.outputs, found, expected, strict=True):
            np.testing.assert_array_equal(
                to_numpy(a), _kept(to_numpy(b), y, kept)
            )


def _kept(values, x, kept):
    """Returns an array of a tensor's shape without the channels that go."""
    flags = kept[x].reshape(x.sizes)
    for place, axis in enumerate(x.axes):
        others = tuple(i for i in range(flags.ndim) if i != place)
        values = np.compress(flags.any(others), values, axis)
    return values.astype("float32")


def test_what_is_stacked_meets():
    rule = rule_of(lambda x, y: ops.stack([x, y], axis=1), (4, 3), 2)
    assert rule.all_axes() == [(3,)]
    assert [own.tolist() for own in rule.ties()] == [[0, 1, 2]] * 3
    given = [np.array([1.0, 2.0, np.nan]), np.array([1.0, 3.0, 0.0])]
    np.testing.assert_array_equal(rule.constants(given), [1, np.nan, np.nan])


def test_zeros_meet_a_constant_at_the_border():
    rule = rule_of(lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 0]]), (4, 3))
    assert rule.border
    rule = rule_of(lambda x: ops.pad(x, [[0, 0], [0, 0], [1, 0]]), (4, 3))
    assert not rule.border
    found = rule.constants([np.array([np.nan, 2.0, 0.0])])
    np.testing.assert_array_equal(found, [0, np.nan, 2, 0])
    pairs = [[0, 0], [1, 0], [0, 0]]
    rule = rule_of(lambda x: ops.pad(x, pairs, constant_values=2.0), (4, 3))
    assert not rule.border
    found = rule.constants([np.array([np.nan, 2.0, 0.0])])
    np.testing.assert_array_equal(found, [np.nan, 2, np.nan])
    rule = rule_of(lambda x: ops.pad(x, pairs, "reflect"), (4, 3))
    assert not rule.border
    np.testing.assert_array_equal(rule.constants([np.ones(3)]), [1, 1, 1])


def test_slices_of_what_is_split_are_cut_alike_by_unstack():
    inputs = keras.Input((5, 12))
    x = ops.unstack(ops.reshape(inputs, (-1, 5, 3, 4)), 3, axis=2)
    liveness = Liveness(trace(keras.Model(inputs, x)), to_numpy, "keep")
    liveness.forward({})
    *_, rule = liveness.rules.values()
    assert rule.ties()[0].reshape(3, 4).tolist() == [[0, 1, 2, 3]] * 3
    assert rule.all_axes() == [(2,)] * 3


def test_sizes_that_are_no_plain_numbers_keep_it_whole():
    shape = tuple(np.array([-1, 2, 12]))
    rule = rule_of(lambda x: ops.reshape(x, shape), (4, 6))
    assert "its arguments are not in its config" in rule.why_inputs_stay


@pytest.mark.parametrize("size", [1, 5])
def test_one_channel_is_flattened(size):
    rule = rule_of(layers.Flatten(), (size, 1))
    assert rule.axes() == (1,)
