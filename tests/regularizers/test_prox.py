"""The proximal operators of penalties against their definition."""

import itertools

import keras
import numpy as np
import pytest
from helpers import to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from test_regularizers import (
    ALL,
    CONVEX_GROUPS,
    FACTOR,
    JOINT,
    draw,
    every_element,
    numpy_l1,
)

import keras_sgl0 as ks


@pytest.mark.parametrize(
    "name", [name for name, (penalty, _) in ALL.items() if penalty.has_prox]
)
def test_nan_stays_nan(name):
    penalty, _ = ALL[name]
    w = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    w[2, 1] = np.nan
    assert np.isnan(to_numpy(penalty.prox(ops.convert_to_tensor(w), 0.5))[2, 1])


@every_element
def test_the_envelope_is_the_value_at_v_and_its_gradient(penalty, reference):
    step = 0.7
    w = np.random.default_rng(1).normal(size=(6, 4)).astype("float32") * 2
    w[0] = 0
    v = to_numpy(penalty.prox(ops.convert_to_tensor(w), step))
    value, slope = penalty.envelope(
        ops.convert_to_tensor(w), ops.convert_to_tensor(step)
    )
    expected = reference(v) + ((w - v) ** 2).sum() / (2 * step)
    np.testing.assert_allclose(to_numpy(value), expected, rtol=1e-5)
    np.testing.assert_allclose(
        to_numpy(slope(3.0)), 3 * (w - v) / step, rtol=1e-5, atol=1e-6
    )


def test_the_envelope_of_a_subclass_of_l0_is_its_own():
    class Soft(ks.regularizers.L0):
        def prox(self, w, step):
            return w / 2

    w = ops.convert_to_tensor([2.0, -4.0])
    value, slope = Soft(1.0).envelope(w, ops.convert_to_tensor(1.0))
    assert float(value) == 2 + (1 + 4) / 2
    np.testing.assert_array_equal(to_numpy(slope(1.0)), [1, -2])


@every_element
@settings(deadline=None, max_examples=40)
@given(y=st.floats(-8, 8, width=32), step=st.floats(1e-3, 10))
def test_prox_is_the_minimiser(penalty, reference, y, step):
    def objective(x):
        values = np.array([reference(np.array([v])) for v in np.ravel(x)])
        return step * values + (np.ravel(x) - y) ** 2 / 2

    x = to_numpy(penalty.prox(np.array([y], "float32"), step)).astype(float)
    grid = np.concatenate([np.linspace(-8, 8, 641), [0.0, y]])
    assert objective(x)[0] <= objective(grid).min() + 1e-5 * (1 + abs(y))


vectors = st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6).map(
    lambda y: np.array(y, "float32").reshape(3, 2)
)


@pytest.mark.parametrize(
    ("penalty", "reference"),
    (JOINT | CONVEX_GROUPS).values(),
    ids=JOINT | CONVEX_GROUPS,
)
@settings(deadline=None, max_examples=30)
@given(y=vectors, step=st.floats(1e-2, 5))
def test_joint_prox_is_the_minimiser(penalty, reference, y, step):
    def objective(x):
        return step * reference(x) + ((x - y) ** 2).sum() / 2

    x = to_numpy(penalty.prox(y, step)).astype(float)
    rng = np.random.default_rng(0)
    rivals = [x * 0, y.astype(float)]
    rivals += [x + rng.normal(size=x.shape) * s for s in np.logspace(-3, 1, 60)]
    rivals += [
        x + np.eye(6)[i].reshape(3, 2) * s
        for i in range(6)
        for s in (-1e-2, 1e-2)
    ]
    rivals += [np.where(np.eye(6)[i].reshape(3, 2), y, 0) for i in range(6)]
    assert objective(x) <= min(map(objective, rivals)) + 1e-4


