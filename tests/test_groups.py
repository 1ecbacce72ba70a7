import keras
import numpy as np
import pytest
from helpers import BACKEND, gradient, to_numpy
from keras import ops

from keras_sgl0.groups import (
    by_group,
    group_means,
    group_norms,
    group_size,
    num_groups,
    other_axes,
    per_weight,
    resolve_axis,
    safe_norm,
    safe_sqrt,
    signed,
    sorted_sizes,
    validate_axis,
    wide_dtype,
)

CONV, DENSE = (5, 5, 20, 50), (800, 500)


@pytest.mark.parametrize(
    ("shape", "axis", "resolved", "number", "size"),
    [
        (CONV, -1, 3, 50, 500),
        (CONV, "auto", 3, 50, 500),
        (CONV, 2, 2, 20, 1250),
        (DENSE, -1, 1, 500, 800),
        (DENSE, "auto", 0, 800, 500),
        (DENSE, -2, 0, 800, 500),
        ((3, 8, 16), "auto", 2, 16, 24),
        ((3, 3, 3, 8, 16), "auto", 4, 16, 216),
        ((7,), -1, 0, 7, 1),
    ],
)
def test_axis_number_and_size(shape, axis, resolved, number, size):
    assert resolve_axis(shape, axis) == resolved
    assert num_groups(shape, axis) == number
    assert group_size(shape, axis) == size


@pytest.mark.parametrize("axis", [4, -5, "output", None, 1.0, True])
def test_an_axis_the_kernel_has_not_is_refused(axis):
    with pytest.raises(ValueError, match="argument `axis`"):
        resolve_axis(CONV, axis)


