import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers

from keras_sgl0.compression.distillation import (
    Distilled,
    FeaturesDistilled,
)
from keras_sgl0.compression.features import Feature
from keras_sgl0.network.compilation import losses_of_outputs

RNG = np.random.default_rng(2)
T = 2.0


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(t, s):
    p, q = softmax(t / T), softmax(s / T)
    return T**2 * (p * np.log(p / q)).sum(-1).mean()


def sigmoid_divergence(t, s):
    return divergence(
        np.stack([t, np.zeros_like(t)], -1), np.stack([s, np.zeros_like(s)], -1)
    )


def net(units, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(units, activation=activation)]
    )


X = RNG.normal(size=(16, 5)).astype("float32")
CLASSES = RNG.integers(0, 3, 16)
K = keras.losses


@pytest.mark.parametrize(
    ("loss", "activation", "y", "expected"),
    [
        (
            K.SparseCategoricalCrossentropy(from_logits=True),
            None,
            CLASSES,
            divergence,
        ),
        ("sparse_categorical_crossentropy", "softmax", CLASSES, divergence),
        (K.sparse_categorical_crossentropy, "softmax", CLASSES, divergence),
        (
            K.CategoricalCrossentropy(from_logits=True),
            None,
            np.eye(3)[CLASSES],
            divergence,
        ),
        (
            K.BinaryCrossentropy(from_logits=True),
            None,
            np.eye(3)[CLASSES],
            sigmoid_divergence,
        ),
        (
            "binary_crossentropy",
            "sigmoid",
            np.eye(3)[CLASSES],
            sigmoid_divergence,
        ),
        (
            "mse",
            None,
            np.eye(3)[CLASSES],
            lambda t, s: np.square(t - s).mean(),
        ),
        (
            K.Huber(),
            None,
            np.eye(3)[CLASSES],
            lambda t, s: np.square(t - s).mean(),
        ),
    ],
)
def test_the_loss_is_the_formula(loss, activation, y, expected):
    teacher, student = net(3, activation), net(3, activation, seed=1)
    model = Distilled(student, teacher, [loss], weight=0.3, temperature=T)
    model.compile("sgd", loss)
    # What a softmax or sigmoid of these would give is what both give.
    logits = [to_numpy(X @ w + b) for w, b in map(weights, (teacher, student))]
    y_pred = student(X)
    own = to_numpy(model.compute_loss(X, y, y_pred, training=False))
    both = to_numpy(model.compute_loss(X, y, y_pred, training=True))
    wanted = 0.7 * own + 0.3 * expected(*logits)
    assert float(both) == pytest.approx(float(wanted), rel=1e-4)


def test_the_error_of_features_is_the_formula():
    def deep(width, seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((5,))
        h = layers.Dense(width, activation="relu")(x)
        return h, keras.Model(x, layers.Dense(3)(h))

    (t, teacher), (s, student) = deep(6, 0), deep(2, 1)
    channels = np.array([4, 1])
    model = FeaturesDistilled(
        student,
        teacher,
        ["mse"],
        weight=0.3,
        features=[Feature(s, t, 1, channels)],
    )
    model.compile("sgd", "mse")
    y = np.eye(3)[CLASSES]
    y_pred = model(X)
    own = to_numpy(model.compute_loss(X, y, y_pred, training=False))
    both = to_numpy(model.compute_loss(X, y, y_pred, training=True))
    t, s = (
        to_numpy(keras.Model(m.inputs, h)(X))
        for m, h in ((teacher, t), (student, s))
    )
    t = t[:, channels]
    distance = np.square(to_numpy(teacher(X)) - to_numpy(y_pred)).mean()
    distance += np.square(t - s).sum() / np.square(t).sum()
    assert float(both) == pytest.approx(0.7 * own + 0.3 * distance, rel=1e-4)
    before = weights(teacher)
    model.fit(X, y, epochs=2, verbose=0)
    for a, b in zip(before, weights(teacher), strict=True):
        np.testing.assert_array_equal(a, b)


def weights(model):
    return [to_numpy(w) for w in model.weights]


def test_training_changes_the_student_alone():
    teacher, student = net(3), net(3, seed=1)
    before = weights(teacher)
    loss = K.SparseCategoricalCrossentropy(from_logits=True)
    model = Distilled(student, teacher, [loss])
    model.compile(keras.optimizers.SGD(0.1), loss)
    start = weights(student)
    model.fit(X, CLASSES, verbose=0)
    for a, b in zip(before, weights(teacher), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (start[0] != weights(student)[0]).any()
    assert len(model.weights) == len(student.weights)
    assert teacher.trainable


def test_a_student_that_is_only_distilled_becomes_the_teacher():
    teacher, student = net(3), net(3, seed=1)
    loss = K.SparseCategoricalCrossentropy(from_logits=True)
    model = Distilled(student, teacher, [loss], weight=0.999)
    model.compile(keras.optimizers.Adam(0.1), loss)
    x = RNG.normal(size=(200, 5)).astype("float32")
    model.fit(x, RNG.integers(0, 3, 200), epochs=30, verbose=0)
    probabilities = [softmax(to_numpy(m(x))) for m in (teacher, student)]
    np.testing.assert_allclose(*probabilities, atol=0.05)


def test_penalties_and_weights_of_examples_stay_in_the_loss():
    teacher, student = net(3), net(3, seed=1)
    student.layers[0].kernel.regularizer = keras.regularizers.L2(0.5)
    model = Distilled(student, teacher, ["mse"], weight=0.5)
    model.compile("sgd", "mse")
    y, w = np.eye(3)[CLASSES], np.linspace(0, 1, 16)
    y_pred = to_numpy(student(X))
    own = (np.square(y_pred - y).mean(1) * w).mean()
    own += 0.5 * np.square(weights(student)[0]).sum()
    distance = np.square(to_numpy(teacher(X)) - y_pred).mean()
    loss = model.compute_loss(X, y, student(X), sample_weight=w)
    expected = 0.5 * own + 0.5 * distance
    assert float(to_numpy(loss)) == pytest.approx(expected, rel=1e-4)


def test_losses_of_several_outputs_in_order():
    inputs = keras.Input((5,))
    a, b = (layers.Dense(2, name=name)(inputs) for name in "ab")
    for outputs, loss in (
        ([a, b], ["mse", "mae"]),
        ([a, b], {"b": "mae", "a": "mse"}),
        ({"a": a, "b": b}, {"b": "mae", "a": "mse"}),
    ):
        model = keras.Model(inputs, outputs)
        model.compile("sgd", loss)
        assert losses_of_outputs(model) == ["mse", "mae"]
    model = keras.Model(inputs, [a, b])
    model.compile("sgd", "mse")
    assert losses_of_outputs(model) == ["mse", "mse"]
