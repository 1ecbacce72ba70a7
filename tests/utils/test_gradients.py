"""Gradients in closed form against those that the backend derives."""

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from keras import ops

from keras_sgl0.groups import sum_of_squares
from keras_sgl0.utils.gradients import with_gradient


def test_the_formula_is_the_gradient_and_upstream_multiplies_it():
    def double(x):
        return ops.sum(x), lambda upstream: upstream * ops.full_like(x, 7.0)

    x = ops.convert_to_tensor([1.0, 2.0])
    assert float(with_gradient(double, x)) == 3
    slope = gradient(lambda x: 5 * with_gradient(double, x), x)
    np.testing.assert_array_equal(slope, [35, 35])


@pytest.mark.parametrize("axis", [None, 0, (0, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_squares_have_the_derived_gradient(axis, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 by default.")
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(dtype)
    x = ops.convert_to_tensor(x)

    def ours(x):
        return ops.sum(ops.sqrt(sum_of_squares(x, axis)))

    def derived(x):
        return ops.sum(ops.sqrt(ops.sum(ops.square(x), axis)))

    value = to_numpy(ours(x))
    assert value.dtype == dtype
    np.testing.assert_array_equal(value, to_numpy(derived(x)))
    rtol = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(
        gradient(ours, x), gradient(derived, x), rtol=rtol
    )