def test_auto_needs_two_axes():
    with pytest.raises(ValueError, match="argument `axis`"):
        resolve_axis((7,), "auto")


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        resolve_axis(DENSE, 2)
    assert str(caught.value) == (
        "Invalid value for argument `axis`. Expected an integer in [-2, 2) or "
        '"auto" for a kernel of shape (800, 500). Received: axis=2'
    )


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_norms_and_means_against_numpy(axis):
    w = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    np.testing.assert_allclose(
        to_numpy(group_norms(w, axis)), np.linalg.norm(rows, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(group_means(w, axis)), np.abs(rows).mean(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gradient_at_a_dead_group_is_zero(dtype):
    w = np.array([[3.0, 0.0, 1e-4], [4.0, 0.0, 0.0]])

    def total(w):
        return ops.sum(group_norms(w))

    tensor = ops.cast(ops.convert_to_tensor(w.astype("float32")), dtype)
    slope = gradient(total, tensor).astype("float32")
    expected = [[0.6, 0.0, 1.0], [0.8, 0.0, 0.0]]
    np.testing.assert_allclose(slope, expected, atol=4e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_neither_overflows_nor_vanishes(dtype):
    w = ops.cast(np.array([[3e4, 2e-4], [4e4, 0.0]], "float32"), dtype)
    norms = to_numpy(group_norms(w))
    np.testing.assert_allclose(norms, [5e4, 2e-4], rtol=1e-2)


def test_the_default_axis_is_the_last():
    w = np.arange(24, dtype="float32").reshape(2, 3, 4)
    assert (resolve_axis((2, 3, 4)), other_axes((2, 3, 4))) == (2, (0, 1))
    assert (num_groups((2, 3, 4)), group_size((2, 3, 4))) == (4, 6)
    rows = w.reshape(6, 4).T
    np.testing.assert_allclose(
        to_numpy(group_norms(w)), np.linalg.norm(rows, axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(to_numpy(group_means(w)), rows.mean(axis=1))
    np.testing.assert_array_equal(to_numpy(by_group(w)), rows)
    assert per_weight(np.arange(4), (2, 3, 4)).shape == (1, 1, 4)


@pytest.mark.parametrize(
    ("axis", "shape", "rows"),
    [
        (1, (1, 3, 1), [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]),
        (-3, (2, 1, 1), [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]),
        ("auto", (1, 1, 2), [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]),
    ],
)
def test_the_rows_of_groups_and_numbers_for_their_weights(axis, shape, rows):
    w = np.arange(12, dtype="float32").reshape(2, 3, 2)
    np.testing.assert_array_equal(to_numpy(by_group(w, axis)), rows)
    values = np.arange(len(rows))
    spread = to_numpy(per_weight(values, w.shape, axis))
    np.testing.assert_array_equal(spread, values.reshape(shape))


def test_auto_for_two_axes_takes_rows():
    w = np.array([[1, 2, 3], [4, 5, 6]], "float32")
    np.testing.assert_array_equal(to_numpy(by_group(w, "auto")), w)
    assert per_weight(np.arange(2), w.shape, "auto").shape == (2, 1)


@pytest.mark.parametrize("axis", [np.int64(-1), "auto", 3])
def test_an_axis_that_may_exist_is_returned(axis):
    assert validate_axis(axis) == axis
    assert type(validate_axis(axis)) in (int, str)


def test_what_names_no_axis_is_refused_without_a_kernel():
    with pytest.raises(ValueError) as caught:
        validate_axis("rows")
    assert str(caught.value) == (
        "Invalid value for argument `axis`. Expected an integer or "
        "\"auto\". Received: axis='rows'"
    )


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32")],
)
def test_low_precision_is_computed_in_float32(dtype, wide):
    x = ops.ones((2, 2), dtype)
    assert wide_dtype(x) == wide
    for result in (safe_norm(x), by_group(x), *sorted_sizes(x, -1)):
        assert keras.backend.standardize_dtype(result.dtype) == wide


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 by default")
def test_double_precision_is_kept():
    x = ops.ones((2, 2), "float64")
    assert wide_dtype(x) == "float64"
    for result in (safe_norm(x), by_group(x), *sorted_sizes(x, -1)):
        assert keras.backend.standardize_dtype(result.dtype) == "float64"
    result = signed(x, x < 0, x)
    assert keras.backend.standardize_dtype(result.dtype) == "float64"


def test_roots_are_exact_and_nan_stays_nan():
    x = np.array([0.0, 1e-30, 0.25, 9.0, np.nan], "float32")
    expected = [0.0, 1e-15, 0.5, 3.0, np.nan]
    np.testing.assert_allclose(to_numpy(safe_sqrt(x)), expected, rtol=1e-6)
    slope = gradient(lambda x: ops.sum(safe_sqrt(x)), x[:4])
    np.testing.assert_allclose(slope, [0, 5e14, 1, 1 / 6], rtol=1e-6)


def test_the_norm_of_all_and_of_some_axes():
    w = np.array([[3.0, 0.0], [4.0, 12.0]], "float32")
    assert float(safe_norm(w)) == 13
    np.testing.assert_allclose(to_numpy(safe_norm(w, 0)), [5, 12])


def test_sizes_are_sorted_within_groups():
    w = np.array([[1.0, -6.0], [-3.0, 0.0], [2.0, 5.0]], "float32")
    largest, count = sorted_sizes(w, -1)
    assert to_numpy(largest).tolist() == [[3, 2, 1], [6, 5, 0]]
    assert to_numpy(count).tolist() == [1, 2, 3]
    largest, count = sorted_sizes(w, 0)
    assert to_numpy(largest).tolist() == [[6, 1], [3, 0], [5, 2]]
    assert to_numpy(count).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sizes_get_the_sign_of_the_weights(dtype):
    w = ops.cast(np.array([-2.0, 3.0, 4.0, np.nan], "float32"), dtype)
    dead = np.array([False, False, True, False])
    size = ops.convert_to_tensor([0.5, 5.0, 7.0, float("nan")])
    result = signed(w, dead, size)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(to_numpy(result), [-0.5, 5, 0, np.nan])


def test_what_is_no_shape_or_no_kernel_is_refused():
    with pytest.raises(ValueError, match="argument `shape`"):
        num_groups((3, 0))

    class Shaped:
        shape = (2, 2)

    for kernel in ([[1.0]], Shaped()):
        for function in (by_group, group_norms, group_means):
            with pytest.raises(ValueError, match="argument `kernel`"):
                function(kernel)
