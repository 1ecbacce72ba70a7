"""Which structures go for a budget, one by one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.structures.selection import PRECISION, Floor, select


def uneven():
    """Returns two channels of 10 multiply-adds and four of 2, 28 in all."""
    x, y = keras.Input((9,)), keras.Input((1,))
    a = layers.Dense(2, name="a", use_bias=False)(x)
    b = layers.Dense(4, name="b", use_bias=False)(y)
    joined = layers.Concatenate()([a, b])
    head = layers.Dense(1, name="head", use_bias=False)(joined)
    found = ks.structures(keras.Model([x, y], head))
    assert found.counts.tolist() == [2, 4]
    assert found.cost().macs == 28
    return found


A, B = [0, 1], [2, 3, 4, 5]


def cut(sizes, least, most, floor=None, alive=None, relative=False):
    """Returns the numbers of the structures that go."""
    found = uneven()
    alive = np.ones(6, bool) if alive is None else np.array(alive, bool)
    floor = floor or Floor(np.ones(6, bool))
    kept = select(
        found,
        np.array(sizes, float),
        alive,
        (least, most),
        "macs",
        floor,
        relative,
    )
    assert not (kept & ~alive).any()
    return np.flatnonzero(alive & ~kept).tolist()


# Sizes of a0, a1, b0, ..., b3.
A_FIRST = [1, 6, 2, 3, 4, 5]
B_FIRST = [2, 6, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("sizes", "least", "most", "gone"),
    [
        (A_FIRST, 0, 28, []),
        (A_FIRST, 0, 27, [0]),
        (A_FIRST, 18, 18, [0]),
        (A_FIRST, 0, 17, [0, 2]),
        (A_FIRST, 0, 16, [0, 2]),
        (B_FIRST, 0, 26, [2]),
        (B_FIRST, 0, 25, [0, 2]),
        # The first would save too much and is passed over.
        (A_FIRST, 23, 25, [2, 3]),
        (A_FIRST, 24, 24, [2, 3]),
        (A_FIRST, 22, 23, [2, 3, 4]),
        # No choice is between both: the smallest go.
        (A_FIRST, 24.75, 25, [0]),
        (A_FIRST, 16.9, 17, [0, 2]),
        # One comes back, as that is not above the most.
        (B_FIRST, 18.9, 19, [0]),
        (B_FIRST, 18, 18, [0]),
    ],
)
def test_what_goes_for_a_cost(sizes, least, most, gone):
    assert cut(sizes, least, most) == gone


def test_every_family_keeps_its_floor():
    everything = np.ones(6, bool)
    assert cut(A_FIRST, 0, 25, Floor(everything, 2)) == [2, 3]
    floor = Floor(everything, np.array([1, 3]))
    assert cut(A_FIRST, 0, 16, floor) == [0, 2]
    assert cut(A_FIRST, 0, 25, Floor(everything, 1, round_to=2)) == [2, 3]
    removable = np.array([0, 0, 1, 1, 1, 1], bool)
    assert cut(A_FIRST, 0, 22, Floor(removable)) == [2, 3, 4]


def test_only_what_is_alive_counts():
    # A family without any that is alive, and one with two.
    assert cut(A_FIRST, 0, 10, alive=[1, 1, 0, 0, 0, 0]) == [0]
    assert cut(A_FIRST, 0, 22, alive=[1, 1, 1, 0, 0, 1]) == [0]
    assert cut(B_FIRST, 0, 22, alive=[1, 1, 1, 0, 0, 1]) == [2]


def test_sizes_count_relative_to_those_of_their_family():
    sizes = [10, 30, 1, 2, 3, 4]  # relative: 0.5, 1.5; 0.4, 0.8, 1.2, 1.6
    assert cut(sizes, 0, 26, relative=True) == [2]
    assert cut(sizes, 0, 25, relative=True) == [0, 2]
    assert cut(sizes, 0, 25, relative=False) == [2, 3]
    # The mean is that of what is alive: 0.5, 1.5; 0.67, 1.33.
    alive = [1, 1, 1, 1, 0, 0]
    assert cut([10, 30, 1, 2, 0, 0], 0, 16, alive=alive, relative=True) == [0]


def test_a_structure_alone_in_its_family_is_of_the_mean_size():
    sizes, alive = [10, 0, 1, 2, 3, 4], [1, 0, 1, 1, 1, 1]
    for most, gone in ((15, [2, 3]), (13, [0, 2, 3])):
        found = cut(sizes, 0, most, Floor(np.ones(6, bool), 0), alive, True)
        assert found == gone


@pytest.mark.parametrize(
    ("minimum", "round_to", "counts"),
    [
        (1, 1, [1, 1]),
        (3, 1, [2, 3]),
        (1, 2, [2, 2]),
        (3, 2, [2, 4]),
        (2, 3, [2, 3]),
        (np.array([1, 3]), 1, [1, 3]),
    ],
)
def test_what_must_stay(minimum, round_to, counts):
    floor = Floor(np.ones(6, bool), minimum, round_to)
    assert floor.counts(uneven()).tolist() == counts
    floor = Floor(np.array([0, 1, 1, 1, 1, 1], bool))
    assert floor.counts(uneven()).tolist() == [1, 1]
    floor = Floor(np.array([0, 1, 0, 0, 0, 1], bool))
    assert floor.counts(uneven()).tolist() == [1, 3]
    assert (Floor(np.ones(6, bool)).minimum, floor.round_to) == (1, 1)


def test_a_budget_out_of_reach_is_refused():
    found = uneven()
    floor = Floor(np.array([1, 1, 0, 0, 0, 0], bool))
    floor.require_reach(found, "macs", 18 / 28, "density", "are frozen")
    with pytest.raises(ValueError) as caught:
        floor.require_reach(found, "macs", 0.5, "density", "are frozen")
    assert str(caught.value) == (
        "Invalid value for argument `density`. Expected at least 0.6429, the "
        "share of the macs that cannot be cut: 1 or more channels a family "
        "stay, and all of `b`, `head`, which are frozen. Received: density=0.5"
    )


@pytest.mark.parametrize(
    ("hidden", "text"),
    [
        (4, "all of `0`, `1`, `2`, `3`, `4`, which"),
        (5, "all of `0`, `1`, `2`, `3`, `4` and 1 more, which"),
        (6, "all of `0`, `1`, `2`, `3`, `4` and 2 more, which"),
    ],
)
def test_not_more_than_five_layers_are_named(hidden, text):
    x = inputs = keras.Input((2,))
    for i in range(hidden + 1):
        x = layers.Dense(2, name=str(i))(x)
    found = ks.structures(keras.Model(inputs, x))
    with pytest.raises(ValueError, match=text):
        Floor(np.zeros(found.size, bool)).require_reach(
            found, "channels", 0.5, "density", "are frozen"
        )


def test_a_cost_may_end_a_hundredth_below_its_target():
    assert PRECISION == 0.01
