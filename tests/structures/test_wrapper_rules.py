"""The rules of layers that call one other layer, which are its rules."""

import keras
import numpy as np
import pytest
from custom_blocks import Residual
from helpers import QUICK, cut_half, scramble, to_numpy
from keras import layers, ops

import keras_sgl0 as ks


class Halves(layers.Layer):
    """A layer whose calls cannot be followed."""

    def call(self, x):
        self.seen = x
        return x / 2

    def compute_output_shape(self, shape):
        return shape


def film(*layers_of_steps, shape=(3, 6, 6, 2)):
    """Returns a model that calls layers at each step, then an LSTM."""
    x = inputs = keras.Input(shape)
    for layer in layers_of_steps:
        x = layers.TimeDistributed(layer)(x)
    if len(x.shape) > 3:
        x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.LSTM(4, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([layers.Dense(6, "relu"), layers.Dense(4)], (3, 5)),
        ([layers.Conv2D(6, 3, activation="relu")], (3, 6, 6, 2)),
        (
            [
                layers.Conv2D(6, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(2),
                layers.SeparableConv2D(4, 2),
                layers.GlobalAveragePooling2D(),
            ],
            (3, 6, 6, 2),
        ),
        (
            [
                layers.DepthwiseConv2D(2, depth_multiplier=2),
                layers.Conv2D(4, 1),
            ],
            (3, 6, 6, 2),
        ),
        ([layers.Dense(5), layers.GRU(4)], (3, 4, 2)),
        (
            [layers.Dense(5), layers.Bidirectional(layers.GRU(4))],
            (3, 4, 2),
        ),
    ],
)
def test_half_of_what_is_made_at_each_step_is_cut(steps, shape):
    model = film(*steps, shape=shape)
    cut_half(model)


def test_the_layer_inside_is_smaller():
    layer = layers.TimeDistributed(layers.Conv2D(6, 3), name="each")
    x = inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.GlobalMaxPooling2D())(layer(x))
    model = keras.Model(inputs, layers.LSTM(2)(x))
    small, _ = cut_half(model)
    assert small.get_layer("each").layer.filters == 3
    found = ks.structures(model)
    assert found.made_by(0) == ("each",)
    scramble(model, dead=0)
    deleted, _ = ks.delete_channels(model, {"each": [0, 4]})
    assert deleted.get_layer("each").layer.filters == 4


def test_a_constant_of_each_step_is_folded():
    first = layers.TimeDistributed(layers.Dense(6, "sigmoid"), name="first")
    x = inputs = keras.Input((3, 5))
    x = layers.TimeDistributed(layers.Dense(4, use_bias=False))(first(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    scramble(model, dead=0)
    kernel = first.layer.kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * [1, 0, 1, 0, 1, 1])
    small, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-5
    assert small.get_layer("first").layer.units == 4


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Halves(), "its call sets `seen`"),
        (layers.Softmax(), "depends on others"),
        (layers.Conv1D(4, 1, groups=2), ""),
    ],
)
def test_what_the_layer_does_not_allow_stays_whole(layer, reason):
    shape = (3, 4, 5) if isinstance(layer, layers.Conv1D) else (3, 5)
    x = inputs = keras.Input(shape)
    x = layers.Dense(4 if len(shape) == 3 else 5, name="first")(x)
    x = layers.TimeDistributed(layer)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    _, report = ks.shrink(scramble(model), 0)
    assert report.relative_difference < 1e-5
    assert not reason or any(reason in e.note for e in report.whole)


