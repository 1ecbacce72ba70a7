import itertools

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_sgl0 as ks

FACTOR = 0.3


def by_group(w, axis):
    return np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)


def numpy_l0(w):
    return FACTOR * np.count_nonzero(w)


def numpy_l1(w):
    return FACTOR * np.abs(w).sum()


def numpy_transformed_l1(w, a):
    return FACTOR * ((a + 1) * np.abs(w) / (a + np.abs(w))).sum()


def numpy_l_half(w):
    return FACTOR * np.sqrt(np.abs(w)).sum()


def numpy_scad(w, level, a):
    w = np.abs(w)
    middle = (2 * a * level * w - w**2 - level**2) / (2 * (a - 1))
    pieces = [w <= level, w <= a * level]
    values = [level * w, middle]
    return np.select(pieces, values, level**2 * (a + 1) / 2).sum()


def numpy_mcp(w, level, gamma):
    w = np.abs(w)
    inside = level * w - w**2 / (2 * gamma)
    return np.where(w <= gamma * level, inside, gamma * level**2 / 2).sum()


def numpy_l1_minus_l2(w, alpha):
    return FACTOR * (np.abs(w).sum() - alpha * np.linalg.norm(w.ravel()))


def numpy_group_lasso(w, axis=-1):
    w = by_group(w, axis)
    return FACTOR * w.shape[1] ** 0.5 * np.linalg.norm(w, axis=1).sum()


def numpy_exclusive(w, axis=-1):
    return FACTOR / 2 * (np.abs(by_group(w, axis)).sum(axis=1) ** 2).sum()


def numpy_cges(w, mu):
    norms = np.linalg.norm(by_group(w, -1), axis=1).sum()
    return (1 - mu) * FACTOR * norms + mu * numpy_exclusive(w)


ELEMENTWISE = {
    "l0": (ks.L0(FACTOR), numpy_l0),
    "l1": (ks.L1(FACTOR), numpy_l1),
    "transformed_l1": (
        ks.TransformedL1(FACTOR),
        lambda w: numpy_transformed_l1(w, 1.0),
    ),
    "transformed_l1_sharp": (
        ks.TransformedL1(FACTOR, a=0.1),
        lambda w: numpy_transformed_l1(w, 0.1),
    ),
    "l_half": (ks.LHalf(FACTOR), numpy_l_half),
    "scad": (ks.SCAD(0.5, a=12.0), lambda w: numpy_scad(w, 0.5, 12.0)),
    "mcp": (ks.MCP(0.5, gamma=11.0), lambda w: numpy_mcp(w, 0.5, 11.0)),
}
JOINT = {
    "l1_minus_l2": (
        ks.L1MinusL2(FACTOR),
        lambda w: numpy_l1_minus_l2(w, 1.0),
    ),
    "l1_minus_half_l2": (
        ks.L1MinusL2(FACTOR, alpha=0.5),
        lambda w: numpy_l1_minus_l2(w, 0.5),
    ),
}
CONVEX_GROUPS = {
    "group_lasso": (ks.GroupLasso(FACTOR), numpy_group_lasso),
    "group_lasso_axis_0": (
        ks.GroupLasso(FACTOR, axis=0),
        lambda w: numpy_group_lasso(w, 0),
    ),
    "exclusive_lasso": (ks.ExclusiveLasso(FACTOR), numpy_exclusive),
    "sparse_group_lasso": (
        ks.SparseGroupLasso(FACTOR),
        lambda w: numpy_group_lasso(w) + numpy_l1(w),
    ),
    "cges_as_group": (ks.CGES(FACTOR, mu=0), lambda w: numpy_cges(w, 0)),
    "cges_as_exclusive": (ks.CGES(FACTOR, mu=1), lambda w: numpy_cges(w, 1)),
}
OTHER_GROUPS = {
    "cges": (ks.CGES(FACTOR, mu=0.25), lambda w: numpy_cges(w, 0.25)),
    "sgl0": (ks.SGL0(FACTOR), lambda w: numpy_group_lasso(w) + numpy_l0(w)),
    "sgl0_auto": (
        ks.SGL0(FACTOR, axis="auto"),
        lambda w: numpy_group_lasso(w, -1 if w.ndim > 2 else 0) + numpy_l0(w),
    ),
    "sparse_group": (
        ks.SparseGroup(ks.GroupLasso(FACTOR, axis=-2), ks.MCP(0.5)),
        lambda w: numpy_group_lasso(w, -2) + numpy_mcp(w, 0.5, 3.0),
    ),
    "sparse_group_transformed_l1": (
        ks.SparseGroupTransformedL1(FACTOR, a=2.0),
        lambda w: numpy_group_lasso(w) + numpy_transformed_l1(w, 2.0),
    ),
    "sparse_group_l_half": (
        ks.SparseGroupLHalf(FACTOR),
        lambda w: numpy_group_lasso(w) + numpy_l_half(w),
    ),
    "sparse_group_l1_minus_l2": (
        ks.SparseGroupL1MinusL2(FACTOR, alpha=0.5),
        lambda w: numpy_group_lasso(w) + numpy_l1_minus_l2(w, 0.5),
    ),
    "integrated_transformed_l1": (
        ks.IntegratedTransformedL1(FACTOR, mu=0.3, a=2.0),
        lambda w: 0.7 * numpy_group_lasso(w) + 0.3 * numpy_transformed_l1(w, 2),
    ),
}
ALL = ELEMENTWISE | JOINT | CONVEX_GROUPS | OTHER_GROUPS
every_penalty = pytest.mark.parametrize(
    ("penalty", "reference"), ALL.values(), ids=ALL
)
every_element = pytest.mark.parametrize(
    ("penalty", "reference"), ELEMENTWISE.values(), ids=ELEMENTWISE
)


