import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_sgl0 as ks

FACTOR = 0.3


def norms(w, axis):
    return np.linalg.norm(
        np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1), axis=1
    )


def numpy_l0(w):
    return FACTOR * np.count_nonzero(w)


def numpy_l1(w):
    return FACTOR * np.abs(w).sum()


def numpy_group_lasso(w, axis=-1):
    return FACTOR * (w.size / w.shape[axis]) ** 0.5 * norms(w, axis).sum()


ELEMENTWISE = {
    "l0": (ks.L0(FACTOR), numpy_l0),
    "l1": (ks.L1(FACTOR), numpy_l1),
}
GROUPED = {
    "group_lasso": (ks.GroupLasso(FACTOR), numpy_group_lasso),
    "group_lasso_axis_0": (
        ks.GroupLasso(FACTOR, axis=0),
        lambda w: numpy_group_lasso(w, 0),
    ),
    "sparse_group_lasso": (
        ks.SparseGroupLasso(FACTOR),
        lambda w: numpy_group_lasso(w) + numpy_l1(w),
    ),
    "sgl0": (ks.SGL0(FACTOR), lambda w: numpy_group_lasso(w) + numpy_l0(w)),
    "sgl0_auto": (
        ks.SGL0(FACTOR, axis="auto"),
        lambda w: numpy_group_lasso(w, -1 if w.ndim > 2 else 0) + numpy_l0(w),
    ),
    "sparse_group": (
        ks.SparseGroup(ks.GroupLasso(FACTOR, axis=-2), ks.L1(FACTOR)),
        lambda w: numpy_group_lasso(w, -2) + numpy_l1(w),
    ),
}
ALL = ELEMENTWISE | GROUPED
every_penalty = pytest.mark.parametrize(
    ("penalty", "reference"), ALL.values(), ids=ALL
)
every_element = pytest.mark.parametrize(
    "penalty", [p for p, _ in ELEMENTWISE.values()], ids=ELEMENTWISE
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
    if "l0" not in type(penalty).__name__.lower() or hasattr(penalty, "group"):
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
    if penalty is ELEMENTWISE["l0"][0]:
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
@settings(deadline=None, max_examples=50)
@given(
    y=st.floats(-3, 3, width=32),
    step=st.floats(1e-3, 10),
)
def test_prox_is_the_minimiser(penalty, y, step):
    def objective(x):
        return (
            step * float(penalty(np.array([x], "float32"))) + (x - y) ** 2 / 2
        )

    x = to_numpy(penalty.prox(np.array([y], "float32"), step))[0]
    grid = np.concatenate([np.linspace(-3.5, 3.5, 141), [0.0, y]])
    best = min(objective(g) for g in grid.astype("float32"))
    assert objective(x) <= best + 1e-5


@every_element
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_prox_keeps_dtype_and_cuts_up_to_its_threshold(penalty, dtype):
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
    assert float(ks.GroupLasso(FACTOR)(w)) == pytest.approx(numpy_l1(w))


@pytest.mark.parametrize("factor", [0, -1e-3, float("nan"), None, "1", True])
@pytest.mark.parametrize(
    "penalty", [ks.L0, ks.L1, ks.GroupLasso, ks.SparseGroupLasso, ks.SGL0]
)
def test_a_factor_that_is_not_positive_is_refused(penalty, factor):
    with pytest.raises(ValueError, match="argument `factor`"):
        penalty(factor)


@pytest.mark.parametrize("axis", ["rows", 1.5, None])
def test_an_unknown_axis_is_refused(axis):
    with pytest.raises(ValueError, match="argument `axis`"):
        ks.SGL0(1.0, axis=axis)


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
