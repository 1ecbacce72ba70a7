import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy, two_layers
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.factor_max import factor_max
from keras_sgl0.groups import group_norms

LEARNING_RATE = 0.05


@pytest.fixture
def regression():
    """Returns `x` (50, 3, 4), four groups of three features, and `y`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3, 4)).astype("float32")
    weights = np.zeros((3, 4, 1))
    weights[:, 2] = 1
    noise = 0.1 * rng.normal(size=(50, 1))
    return x, (np.tensordot(x, weights, 2) + noise).astype("float32")


def linear_in_groups(seed=0):
    """Returns a linear model whose kernel (3, 4, 1) has a group a channel."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((3, 4)),
        keras.layers.Conv1D(
            1, 3, use_bias=False, kernel_regularizer=ks.GroupLasso(7.0, axis=1)
        ),
        keras.layers.Flatten(),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), "mse", **QUICK)
    return model


def linear(outputs, axis):
    keras.utils.set_random_seed(0)
    penalty = ks.GroupLasso(7.0, axis)
    dense = keras.layers.Dense(
        outputs, use_bias=False, kernel_regularizer=penalty
    )
    model = keras.Sequential([keras.Input((12,)), dense])
    model.compile("sgd", "mse", **QUICK)
    return model


def gradient(x, y, w):
    """Returns that of the mean squared error, shaped like `w`."""
    flat = x.reshape(len(x), -1).astype("float64")
    residual = flat @ w.reshape(flat.shape[1], -1) - y
    return (2 * flat.T @ residual / y.size).reshape(w.shape)


def optimum(x, y, factor, steps=20_000):
    """Returns the group lasso solution, by proximal gradient descent."""
    w, rate = np.ones((3, 4, 1)), 0.1
    for _ in range(steps):
        w = w - rate * gradient(x, y, w)
        norms = np.linalg.norm(w, axis=(0, 2), keepdims=True)
        w = w * np.maximum(1 - rate * factor * 3**0.5 / norms.clip(1e-30), 0)
    return w


@pytest.mark.parametrize(("outputs", "axis"), [(1, 0), (1, 1), (4, 0), (4, 1)])
def test_closed_form_of_a_linear_model(outputs, axis):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 12)).astype("float32")
    y = rng.normal(size=(50, outputs)).astype("float32")
    norms = np.linalg.norm(2 * x.T @ y / y.size, axis=1 - axis)
    expected = norms.max() / (12 * outputs / len(norms)) ** 0.5
    found = factor_max(linear(outputs, axis), (x, y))
    assert found == pytest.approx(expected, rel=1e-5)


def test_closed_form_for_groups_of_features(regression):
    at_zero = gradient(*regression, np.zeros((3, 4, 1)))
    expected = np.linalg.norm(at_zero, axis=(0, 2)).max() / 3**0.5
    found = factor_max(linear_in_groups(), regression)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_optimum_is_zero_above_it_and_not_below(regression):
    top = factor_max(linear_in_groups(), regression)
    assert not optimum(*regression, 1.001 * top).any()
    w = optimum(*regression, 0.9 * top)
    assert list(np.abs(w).sum((0, 2)) > 0) == [False, False, True, False]
    # The conditions of the optimum: equality alive, a bound where dead.
    pull = 0.9 * top * 3**0.5
    slope = gradient(*regression, w)
    unit = w[:, 2] / np.linalg.norm(w[:, 2])
    np.testing.assert_allclose(slope[:, 2], -pull * unit, atol=1e-7)
    assert (np.linalg.norm(slope, axis=(0, 2)) <= pull + 1e-7).all()


@pytest.mark.parametrize(("share", "stays"), [(1.001, True), (0.999, False)])
def test_training_from_zero(regression, share, stays):
    model = linear_in_groups()
    level = LEARNING_RATE * share * factor_max(model, regression) * 3**0.5
    (kernel,) = model.trainable_variables
    kernel.assign(np.zeros(kernel.shape))

    def prox(w):
        w = ops.convert_to_tensor(w)
        norms = ops.maximum(group_norms(w, 1), 1e-30)
        return w * ops.maximum(1 - level / norms, 0)[None, :, None]

    kernel.regularizer, kernel.constraint = None, prox
    model.fit(*regression, batch_size=50, epochs=5, verbose=0)
    assert to_numpy(kernel).any() != stays


def test_the_start_of_a_linear_model_is_nothing_to_it(regression):
    models = [linear_in_groups(seed) for seed in range(3)]
    models[2].set_weights([np.zeros((3, 4, 1))])
    first, *others = (factor_max(model, regression) for model in models)
    assert others == pytest.approx([first, first], rel=1e-5)


