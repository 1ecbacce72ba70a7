import numpy as np
import pytest
from helpers import gradient, to_numpy
from keras import ops

from keras_sgl0.groups import (
    group_means,
    group_norms,
    group_size,
    num_groups,
    resolve_axis,
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
