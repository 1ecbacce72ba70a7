"""Which calls a rule covers, and what it makes of constants."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs, scale_all, scramble, to_numpy
from keras import layers, ops
from test_moving_rules import rule_of

import keras_sgl0 as ks
from keras_sgl0.network.graph import Tensor
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.activations import evaluate, finite, is_elementwise
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.slices import Slices, side_of, sides


class Documented(layers.Dense):
    """A dense layer with what any subclass may have of its own."""

    def __init__(self, units, note="", **options):
        super().__init__(units, **options)
        self.note = note

    def get_config(self):
        return super().get_config() | {"note": self.note}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Undocumented(layers.Dense):
    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("kind", [Documented, Undocumented])
def test_a_subclass_with_a_config_of_its_own_is_still_that_layer(kind):
    x = inputs = keras.Input((6,))
    x = kind(8, activation="relu", name="first")(x)
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)))
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.get_layer("first").units < 8


def images(layer, dead_bias=None):
    """Returns how many filters are left before a layer, and the report.

    With `dead_bias`, two of eight filters are that constant, and no other.
    """
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same", name="first")(x)
    x = layer(x)
    pooling = layers.GlobalAveragePooling2D
    if len(x.shape) == 3:
        pooling = layers.GlobalAveragePooling1D
    x = pooling()(x)
    dead = 0.5 if dead_bias is None else 0.0
    model = scramble(keras.Model(inputs, layers.Dense(3)(x)), dead)
    if dead_bias is not None:
        first = model.get_layer("first")
        alive = np.arange(8) % 4 != 1
        first.kernel.assign(to_numpy(first.kernel) * alive)
        first.bias.assign(np.where(alive, to_numpy(first.bias), dead_bias))
        scale_all(model)
    small, report = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    return small.get_layer("first").filters, report


@pytest.mark.parametrize(
    ("noise_shape", "stays"),
    [((None, 1, 1, 8), True), ((None, 4, 4, 1), False), (None, False)],
)
def test_a_noise_shape_that_names_the_channels_keeps_them(noise_shape, stays):
    left, report = images(layers.Dropout(0.5, noise_shape=noise_shape))
    assert (left == 8) is stays
    notes = " ".join(whole.note for whole in report.whole)
    assert ("is in its `noise_shape`" in notes) is stays


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(8, 6)))
    return layer


@pytest.mark.parametrize("twice", [adapted, ks.HardConcrete])
def test_what_is_not_sliced_stays_whole_when_called_twice(twice):
    x = inputs = keras.Input((6,))
    twice = twice()
    x = twice(layers.Dense(6)(twice(x)))
    found = ks.structures(keras.Model(inputs, layers.Dense(3)(x)))
    assert "it is called more than once" in found.fixed[0].reason


def test_what_is_elementwise():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return ops.softmax(x)

    assert is_elementwise(keras.activations.relu)
    assert is_elementwise(ops.tanh)
    assert not is_elementwise(keras.activations.softmax)
    assert is_elementwise(Unhashable()) is False


def test_a_function_of_constants():
    nan = np.nan
    found = evaluate(lambda x: 1 / x, np.array([2.0, nan, 0.0, 4.0]))
    np.testing.assert_array_equal(found, [0.5, nan, nan, 0.25])
    assert found.dtype == "float64"
    found = evaluate(
        lambda x, y: x + y, np.array([1.0, nan, 3.0]), np.array([nan, 2.0, 4.0])
    )
    np.testing.assert_array_equal(found, [nan, nan, 7])
    called = []
    found = evaluate(called.append, np.array([nan, nan]))
    assert np.isnan(found).all() and not called
    third = evaluate(lambda x: x / 3, np.array([1.0]))
    assert third[0] == np.float32(1) / np.float32(3)
    third = evaluate(lambda x: x / 3, np.array([1.0]), dtype="float16")
    assert third[0] == np.float16(1) / np.float16(3)


def test_constants_are_finite_or_nan():
    found = finite(np.array([1, np.inf, -np.inf, np.nan], "float32"))
    np.testing.assert_array_equal(found, [1, np.nan, np.nan, np.nan])
    assert found.dtype == "float64"


SMOOTH = (
    "relu relu6 leaky_relu elu selu celu gelu sigmoid log_sigmoid "
    "sparse_sigmoid hard_sigmoid silu hard_silu softplus sparse_plus "
    "squareplus tanh hard_tanh tanh_shrink soft_shrink softsign exp exp2 expm1 "
    "log log1p log2 log10 sqrt rsqrt reciprocal sin cos sinh cosh arctan "
    "arcsinh erf abs absolute square negative cbrt tan arcsin arccos arctanh "
    "arccosh sinc erfc erfinv deg2rad rad2deg nan_to_num"
)
SMOOTH_PAIRS = (
    "add subtract multiply divide true_divide maximum minimum power hypot "
    "arctan2 logaddexp logaddexp2 fmax fmin divide_no_nan"
)
JUMPING = (
    "sign floor ceil round trunc hard_shrink isfinite isnan isinf signbit "
    "logical_not"
)
JUMPING_PAIRS = (
    "greater greater_equal less less_equal equal not_equal logical_and "
    "logical_or logical_xor floor_divide mod fmod heaviside"
)


@pytest.mark.parametrize(
    ("names", "arguments", "kind"),
    [
        (SMOOTH, (), "Elementwise"),
        (SMOOTH_PAIRS, "pair", "Elementwise"),
        (JUMPING, (), "Jumping"),
        (JUMPING_PAIRS, "pair", "Jumping"),
        ("cast", ("float16",), "Jumping"),
        ("saturate_cast", ("float16",), "Jumping"),
        ("convert_to_tensor", (), "Jumping"),
        ("clip", (0.0, 1.0), "Elementwise"),
        ("threshold", (0.1, 0.0), "Jumping"),
    ],
)
def test_the_rules_of_operations(names, arguments, kind):
    for name in names.split():
        inputs = keras.Input((5,))
        given = [inputs] if arguments == "pair" else arguments
        x = getattr(ops, name)(inputs, *given)
        graph = trace(keras.Model(inputs, x))
        liveness = Liveness(graph, to_numpy, "keep")
        liveness.forward({})
        assert {type(r).__name__ for r in liveness.rules.values()} == {kind}, (
            name
        )


@pytest.mark.parametrize("divide", [ops.divide, ops.divide_no_nan])
def test_zero_divided_by_what_is_not_known(divide):
    rule = rule_of(divide, (4,), number=2)
    nan = np.nan
    above, below = np.array([[0, 0, 0, 3], [nan, 0, 2, nan]])
    expected = [0, nan if divide is ops.divide else 0, 0, nan]
    np.testing.assert_array_equal(rule.constants([above, below]), expected)
    assert np.isnan(rule_of(lambda x: 2 / x, (1,)).constants([[nan]]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.ReLU(),
        lambda: layers.LeakyReLU(),
        lambda: layers.ELU(),
        lambda: layers.Activation("tanh"),
        lambda: layers.Dropout(0.5),
        lambda: layers.AlphaDropout(0.5),
        lambda: layers.GaussianDropout(0.5),
        lambda: layers.GaussianNoise(0.5),
        lambda: layers.SpatialDropout2D(0.5),
        lambda: layers.ActivityRegularization(0.1),
        lambda: layers.Identity(),
        lambda: layers.MaxPooling2D(2),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.AdaptiveAveragePooling2D(2),
        lambda: layers.AdaptiveMaxPooling2D(2),
        lambda: layers.Cropping2D(1),
        lambda: layers.UpSampling2D(2),
        lambda: layers.UpSampling2D(2, interpolation="bicubic"),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.PReLU(),
        lambda: layers.PReLU(shared_axes=(1, 2)),
        lambda: layers.PReLU(shared_axes=(1, 2, 3)),
        lambda: layers.BatchNormalization(),
        lambda: layers.BatchNormalization(center=False),
        lambda: layers.GroupNormalization(groups=-1),
        lambda: layers.GroupNormalization(groups=8, center=False),
        lambda: layers.Rescaling(2.0, 0.5),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.DepthwiseConv2D(3, use_bias=False, padding="same"),
        lambda: layers.Permute((2, 1, 3)),
    ],
)
def test_layers_of_images_keep_no_dead_filter(make):
    left, report = images(make(), dead_bias=0.0)
    assert report.whole == ()
    assert left == 6
    assert report.relative_difference < 1e-5


@pytest.mark.parametrize(
    ("make", "bias", "filters"),
    [
        (lambda: layers.UpSampling2D(2), 0.5, 6),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), 0.5, 6),
        (lambda: layers.UpSampling2D(2, interpolation="bicubic"), 0.5, 8),
        (lambda: layers.PReLU(), 0.5, 6),
        (lambda: layers.PReLU(), -0.5, 8),
        (lambda: layers.PReLU(shared_axes=(1, 2)), -0.5, 6),
        (lambda: layers.PReLU(shared_axes=(1, 2, 3)), -0.5, 6),
        (lambda: layers.ZeroPadding2D(1), 0.5, 8),
        (lambda: layers.AveragePooling2D(3, padding="same"), 0.5, 6),
        (lambda: layers.MaxPooling2D(3, padding="same"), -0.5, 6),
        (lambda: layers.DepthwiseConv2D(3), 0.5, 6),
        (lambda: layers.DepthwiseConv2D(3, padding="same"), 0.5, 8),
        (lambda: layers.DepthwiseConv2D(1, padding="same"), 0.5, 6),
        (lambda: layers.Conv2D(5, 3), 0.5, 6),
        (lambda: layers.Conv2D(5, 3, padding="same"), 0.5, 8),
        (lambda: layers.Conv2DTranspose(5, 3), 0.5, 8),
        (lambda: layers.SeparableConv2D(5, 3), 0.5, 6),
        (lambda: layers.SeparableConv2D(5, 3, padding="same"), 0.5, 8),
        (lambda: layers.BatchNormalization(), 0.5, 6),
        (lambda: layers.GroupNormalization(groups=-1), 0.5, 6),
        (lambda: layers.Rescaling(2.0, 0.5), 0.5, 6),
        (lambda: layers.Normalization(mean=0.5, variance=2.0), 0.25, 6),
        (lambda: layers.Reshape((16, 8)), 0.5, 6),
        (lambda: layers.Activation("exponential"), 0.5, 6),
    ],
)
def test_filters_of_a_constant_are_folded_where_that_is_exact(
    make, bias, filters
):
    left, report = images(make(), dead_bias=bias)
    assert left == filters
    assert report.relative_difference < 1e-5


def test_slices_find_variables_of_a_layer_in_the_layer():
    inputs = keras.Input((4, 3))
    layer = layers.Bidirectional(layers.LSTM(2))
    (node,) = trace(keras.Model(inputs, layer(inputs))).nodes
    channels = np.arange(3)
    own = Slices("forward_layer.cell.kernel", 0, channels, "reader")
    assert own.of(layer) is layer.forward_layer.cell.kernel
    assert own.channels_of(node) is node.inputs[0]
    assert own._replace(role="member").channels_of(node) is node.outputs[0]
    recurrent = own._replace(tensor=node.outputs[0])
    assert recurrent.channels_of(node) is node.outputs[0]


def test_channels_over_several_axes_are_counted_in_row_major_order():
    x = Tensor(keras.KerasTensor((None, 5, 2, 3)), axes=(-1, 2))
    assert (x.axes, x.axis, x.sizes, x.channels) == ((2, 3), None, (2, 3), 6)
    values = np.arange(30).reshape(1, 5, 2, 3)
    np.testing.assert_array_equal(x.by_channel(values)[1], np.arange(6, 12))


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ([[1, 1], [2, 2]], (0, [1, 2])),
        ([[1, 2], [1, 2]], (1, [1, 2])),
        ([[1, 1], [1, 1]], (0, [1, 1])),
        ([3, 4, 5], (0, [3, 4, 5])),
    ],
)
def test_the_side_that_values_vary_along(values, side):
    place, along = side_of(np.array(values))
    assert (place, along.tolist()) == side


def test_a_grid_has_no_side():
    with pytest.raises(AssertionError, match="several axes"):
        side_of(np.array([[1, 2], [3, 4]]))


def test_what_stays_of_each_axis():
    kept = sides(np.array([True, True, True, False, False, False]), (2, 3))
    assert [own.tolist() for own in kept] == [[True, False], [True] * 3]


def test_slices_over_several_axes():
    own = Slices("kernel", (1, -1), np.arange(6).reshape(2, 3), "member")
    heads = np.repeat([7, 8], 3)
    assert own.along(heads, 3).tolist() == [[[7, 7, 7], [8, 8, 8]]]
    axis, along = own.side(heads, 3)
    assert (axis, along.tolist()) == (1, [7, 8])
    axis, along = own.side(np.tile([4, 5, 6], 2), 3)
    assert (axis, along.tolist()) == (2, [4, 5, 6])