def draw(shape, dtype="float32"):
    w = np.random.default_rng(1).normal(size=shape)
    w[np.abs(w) < 0.2] = 0
    return w.astype(dtype)


@every_penalty
@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 4, 5), (3, 2, 4)])
def test_value(penalty, reference, shape):
    w = draw(shape)
    assert float(penalty(w)) == pytest.approx(reference(w), rel=1e-5)


@every_penalty
def test_even_and_zero_at_zero(penalty, reference):
    w = draw((6, 4))
    assert float(penalty(w)) == float(penalty(-w))
    assert float(penalty(np.zeros((6, 4), "float32"))) == 0


@every_penalty
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e15])
def test_no_nan_in_value_or_gradient(penalty, reference, scale):
    w = (draw((6, 4)) * scale).astype("float32")
    assert np.isfinite(float(penalty(w)))
    if type(penalty) is not ks.L0:  # which has no gradient at all
        assert np.isfinite(gradient(penalty, w)).all()


@pytest.mark.parametrize(
    "name", [name for name, (penalty, _) in ALL.items() if penalty.has_prox]
)
def test_nan_stays_nan(name):
    penalty, _ = ALL[name]
    w = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    w[2, 1] = np.nan
    assert np.isnan(to_numpy(penalty.prox(ops.convert_to_tensor(w), 0.5))[2, 1])


@every_penalty
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision(penalty, reference, dtype):
    w = ops.cast(draw((40, 30)), dtype)
    value = penalty(w)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    exact = reference(to_numpy(ops.cast(w, "float32")))
    assert float(value) == pytest.approx(exact, rel=1e-5)


@every_penalty
def test_gradient_is_the_finite_difference(penalty, reference):
    w = np.random.default_rng(2).uniform(0.5, 1.5, (6, 4)).astype("float32")
    if type(penalty) is ks.L0:
        assert float(penalty(w)) == float(penalty(w + 1e-3))
        return
    slope, wide, h = gradient(penalty, w), w.astype("float64"), 1e-6
    for i in np.ndindex(*w.shape):
        e = np.zeros(w.shape)
        e[i] = h
        difference = (reference(wide + e) - reference(wide - e)) / (2 * h)
        assert slope[i] == pytest.approx(difference, rel=1e-3)