@settings(deadline=None, max_examples=60)
@given(
    y=vectors,
    step=st.floats(1e-2, 3),
    group=st.floats(0.01, 2),
    element=st.floats(0.01, 2),
)
def test_prox_of_sgl0_is_the_best_of_all_supports(y, step, group, element):
    penalty = ks.SparseGroup(ks.GroupLasso(group), ks.L0(element))

    def objective(x, y):
        norm = np.sqrt(3) * np.linalg.norm(x)
        cost = step * (group * norm + element * np.count_nonzero(x))
        return cost + ((x - y) ** 2).sum() / 2

    x = to_numpy(penalty.prox(y, step)).astype(float)
    for column, ours in zip(y.T.astype(float), x.T, strict=True):
        best = objective(np.zeros(3), column)
        for support in itertools.product([0, 1], repeat=3):
            rival = column * support
            norm = np.linalg.norm(rival)
            if norm > 0:
                amount = step * group * np.sqrt(3)
                rival = rival * max(0, 1 - amount / norm)
                best = min(best, objective(rival, column))
        assert objective(ours, column) <= best + 1e-4


def test_prox_of_cges_is_group_then_exclusive():
    y = draw((6, 4))
    group, exclusive = (
        ks.CGES(0.75 * FACTOR, 0),
        ks.ExclusiveLasso(0.25 * FACTOR),
    )
    expected = exclusive.prox(group.prox(y, 0.5), 0.5)
    found = ks.CGES(FACTOR, mu=0.25).prox(y, 0.5)
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-6)


def test_group_prox_kills_whole_groups_exactly():
    w = np.array([[3.0, 0.1, 0.0], [4.0, 0.1, 0.0]], "float32")
    x = to_numpy(ks.GroupLasso(1.0).prox(w, 1.0))
    np.testing.assert_allclose(x[:, 0], w[:, 0] * (1 - 2**0.5 / 5), rtol=1e-6)
    assert not x[:, 1:].any()


@pytest.mark.parametrize(
    "penalty",
    [
        ks.SparseGroupTransformedL1(1.0),
        ks.SparseGroup(ks.ExclusiveLasso(1.0), ks.L1(1.0)),
    ],
)
def test_an_unknown_sum_has_no_prox(penalty):
    with pytest.raises(ValueError, match="VariableSplitting"):
        penalty.prox(draw((6, 4)), 0.1)


@pytest.mark.parametrize(
    ("penalty", "step"),
    [(ks.SCAD(1.0, a=3.7), 2.7), (ks.MCP(1.0, gamma=3.0), 3.0)],
)
def test_a_step_outside_the_domain_is_refused(penalty, step):
    with pytest.raises(ValueError, match="needs `step` less than"):
        penalty.prox(draw((6, 4)), step)


def test_the_whole_message_of_a_step_outside_the_domain():
    with pytest.raises(ValueError) as caught:
        ks.MCP(1.0, gamma=4.0).prox(draw((2, 2)), 5.0)
    assert str(caught.value) == (
        "The proximal operator of MCP needs `step` less than `gamma`, here 4; "
        "with `VariableSplitting`, `beta` greater than 0.25. Received: step=5.0"
    )


@every_element
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_prox_keeps_dtype_and_cuts_at_its_threshold(penalty, reference, dtype):
    step = 0.5
    threshold = float(penalty.threshold(step))
    w = ops.cast(np.array([0.97, -0.97, 1.03, -1.03]) * threshold, dtype)
    cut = penalty.prox(w, step)
    assert keras.backend.standardize_dtype(cut.dtype) == dtype
    alive = to_numpy(ops.cast(cut, "float32")) != 0
    assert alive.tolist() == [False, False, True, True]