def test_a_rectified_layer_is_judged_by_the_signs_it_has(images):
    """Its own gradient at zero is 0, and would say that any factor will do."""
    x, labels = images
    model = two_layers(ks.GroupLasso(1.0))
    first, bias, second, _ = model.get_weights()
    assert not bias.any()
    # A dead layer makes all logits 0, and softmax of them 1/3.
    error = (1 / 3 - np.eye(3)[labels]) / len(x)
    alive = x @ first > 0
    of_first = x.T @ (error @ second.T * alive)
    of_second = np.maximum(x @ first, 0).T @ error
    hidden = np.linalg.norm(of_first, axis=0).max() / 12**0.5
    last = np.linalg.norm(of_second, axis=0).max() / 16**0.5
    found = factor_max(model, images)
    assert found == pytest.approx(max(hidden, last), rel=1e-4)
    model.layers[1].kernel.regularizer = None
    assert factor_max(model, images) == pytest.approx(hidden, rel=1e-4)


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 7

    def __getitem__(self, i):
        return tuple(a[10 * i : 10 * i + 10] for a in self.arrays)


def test_every_kind_of_data(images):
    model = two_layers(ks.GroupLasso(1.0))
    expected = factor_max(model, images)
    batches = Batches(*images)
    ones = np.ones(len(images[0]), "float32")
    for data in (
        batches,
        [batches[i] for i in range(7)],
        (batches[i] for i in range(7)),
        (images[0].astype("float64"), images[1], None),
        (*images, ones),
    ):
        assert factor_max(model, data) == pytest.approx(expected, rel=1e-5)
    in_parts = factor_max(model, images, batch_size=9)
    assert in_parts == pytest.approx(expected, rel=1e-5)
    doubled = factor_max(model, (*images, 2 * ones))
    assert doubled == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.tensorflow
def test_a_tf_data_set(images):
    import tensorflow as tf

    model = two_layers(ks.GroupLasso(1.0), run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices(images).batch(10)
    expected = factor_max(model, images)
    assert factor_max(model, data) == pytest.approx(expected, rel=1e-5)


def test_several_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((4,), name=name) for name in "ab"}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    penalty = ks.GroupLasso(1.0)
    outputs = {
        name: keras.layers.Dense(2, name=name, kernel_regularizer=penalty)(
            joined
        )
        for name in "cd"
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd", {"c": "mse", "d": "mse"}, loss_weights={"c": 1.0, "d": 3.0}
    )
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(20, 4)) for name in "ab"}
    y = rng.normal(size=(20, 2))
    both = np.concatenate([x["a"], x["b"]], axis=1)
    slope = 3 * np.linalg.norm(2 * both.T @ y / y.size, axis=0).max()
    found = factor_max(model, (x, {"c": y, "d": y}))
    assert found == pytest.approx(slope / 8**0.5, rel=1e-4)


def test_other_penalties_are_not_in_the_loss(regression):
    expected = factor_max(linear_in_groups(), regression)
    model = linear_in_groups()
    penalty = ks.SparseGroup(ks.GroupLasso(3.0, axis=1), ks.L1(5.0))
    model.layers[0].kernel.regularizer = penalty
    assert factor_max(model, regression) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(images, fails):
    keras.utils.set_random_seed(0)
    penalty, other = ks.SGL0(1.0), keras.regularizers.L2(0.1)
    layers = [
        keras.Input((12,)),
        keras.layers.Dense(5, kernel_regularizer=penalty),
        keras.layers.BatchNormalization(gamma_regularizer=other),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", **QUICK)
    before = model.get_weights()
    x, y = images[0], np.ones((64, 3))
    if fails:
        with pytest.raises(Exception, match=r".+"):
            factor_max(model, (x, np.ones((64, 7, 2))))
    else:
        assert factor_max(model, (x, y)) == factor_max(model, (x, y))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.layers[0].kernel.regularizer is penalty
    assert model.layers[1].gamma.regularizer is other
    assert float(model.evaluate(x, y, verbose=0)) > 60


def test_refusals(images):
    model = two_layers(ks.GroupLasso(1.0))
    with pytest.raises(ValueError, match="`batch_size`"):
        factor_max(model, images, batch_size=0)
    with pytest.raises(ValueError, match=r"tuple \(x, y\) of arrays"):
        factor_max(model, images[0])
    with pytest.raises(ValueError, match="at least one batch"):
        factor_max(model, [])
    with pytest.raises(ValueError, match="not finite"):
        factor_max(model, (images[0] * np.inf, images[1]))
    with pytest.raises(ValueError, match="with a group penalty"):
        factor_max(two_layers(ks.L1(1.0)), images)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="built and compiled"):
        factor_max(model, images)


def test_float16(images):
    expected = factor_max(two_layers(ks.GroupLasso(1.0)), images)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = two_layers(ks.GroupLasso(1.0))
        assert factor_max(model, images) == pytest.approx(expected, rel=0.02)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_list_of_arrays_is_no_batches():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    ks.regularize(model, ks.GroupLasso(1.0, "auto"))
    with pytest.raises(ValueError, match=r"`data`. Expected a tuple \(x, y\)"):
        ks.factor_max(model, [np.ones((4, 3)), np.ones((4, 2))])
