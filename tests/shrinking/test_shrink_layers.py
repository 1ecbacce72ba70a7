"""One small model per layer type: any neurons dead, the same outputs."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_outputs, scramble, to_numpy
from keras import layers, ops

import keras_sgl0 as ks


def apply(make, x):
    """Calls a copy of a layer, or a function."""
    if isinstance(make, layers.Layer):
        config = {**make.get_config(), "name": None}
        make = type(make).from_config(config)
    return make(x)


def between(first, second, shape):
    """Returns a function that builds a model around what is tested."""

    def of(*makers):
        def build():
            x = inputs = keras.Input(shape)
            for make in (first, *makers):
                x = apply(make, x)
            if len(x.shape) == len(inputs.shape):
                x = layers.Flatten()(apply(second, x))
            return keras.Model(inputs, layers.Dense(4)(x))

        return build

    return of


image = between(
    layers.Conv2D(12, 3), layers.Conv2D(6, 2, use_bias=False), (9, 8, 3)
)
sequence = between(
    layers.Conv1D(8, 3), layers.Conv1D(6, 2, use_bias=False), (12, 3)
)


def excite(x):
    """Squeeze and excite."""
    y = layers.GlobalAveragePooling2D()(x)
    y = layers.Dense(5, activation="relu")(y)
    y = layers.Dense(x.shape[-1], activation="sigmoid")(y)
    return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(y)])


def branches(merge):
    def build(x):
        a = layers.Conv2D(12, 3, activation="relu", padding="same")(x)
        b = layers.Conv2D(12, 1, activation="tanh")(x)
        return apply(merge, [a, b])

    return build


def spread(x):
    return layers.Multiply()([x, layers.Conv2D(1, 1)(x)])


def arithmetic(x):
    return ops.relu(x * 0.5 + 1.0) - ops.sigmoid(2.0 - x)


def volume():
    x = inputs = keras.Input((5, 5, 5, 2))
    x = layers.Conv3D(6, 2, activation="relu")(x)
    x = layers.SpatialDropout3D(0.5)(layers.ZeroPadding3D(1)(x))
    x = layers.UpSampling3D(2)(layers.MaxPooling3D(2)(x))
    x = layers.Conv3DTranspose(5, 2)(layers.Cropping3D(1)(x))
    x = layers.GlobalMaxPooling3D(keepdims=True)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def generator():
    x = inputs = keras.Input((6,))
    x = layers.Dense(3 * 3 * 8, activation="relu")(x)
    x = layers.Reshape((3, 3, 8))(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = layers.LeakyReLU()(x)
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x))


CASES = {
    "plain": image(layers.ReLU()),
    "batch_norm": image(layers.BatchNormalization(), layers.ReLU()),
    "bare_batch_norm": image(
        layers.BatchNormalization(center=False, scale=False)
    ),
    "instance_norm": image(layers.GroupNormalization(groups=-1)),
    "layer_norm": image(layers.LayerNormalization()),
    "group_norm": image(layers.GroupNormalization(groups=3)),
    "softmax": image(layers.Softmax()),
    "dense_softmax": image(layers.Dense(7, activation="softmax")),
    "activations": image(
        layers.ELU(), layers.LeakyReLU(0.1), layers.Activation("gelu")
    ),
    "prelu": image(layers.PReLU()),
    "shared_prelu": image(layers.PReLU(shared_axes=[1, 2])),
    "one_prelu": image(layers.PReLU(shared_axes=[1, 2, 3])),
    "rescaling": image(layers.Rescaling(2.0, offset=1.0)),
    "rescaled_channels": image(
        layers.Rescaling([0.0, 2.0, 0.0, *range(9)], offset=[1.0] * 12)
    ),
    "gates": image(ks.HardConcrete(0.8, seed=1)),
    "rescaling_gates": image(layers.ReLU(), ks.HardConcrete(0.8, seed=1)),
    "normalization": image(
        layers.Normalization(mean=np.arange(12.0), variance=np.full(12, 2.0))
    ),
    "inverse_normalization": image(
        layers.Normalization(mean=0.5, variance=2.0, invert=True)
    ),
    "noise": image(
        layers.Dropout(0.5),
        layers.GaussianNoise(1.0),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5, noise_shape=(None, 1, 1, 12)),
        layers.SpatialDropout2D(0.5),
        layers.ActivityRegularization(0.1),
        layers.Identity(),
    ),
    "max_pooling": image(layers.MaxPooling2D(2, padding="same")),
    "average_pooling": image(layers.AveragePooling2D(2, padding="same")),
    "adaptive_pooling": image(layers.AdaptiveAveragePooling2D(3)),
    "global_pooling": image(layers.GlobalAveragePooling2D()),
    "kept_global_pooling": image(
        layers.GlobalMaxPooling2D(keepdims=True), layers.Flatten()
    ),
    "resizing": image(
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Cropping2D(1),
        layers.ZeroPadding2D(1),
    ),
    "cubic": image(layers.UpSampling2D(2, interpolation="bicubic")),
    "permute": image(layers.Permute((2, 1, 3))),
    "permuted_channels": image(layers.Permute((3, 1, 2))),
    "partial_reshape": image(layers.Reshape((-1, 24)), layers.Flatten()),
    "mixing_reshape": image(layers.Reshape((-1, 7))),
    "dense_everywhere": image(layers.Dense(7, activation="tanh")),
    "same": image(layers.Conv2D(7, 3, padding="same", activation="relu")),
    "strided": image(layers.Conv2D(7, 3, strides=2, padding="same")),
    "dilated": image(layers.Conv2D(7, 3, dilation_rate=2, padding="same")),
    "grouped": image(layers.Conv2D(12, 3, groups=12)),
    "equal_groups": image(layers.Conv2D(8, 3, groups=2)),
    "depthwise": image(layers.DepthwiseConv2D(3, activation="relu")),
    "depthwise_multiplier": image(
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")
    ),
    "separable": image(
        layers.SeparableConv2D(7, 3, depth_multiplier=2, padding="same")
    ),
    "valid_separable": image(layers.SeparableConv2D(7, 3)),
    "transpose": image(layers.Conv2DTranspose(7, 3, strides=2)),
    "add": image(branches(layers.Add())),
    "subtract": image(branches(layers.Subtract())),
    "average": image(branches(layers.Average())),
    "multiply": image(branches(layers.Multiply())),
    "maximum": image(branches(layers.Maximum())),
    "concatenate": image(branches(layers.Concatenate())),
    "stack": image(branches(layers.Concatenate(axis=1))),
    "twice": image(lambda x: layers.Add()([x, x])),
    "excite": image(excite),
    "spread": image(spread),
    "arithmetic": image(arithmetic),
    "array": image(lambda x: x * np.arange(12.0, dtype="float32")),
    "unknown_operation": image(lambda x: ops.cumsum(x, axis=-1)),
    "sequence": sequence(
        layers.ZeroPadding1D(1),
        layers.SeparableConv1D(7, 3, padding="same"),
        layers.UpSampling1D(2),
        layers.Cropping1D(1),
        layers.DepthwiseConv1D(3),
        layers.AveragePooling1D(2),
        layers.SpatialDropout1D(0.5),
    ),
    "causal": sequence(layers.Conv1D(7, 3, padding="causal")),
    "transposed_sequence": sequence(layers.Conv1DTranspose(7, 2, strides=2)),
    "recurrent": sequence(layers.LSTM(5)),
    "repeat": sequence(
        layers.GlobalMaxPooling1D(), layers.RepeatVector(4), layers.ReLU()
    ),
    "volume": volume,
    "generator": generator,
}


# Cases with a layer that is kept whole.
WHOLE = {
    *("softmax", "mixing_reshape"),
    *("unknown_operation", "noise"),
}
# Compiling every shape takes JAX long.
SOME = {
    *("batch_norm", "prelu", "average_pooling", "kept_global_pooling"),
    *("same", "separable", "depthwise_multiplier", "transpose", "excite"),
    *("arithmetic", "concatenate", "sequence", "generator"),
}
RUNS = [
    pytest.param(name, dead, seed, id=f"{name}-{dead}")
    for name in CASES
    for seed, dead in enumerate((0.5, 0.8))
    if BACKEND != "jax" or (name in SOME and seed == 0)
]


@pytest.mark.parametrize(("name", "dead", "seed"), RUNS)
def test_the_outputs_stay(name, dead, seed):
    model = scramble(CASES[name](), dead, seed)
    before = [w.copy() for w in model.get_weights()]
    small, report = ks.shrink(model, 0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert report.relative_difference < 1e-5
    assert_same_outputs(model, small, seed=seed + 1)
    assert small.count_params() == report.parameters_after <= report.parameters
    assert bool(report.whole) == (name in WHOLE)
    again, second = ks.shrink(small, 0, verify=False)
    assert second.parameters_after == report.parameters_after
    for a, b in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


UNARY = (
    "relu relu6 leaky_relu elu selu celu gelu sigmoid log_sigmoid "
    "sparse_sigmoid hard_sigmoid silu hard_silu softplus sparse_plus "
    "squareplus tanh hard_tanh tanh_shrink soft_shrink hard_shrink softsign "
    "exp exp2 expm1 log log1p log2 log10 sqrt rsqrt reciprocal sin cos sinh "
    "cosh arctan arcsinh erf sign floor ceil round abs square negative "
    "cbrt tan sinc deg2rad rad2deg nan_to_num trunc signbit"
).split()
OPERATIONS = {name: getattr(ops, name) for name in UNARY} | {
    "activations.relu": keras.activations.relu,
    "activations.exponential": keras.activations.exponential,
    "power": lambda x: x**3 + ops.power(2.0, x),
    "binary": lambda x: ops.arctan2(x, ops.hypot(x, ops.cos(x))),
    "logaddexp": lambda x: ops.logaddexp(x, 1.0),
    "where": lambda x: ops.where(x > 0.4, x, 0.1 * x - 1.0),
    "flags": lambda x: ops.where(
        ops.logical_and(ops.isfinite(x), ops.logical_not(x <= 0.0)), 1.0, x
    ),
    "within -1 and 1": lambda x: ops.concatenate(
        [
            ops.arcsin(0.9 * ops.tanh(x)) + ops.arccos(0.5 * ops.sin(x)),
            ops.arctanh(0.9 * ops.sin(x)) + ops.arccosh(1 + ops.abs(x)),
            ops.erfinv(0.9 * ops.sin(x)) + ops.exp(ops.erfc(x)),
        ],
        axis=-1,
    ),
    "quotients": lambda x: (
        ops.divide_no_nan(1.0, x)
        + ops.floor_divide(x, 0.37)
        + ops.mod(x, 2.0)
        + ops.fmod(x, 2.0)
    ),
    "no number": lambda x: ops.where(
        ops.logical_or(ops.isnan(x), ops.isinf(x)),
        1.0,
        ops.fmax(ops.fmin(x, 0.5), -0.5) + ops.heaviside(x, np.float32([0.5])),
    ),
    "logaddexp2": lambda x: ops.logaddexp2(x, 1.0),
    "threshold": lambda x: ops.threshold(x, 0.4, -1.0),
    "cast": lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
    "convert": lambda x: ops.convert_to_tensor(x, "float32"),
    "saturate": lambda x: ops.cast(ops.saturate_cast(x, "int8"), "float32"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_each_entry_are_known(name):
    inputs = keras.Input((5,))
    x = ops.abs(layers.Dense(9, name="first")(inputs))
    x = layers.Dense(4, name="last")(OPERATIONS[name](x))
    model = scramble(keras.Model(inputs, x), dead=0)
    first = model.get_layer("first")
    kernel = to_numpy(first.kernel).copy()
    kernel[:, :4] = 0
    first.kernel.assign(kernel)
    first.bias.assign([0.3, 0.7, -0.2, -1.6, 0.1, 1, 2, -3, 0.5])
    small, report = ks.shrink(model, 0)
    assert report.whole == ()
    assert small.get_layer("first").units == 5
    assert_same_outputs(model, small)


@pytest.mark.parametrize("bias", [0.5, 0.5 + 1e-7, -1e-9])
def test_a_constant_close_to_a_jump_is_not_folded(bias):
    inputs = keras.Input((5,))
    x = layers.Dense(3, name="first")(inputs)
    x = ops.concatenate([ops.round(x), ops.where(x >= 0.0, 1.0, x)], axis=-1)
    model = scramble(keras.Model(inputs, layers.Dense(2)(x)), dead=0)
    first = model.get_layer("first")
    first.kernel.assign(np.ones((5, 3)) * [0, 1, 1])
    first.bias.assign([bias, 0.7, 0.3])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 3
    first.bias.assign([0.0, 0.7, 0.3])
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("first").units == 2
    assert_same_outputs(model, small)