def test_channels_that_are_the_steps_stay():
    x = inputs = keras.Input((4, 5))
    x = layers.Permute((2, 1))(layers.Dense(6, name="first")(x))
    x = layers.TimeDistributed(layers.Dense(3))(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert "its channels are its steps" in str(ks.structures(model))


class Alone(layers.Layer):
    """A block that says what its outputs are, as `TimeDistributed` asks."""

    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(6, 1, activation="relu")
        self.second = layers.Conv2D(5, 1)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 6))

    def call(self, x):
        return self.second(self.first(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 5)


def picture_model():
    x = inputs = keras.Input((6, 6, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization(name="norm")(x)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(ops.relu(y))
    x = layers.Add()([x, y])
    x = ops.mean(layers.Concatenate(axis=3)([x, y]), axis=(1, 2))
    return keras.Model(inputs, x, name="pictures")


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(6, name="dense"),
        ]
    )


@pytest.mark.parametrize(
    "make",
    [
        picture_model,
        sequential,
        lambda: layers.TimeDistributed(
            keras.Sequential([layers.Dense(5), layers.Dense(3)])
        ),
        lambda: keras.Sequential([layers.Conv2D(4, 1), Residual(4)]),
        Alone,
    ],
    ids=["functional", "sequential", "twice", "block_in_it", "block"],
)
def test_a_model_at_each_step_is_cut_inside(make):
    x = inputs = keras.Input((4, 6, 6, 3))
    x = layers.TimeDistributed(make(), name="each")(inputs=x)
    x = layers.Reshape((4, -1))(x)
    x = layers.LSTM(6, name="lstm")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    found = ks.structures(model)
    assert any(family.startswith("each/") for family in made_by(found))
    assert [f.layer for f in found.report().fixed] == ["head"]
    cut_half(model)


def made_by(found):
    return {name for i in range(len(found)) for name in found.made_by(i)}


def test_each_step_counts():
    inputs = keras.Input((4, 6, 6, 3))
    x = layers.TimeDistributed(sequential(), name="each")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    of_one = ks.count_macs(sequential()).macs
    assert ks.count_macs(model).macs == 4 * of_one + 4 * 6 * 2


def test_a_video_network_is_compressed_and_trained():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 6, 6, 3))
    x = layers.TimeDistributed(picture_model(), name="each")(x)
    x = layers.GRU(8, name="gru")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **QUICK,
    )
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (64, 4, 6, 6, 3)).astype("float32")
    y = (x[:, 0].mean((1, 2, 3)) > x[:, -1].mean((1, 2, 3))).astype("int32")
    small, report = ks.compress(
        model, (x, y), (x[:16], y[:16]), macs=0.5, epochs=1, verbose=0
    )
    assert report.macs_after <= 0.5 * report.macs
    assert small.output_shape == model.output_shape
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda x: layers.TimeDistributed(sequential())(layers.Masking()(x)),
            "it has a mask",
        ),
        (
            lambda x: layers.TimeDistributed(sequential(), dtype="float64")(x),
            "the layer in it has another dtype",
        ),
    ],
    ids=["mask", "dtype"],
)
def test_a_model_at_each_step_that_stays_whole_says_why(make, reason):
    x = inputs = keras.Input((4, 6, 6, 3))
    x = layers.Conv3D(3, 1, name="first")(x)
    x = ops.cast(make(x), "float32")
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert reason in str(ks.structures(model))


def test_unknown_steps_keep_a_model_at_each_step_whole():
    x = inputs = keras.Input((None, 6, 6, 3))
    x = layers.TimeDistributed(sequential())(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4)(x)))
    assert "sizes of its inputs are not known" in str(ks.structures(model))


def spectral(layer, name=None):
    return layers.SpectralNormalization(layer, 2, name=name)


def discriminator():
    x = inputs = keras.Input((8, 8, 3))
    x = spectral(layers.Conv2D(6, 3, 2, padding="same"), "one")(x)
    x = layers.LeakyReLU()(x)
    x = spectral(layers.Conv2DTranspose(4, 2, 2, use_bias=False), "two")(x)
    x = layers.Flatten()(layers.LeakyReLU()(x))
    return keras.Model(inputs, spectral(layers.Dense(1), "three")(x))


def test_spectral_normalization_is_cut_with_its_vector():
    model = discriminator()
    small, dead = cut_half(model)
    assert dead.sum() == 5
    one, two, three = (small.get_layer(n) for n in ("one", "two", "three"))
    assert type(one) is layers.SpectralNormalization
    assert (one.power_iterations, one.layer.filters) == (2, 3)
    # A transposed convolution has its inputs on the last axis of its kernel.
    shapes = [tuple(layer.vector_u.shape) for layer in (one, two, three)]
    assert shapes == [(1, 3), (1, 3), (1, 1)]
    kept = ~dead[:6]
    assert to_numpy(one.vector_u) == pytest.approx(
        to_numpy(model.get_layer("one").vector_u)[:, kept]
    )


def test_a_smaller_kernel_is_normalized_as_before():
    model = discriminator()
    _, dead = cut_half(model)
    small, _ = ks.shrink(model, 0)
    images = np.zeros((2, 8, 8, 3), "float32")
    kernels = []
    for each in (model, small):
        for _ in range(30):
            each(ops.convert_to_tensor(images), training=True)
        kernels.append(to_numpy(each.get_layer("one").layer.kernel))
    largest = np.linalg.norm(kernels[1].reshape(-1, 3), 2)
    assert largest == pytest.approx(1, abs=1e-3)
    assert kernels[1] == pytest.approx(kernels[0][..., ~dead[:6]], abs=1e-5)


def test_spectral_normalization_trains_under_a_penalty():
    model = discriminator()
    model.compile("sgd", "mse", **QUICK)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 3)).astype("float32")
    y = rng.normal(size=(32, 1)).astype("float32")
    target = ks.TargetDensity(0.5, of="macs")
    model.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[
            ks.CoupledGroups(ks.GroupLasso(1e-2)),
            ks.ProximalStep(),
            target,
        ],
    )
    small, report = ks.shrink(model)
    assert report.macs_after <= 0.5 * report.macs
    small.compile("sgd", "mse", **QUICK)
    small.fit(x, y, verbose=0)


def test_einsum_channels_over_several_axes_stay_in_spectral_normalization():
    x = inputs = keras.Input((5, 6))
    einsum = layers.EinsumDense("abc,cde->abde", (None, 2, 3))
    model = keras.Model(inputs, ops.mean(spectral(einsum)(x), axis=1))
    assert "run over several axes" in str(ks.structures(model))