@every_penalty
def test_config_round_trip(penalty, reference):
    w = draw((6, 4))
    config = keras.saving.serialize_keras_object(penalty)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(penalty)
    assert again.get_config() == penalty.get_config()
    assert float(again(w)) == float(penalty(w))


@every_penalty
def test_one_instance_on_several_layers(penalty, reference):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, kernel_regularizer=penalty),
            keras.layers.Flatten(),
            keras.layers.Dense(5, kernel_regularizer=penalty),
        ]
    )
    kernels = [model.layers[0].kernel, model.layers[2].kernel]
    expected = sum(reference(to_numpy(k)) for k in kernels)
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize(
    ("penalty", "limit"),
    [
        (ks.SCAD(FACTOR, a=1e6), ks.L1(FACTOR)),
        (ks.MCP(FACTOR, gamma=1e6), ks.L1(FACTOR)),
        (ks.TransformedL1(FACTOR, a=1e6), ks.L1(FACTOR)),
        (ks.TransformedL1(FACTOR, a=1e-6), ks.L0(FACTOR)),
    ],
    ids=["scad", "mcp", "transformed_l1", "transformed_l1_to_l0"],
)
def test_limits(penalty, limit):
    w = draw((6, 4))
    assert float(penalty(w)) == pytest.approx(float(limit(w)), rel=1e-4)
    for step in (0.1, 1.0):
        np.testing.assert_allclose(
            to_numpy(penalty.prox(w, step)),
            to_numpy(limit.prox(w, step)),
            atol=1e-4,
        )


@pytest.mark.parametrize("factor", [0, -1e-3, float("nan"), None, "1", True])
@pytest.mark.parametrize(
    "penalty",
    [
        type(penalty)
        for penalty, _ in ALL.values()
        if type(penalty) is not ks.SparseGroup
    ],
)
def test_a_factor_that_is_not_positive_is_refused(penalty, factor):
    with pytest.raises(ValueError, match="argument `factor`"):
        penalty(factor)


@pytest.mark.parametrize("axis", ["rows", 1.5, None])
def test_an_unknown_axis_is_refused(axis):
    with pytest.raises(ValueError, match="argument `axis`"):
        ks.SGL0(1.0, axis=axis)


@pytest.mark.parametrize(
    ("penalty", "arguments", "name"),
    [
        (ks.TransformedL1, {"a": 0}, "a"),
        (ks.SCAD, {"a": 2}, "a"),
        (ks.MCP, {"gamma": -1}, "gamma"),
        (ks.L1MinusL2, {"alpha": 1.5}, "alpha"),
        (ks.CGES, {"mu": 1.5}, "mu"),
        (ks.CGES, {"mu": -0.5}, "mu"),
        (ks.IntegratedTransformedL1, {"mu": 1.0}, "mu"),
        (ks.SparseGroupTransformedL1, {"a": -1}, "a"),
    ],
)
def test_a_shape_out_of_range_is_refused(penalty, arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        penalty(1.0, **arguments)


def test_an_axis_out_of_range_is_refused_when_the_layer_is_called():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, kernel_regularizer=ks.SGL0(1.0, axis=2)),
        ]
    )
    with pytest.raises(ValueError, match="argument `axis`"):
        model.losses  # noqa: B018


def test_the_parts_of_a_sparse_group_are_checked():
    with pytest.raises(ValueError) as caught:
        ks.SparseGroup(ks.GroupLasso(1.0), "l1")
    assert str(caught.value) == (
        "Invalid value for argument `element`. Expected an elementwise penalty "
        "such as `L0` or `L1`. Received: element='l1'"
    )
    with pytest.raises(ValueError, match="argument `group`"):
        ks.SparseGroup(ks.L1(1.0), ks.L1(1.0))