def test_thresholds():
    assert float(ks.L0(0.1).threshold(1 / 2.5)) == pytest.approx(0.08**0.5)
    assert float(ks.L1(0.1).threshold(1 / 2.5)) == pytest.approx(0.04)


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "penalty",
    [
        ks.L0(0.5),
        ks.L1(0.5),
        ks.LHalf(0.5),
        *(ks.TransformedL1(0.5, a=a) for a in (0.3, 1.0, 3.0)),
        ks.SCAD(0.5, a=6.0),
        ks.MCP(0.5, gamma=5.0),
    ],
    ids=lambda penalty: str(penalty.get_config()),
)
def test_the_threshold_is_where_zero_is_no_more_the_minimiser(penalty, step):
    # 0 is better than x while y x < step r(x) + x^2 / 2.
    x = np.geomspace(1e-5, 30, 400)
    value = np.array([float(penalty(np.array([v]))) for v in x])
    expected = (step * value / x + x / 2).min()
    assert float(penalty.threshold(step)) == pytest.approx(expected, rel=1e-3)


@every_element
@pytest.mark.parametrize("step", [0.1, 3.0])
def test_a_weight_of_the_size_of_the_threshold_becomes_zero(
    penalty, reference, step
):
    threshold = float(penalty.threshold(step))
    w = np.array([threshold, -threshold], "float32")
    assert to_numpy(penalty.prox(w, step)).tolist() == [0, 0]


def test_hard_thresholding_cuts_at_the_threshold_itself():
    w = np.array([1.0, -1.0, 1.0000001], "float32")
    assert to_numpy(ks.L0(0.5).prox(w, 1.0)).tolist() == [0, 0, w[2]]


def test_groups_of_size_one_are_l1():
    w = draw((1, 9))
    penalty = ks.GroupLasso(FACTOR)
    assert float(penalty(w)) == pytest.approx(numpy_l1(w))
    found = to_numpy(penalty.prox(w, 2.0))
    expected = to_numpy(ks.L1(FACTOR).prox(w, 2.0))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("rest", [0.0, 1.0])
@pytest.mark.parametrize("price", [0.0, 0.5, 3.0])
def test_each_group_keeps_its_best_number_of_weights(rest, price):
    sizes = [[4.0, 2.0, 1.0], [1.2, 1.1, 0.1], [0.5, 0.0, 0.0]]
    penalty = ks.L0(0.5)

    def gain(row, k):
        norm = (rest + (row[:k] ** 2).sum()) ** 0.5
        return max(norm - price, 0) ** 2 / 2 - 0.5 * 0.7 * k

    expected = []
    for row in np.array(sizes):
        best = max(range(4), key=lambda k, row=row: gain(row, k))
        expected.append(row[best - 1] if best else np.inf)
    found = penalty.smallest_kept(np.array(sizes, "float32"), rest, price, 0.7)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-6)


def test_no_weight_stays_that_gains_nothing():
    # (2^2 - 1^2) / 2 is the cost of one weight.
    largest = np.array([[3**0.5], [2.0]], "float32")
    rest = np.array([[1.0], [0.0]], "float32")
    found = to_numpy(ks.L0(1.5).smallest_kept(largest, rest, 0.0, 1.0))
    assert found.tolist() == [np.inf, 2.0]


ROOT = 2.5**0.5
# With step 3, t = 1.5 and (1 - alpha) t = 0.6.
ONE_MAY_STAY = ks.L1MinusL2(0.5, alpha=0.6)


@pytest.mark.parametrize(
    ("w", "expected"),
    [
        ([2.0, -3.0, 0.5], [0.5 + 0.45 / ROOT, -1.5 - 1.35 / ROOT, 0]),
        ([0.2, -1.2, 1.1], [0, -0.6, 0]),
        ([1.5, -1.5, 1.5], [0.9, 0, 0]),
        ([0.7, 0.0, -0.1], [0.1, 0, 0]),
        ([0.59, 0.0, -0.5], [0, 0, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_the_three_cases_of_l1_minus_l2(w, expected):
    found = to_numpy(ONE_MAY_STAY.prox(np.array(w, "float32"), 3.0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
