import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
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
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_value_of_small_and_large_weights(penalty, reference, scale):
    w = draw((6, 4)) * np.float32(scale)
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


def test_the_factor_that_was_given_is_named():
    with pytest.raises(ValueError, match="Received: factor=-4"):
        ks.IntegratedTransformedL1(-4)


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
        (ks.L1MinusL2, {"alpha": 0}, "alpha"),
        (ks.CGES, {"mu": 1.5}, "mu"),
        (ks.CGES, {"mu": -0.5}, "mu"),
        (ks.IntegratedTransformedL1, {"mu": 1.0}, "mu"),
        (ks.IntegratedTransformedL1, {"mu": 0.0}, "mu"),
        (ks.SparseGroupTransformedL1, {"a": -1}, "a"),
    ],
)
def test_a_shape_out_of_range_is_refused(penalty, arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        penalty(1.0, **arguments)


@pytest.mark.parametrize(
    "penalty",
    [
        ks.TransformedL1(1.0, a=0.1),
        ks.SCAD(1.0, a=2.1),
        ks.MCP(1.0, gamma=0.1),
        ks.L1MinusL2(1.0, alpha=0.1),
        ks.CGES(1.0, mu=0.0),
        ks.CGES(1.0, mu=1.0),
        ks.IntegratedTransformedL1(1.0, mu=0.1),
        ks.SparseGroupL1MinusL2(1.0, alpha=1.0),
    ],
    ids=lambda penalty: type(penalty).__name__,
)
def test_a_shape_just_in_range_is_taken(penalty):
    assert np.isfinite(float(penalty(draw((6, 4)))))


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
