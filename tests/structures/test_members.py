"""The members of structures: what is read from variables and written back."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.structures.members import Members, Part

# Channels 3 and 0 of family 0 are structures 1 and 0, 1 and 4 are of family 1
# with two slices of one structure; channel 2 is in none of 3 structures.
PLACES = {0: np.array([[3], [0]]), 1: np.array([[1, 4]])}
OWNERS = np.array([1, 2, 3, 0, 2])


def part(axis):
    shape = (2, 5) if axis == 1 else (5, 2)
    return Part(keras.Variable(np.zeros(shape)), axis, OWNERS, PLACES)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_of_a_variable(axis):
    own = part(axis)
    w = np.arange(10.0, dtype="float32").reshape(2, 5)
    w = w if axis == 1 else w.T
    factors = ops.convert_to_tensor([10.0, 20.0, 30.0, 1.0])
    column = np.array([20, 30, 1, 10, 30])
    shaped = column if axis == 1 else column[:, None]
    scaled = to_numpy(own.scaled(ops.convert_to_tensor(w), factors))
    np.testing.assert_array_equal(scaled, w * shaped)
    spread = own.spread(factors, w.shape)
    assert spread.shape == ((1, 5) if axis == 1 else (5, 1))
    squares = to_numpy(own.squares(ops.convert_to_tensor(w), "float32"))
    np.testing.assert_array_equal(squares, (w**2).sum(1 - axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_there_and_back(axis):
    own = part(axis)
    w = np.arange(10.0, dtype="float32").reshape(2, 5)
    tensor = ops.convert_to_tensor(w if axis == 1 else w.T)
    rows = {family: own.rows(tensor, family) for family in PLACES}
    assert to_numpy(rows[0]).tolist() == [[3, 8], [0, 5]]
    assert to_numpy(rows[1]).tolist() == [[1, 6, 4, 9]]
    back = to_numpy(own.with_rows(tensor, rows))
    np.testing.assert_array_equal(back, to_numpy(tensor))
    new = {0: -rows[0], 1: 2 * rows[1]}
    expected = w * [-1, 2, 1, -1, 2]
    back = to_numpy(own.with_rows(tensor, new))
    np.testing.assert_array_equal(back, expected if axis == 1 else expected.T)
    only = to_numpy(own.with_rows(tensor, {0: -rows[0]}))
    expected = w * [-1, 1, 1, -1, 1]
    np.testing.assert_array_equal(only, expected if axis == 1 else expected.T)


def chain(**options):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((3,))
    x = layers.Dense(4, name="a", **options)(x)
    x = layers.BatchNormalization(name="norm", scale=False)(x)
    x = layers.Dense(5, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def weights(model, *names):
    found = []
    for name in names:
        layer, attribute = name.split(".")
        found.append(to_numpy(getattr(model.get_layer(layer), attribute)))
    return found


def norm(*slices):
    return sum((s.reshape(-1, s.shape[-1]) ** 2).sum(0) for s in slices) ** 0.5


def test_norms_and_sizes():
    model = chain()
    members = Members(ks.structures(model))
    a, a_bias, beta = weights(model, "a.kernel", "a.bias", "norm.beta")
    b, b_bias, head = weights(model, "b.kernel", "b.bias", "head.kernel")
    expected = np.concatenate([norm(a, a_bias, beta), norm(b, b_bias)])
    np.testing.assert_allclose(to_numpy(members.norms()), expected, rtol=1e-5)
    assert members.sizes().tolist() == [3 + 1 + 1] * 4 + [4 + 1] * 5
    doubled = members.norms(lambda variable: 2 * variable)
    np.testing.assert_allclose(to_numpy(doubled), 2 * expected, rtol=1e-5)
    readers = Members(ks.structures(model), readers=True)
    expected = np.concatenate(
        [norm(a, a_bias, beta, b.T), norm(b, b_bias, head.T)]
    )
    np.testing.assert_allclose(to_numpy(readers.norms()), expected, rtol=1e-5)
    assert readers.sizes().tolist() == [3 + 1 + 1 + 5] * 4 + [4 + 1 + 2] * 5
    assert members.dtype == "float32"


def test_matrices_and_owners():
    model = chain()
    members = Members(ks.structures(model))
    a, a_bias, beta = weights(model, "a.kernel", "a.bias", "norm.beta")
    b, b_bias = weights(model, "b.kernel", "b.bias")
    found = {
        family: np.hstack([to_numpy(rows) for rows in parts])
        for family, parts in members.matrices().items()
    }
    first = np.hstack([a.T, a_bias[:, None], beta[:, None]])
    np.testing.assert_allclose(found[0], first, rtol=1e-6)
    np.testing.assert_allclose(found[1], np.hstack([b.T, b_bias[:, None]]))
    assert members.owners(0).tolist() == [0, 1, 2, 3]
    assert members.owners(1).tolist() == [4, 5, 6, 7, 8]
    assert [len(members.parts_of(family)) for family in (0, 1)] == [3, 2]
    assert len(members.variables) == 5
    (own,) = members.of(model.get_layer("b").bias)
    assert own.owners.tolist() == [4, 5, 6, 7, 8]
    assert members.of(model.get_layer("head").bias) == []


def test_which_structures_have_members_in_some_variables():
    model = chain()
    members = Members(ks.structures(model))
    b = model.get_layer("b")
    assert members.among([]).tolist() == [False] * 9
    assert members.among([b.bias]).tolist() == [False] * 4 + [True] * 5
    a = model.get_layer("a")
    assert members.among([a.kernel]).tolist() == [True] * 4 + [False] * 5
    head = model.get_layer("head")
    assert members.among([head.kernel]).tolist() == [False] * 9


def test_what_is_dead_becomes_zero_with_its_mean():
    model = chain()
    members = Members(ks.structures(model))
    dead = np.isin(np.arange(9), [1, 6])
    before = {v.path: to_numpy(v).copy() for v in model.weights}
    members.zero(dead)
    changed = {
        "a/kernel": dead[:4],
        "a/bias": dead[:4],
        "norm/beta": dead[:4],
        "norm/moving_mean": dead[:4],
        "b/kernel": dead[4:],
        "b/bias": dead[4:],
    }
    for variable in model.weights:
        expected = before[variable.path]
        zero = changed.get(variable.path)
        if zero is not None:
            expected = np.where(zero, 0, expected)
        np.testing.assert_array_equal(to_numpy(variable), expected)


@pytest.mark.parametrize("readers", [False, True])
def test_a_frozen_member_leaves_the_readers(readers):
    model = chain()
    model.get_layer("b").trainable = False
    members = Members(ks.structures(model), readers)
    removable = [True] * 4 + [readers] * 5
    assert members.removable.tolist() == removable
    assert (to_numpy(members.norms()) > 0).tolist() == removable
    assert members.sizes().tolist() == [5] * 4 + [2 * readers] * 5
    before = {v.path: to_numpy(v).copy() for v in model.weights}
    members.zero(np.arange(9) > 3)
    for variable in model.weights:
        goes = readers and variable.path == "head/kernel"
        expected = before[variable.path] * (not goes)
        np.testing.assert_array_equal(to_numpy(variable), expected)


def test_no_members_have_norms_of_zero():
    model = chain()
    model.trainable = False
    members = Members(ks.structures(model))
    assert to_numpy(members.norms()).tolist() == [0] * 9
    assert members.sizes().tolist() == [0] * 9
    assert members.variables == ()


def test_double_precision_is_computed_in_it():
    members = Members(ks.structures(chain(dtype="float64")))
    assert members.dtype == "float64"


def test_slices_of_what_is_in_no_structure_stay():
    x = inputs = keras.Input((3,))
    x = layers.Concatenate()([layers.Dense(2, name="a")(x), inputs])
    x = layers.BatchNormalization(name="norm", scale=False)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    norm = model.get_layer("norm")
    norm.beta.assign(np.ones(5))
    members = Members(ks.structures(model))
    assert members.sizes().tolist() == [3 + 1 + 1] * 2
    (own,) = members.of(norm.beta)
    assert own.owners.tolist() == [0, 1, 2, 2, 2]
    members.zero(np.array([True, False]))
    assert to_numpy(norm.beta).tolist() == [0, 1, 1, 1, 1]
    assert to_numpy(members.norms())[0] == 0
