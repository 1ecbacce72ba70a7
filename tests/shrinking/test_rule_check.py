"""`check_rule` finds what is wrong with a rule, and every rule passes it."""

import importlib

import keras
import numpy as np
import pytest
from custom_blocks import Remembering
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.structures.dense import Dense
from keras_sgl0.structures.registry import find
from keras_sgl0.structures.rules import Channelwise


class Scale(layers.Layer):
    """A factor for each channel."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="gamma")

    def call(self, x):
        return x * self.factor


def rule_with(**answers):
    """Returns a layer of a new class with a rule that has other answers."""

    def slices(self):
        return self.vectors("follower", "factor")

    def constants(self, input_constants):
        factor = self.values(self.layer.factor)
        return np.where(factor == 0, 0, factor * input_constants[0])

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        factor = self.values(self.layer.factor)[kept_outputs]
        return ks.rules.Rewrite({}, {"factor": factor})

    kind = type("Scale", (Scale,), {})
    right = {"slices": slices, "constants": constants, "rewrite": rewrite}
    ks.rule(kind)(type("ScaleRule", (Channelwise,), right | answers))
    return kind()


def test_a_right_rule_passes():
    found = ks.check_rule(rule_with(), (4, 6))
    assert found.rules == {"scale": "ScaleRule"}
    assert found.structures == 6
    assert found.cut > 20
    assert str(found).startswith("scale: ScaleRule; 6 structures, ")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"constants": lambda self, given: 2 * given[0]},
            r"`constants` of `scale`: channel \d is said to be",
        ),
        (
            {"constants": lambda self, given: 0 * np.nan_to_num(given[0])},
            r"`constants` of `scale`: channel \d is said to be 0",
        ),
        ({"slices": lambda self: []}, "`slices`: half of the structures"),
        (
            {
                "rewrite": lambda self, kept_inputs, kept, constants: (
                    ks.rules.Rewrite(
                        {}, {"factor": np.ones(kept.sum(), "float32")}
                    )
                )
            },
            "outputs of the smaller network differ",
        ),
        ({"refusal": lambda self: "it is odd"}, "stays whole: it is odd"),
    ],
)
def test_a_wrong_rule_is_named(answers, message):
    with pytest.raises(AssertionError, match=message):
        ks.check_rule(rule_with(**answers), (4, 6))


def test_what_is_read_and_not_said_to_be_is_found():
    class Own(layers.Dense):
        def call(self, x):
            return super().call(x)

    @ks.rule(Own)
    class _Own(Dense):
        def reads(self, live, input_constants):
            return [super().reads(live, input_constants)[0] & [False] * 3]

    with pytest.raises(AssertionError, match="outputs of the smaller network"):
        ks.check_rule(Own(4), (3,))


def test_a_layer_that_cannot_be_followed_is_named():
    with pytest.raises(AssertionError, match="stays whole: its call sets"):
        ks.check_rule(Remembering(6), (4, 6))


def test_a_layer_without_a_rule_is_checked_as_what_it_does():
    assert ks.check_rule(Scale(), (4, 6)).relative_difference < 1e-6


def test_a_layer_that_cannot_be_called_is_an_error():
    with pytest.raises(ValueError, match="that `layer` can be called on"):
        ks.check_rule(layers.Conv2D(3, 3), (4, 6))


def test_rules_are_for_layers_and_are_rules():
    with pytest.raises(ValueError, match="argument `classes`"):
        ks.rule()
    with pytest.raises(ValueError, match="argument `classes`"):
        ks.rule(int)
    with pytest.raises(ValueError, match="argument `classes`"):
        ks.rule("no name")
    with pytest.raises(ValueError, match="argument `kind`"):
        ks.rule(Scale)(Scale)


CASES = [
    (layers.Dense(5, "relu"), (6,)),
    (lambda x: layers.Dense(5, "relu")(layers.Permute((2, 1))(x)), (4, 6)),
    (layers.Conv1D(5, 3, padding="causal", dilation_rate=2), (7, 6)),
    (layers.Conv2D(6, 3, 2, "same", activation="tanh"), (5, 5, 4)),
    (layers.Conv2D(8, 3, groups=4), (5, 5, 8)),
    (layers.Conv2DTranspose(5, 3, 2), (4, 4, 6)),
    (layers.SeparableConv2D(5, 3), (5, 5, 4)),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 4)),
    (layers.BatchNormalization(), (4, 4, 6)),
    (layers.BatchNormalization(scale=False), (4, 6)),
    (layers.GroupNormalization(-1), (5, 6)),
    (layers.Add(), [(4, 6), (4, 6)]),
    (layers.Multiply(), [(4, 6), (4, 6)]),
    (layers.Concatenate(), [(4, 6), (4, 5)]),
    (layers.Reshape((5, 2, 3)), (5, 6)),
    (layers.Flatten(), (3, 3, 4)),
    (layers.Permute((2, 1)), (4, 6)),
    (layers.PReLU(), (6,)),
    (layers.LSTM(6), (4, 3)),
    (layers.GRU(6, return_sequences=True), (4, 3)),
    (layers.Bidirectional(layers.LSTM(4)), (4, 3)),
    (layers.TimeDistributed(layers.Dense(5)), (4, 3)),
    (layers.SpectralNormalization(layers.Dense(5)), (4, 3)),
    (layers.SpectralNormalization(layers.Conv2D(5, 3)), (5, 5, 4)),
    (layers.SpectralNormalization(layers.Conv2DTranspose(5, 3)), (5, 5, 4)),
    (layers.SpectralNormalization(layers.DepthwiseConv2D(3)), (5, 5, 4)),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (4, 6)),
    (lambda x: layers.MultiHeadAttention(4, 3)(x, x), (5, 6)),
    (lambda x, y: layers.MultiHeadAttention(4, 3)(x, y), [(5, 6), (3, 4)]),
    (lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), (5, 6)),
    (layers.LayerNormalization(), (5, 6)),
    (layers.RMSNormalization(), (5, 6)),
    (lambda x: keras.ops.split(x, 2, axis=-1), (5, 6)),
    (lambda x: x[..., :4] * keras.ops.sigmoid(x[..., 4:]), (5, 8)),
    (lambda x: keras.ops.mean(x, axis=(1, 2)), (3, 3, 6)),
    (lambda x: x / (1 + keras.ops.norm(x, axis=-1, keepdims=True)), (5, 6)),
    (lambda x: keras.ops.norm(x, 1, axis=1), (5, 6)),
    (lambda x: keras.ops.normalize(x), (5, 6)),
    (lambda x: keras.ops.median(x, axis=1), (5, 6)),
    (lambda x: keras.ops.prod(x, axis=(1, 2)), (3, 3, 6)),
    (lambda x: keras.ops.logsumexp(x, axis=1, keepdims=True), (5, 6)),
    (lambda x: keras.ops.cumsum(keras.ops.sort(x, axis=1), axis=-2), (5, 6)),
]


@pytest.mark.parametrize(
    ("layer", "shape"),
    CASES,
    ids=[f"{i}-{type(layer).__name__}" for i, (layer, _) in enumerate(CASES)],
)
def test_the_rules_of_the_package(layer, shape):
    if isinstance(layer, layers.Layer):
        layer = type(layer).from_config(layer.get_config())
    ks.check_rule(layer, shape, trials=2)


@pytest.mark.parametrize("seed", range(3))
def test_a_single_dimension_of_as_many_heads_as_steps(seed):
    def attend(x, y):
        return layers.MultiHeadAttention(4, 3)(x, y)

    ks.check_rule(attend, [(5, 6), (3, 4)], seed=seed)


def test_layers_known_by_name():
    model = keras.applications.ConvNeXtTiny(
        weights=None, input_shape=(32, 32, 3), include_top=False
    )
    kind = next(type(x) for x in model.layers if "layer_scale" in x.name)
    found = ks.check_rule(kind(0.1, 6, name="scale"), (4, 4, 6))
    assert found.rules == {"scale": "LayerScale"}
    module = importlib.import_module(
        "keras.src.applications.inception_resnet_v2"
    )
    scaled = module.CustomScaleLayer(0.2, name="sum")
    found = ks.check_rule(scaled, [(4, 4, 6), (4, 4, 6)])
    assert found.rules == {"sum": "ScaledSum"}


class RMSNormalization(layers.Layer):
    """That of Gemma, which adds one to its scale."""

    def __init__(self, epsilon=1e-2, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), "zeros", name="scale")

    def call(self, x):
        mean = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
        return x * keras.ops.rsqrt(mean + self.epsilon) * (1 + self.scale)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras_hub.src.models.gemma.rms_normalization", "GemmaRMSNorm"),
        ("keras_hub.src.models.gemma3.gemma3_layers", "GemmaRMSNorm"),
        ("keras_hub.src.models.gemma4", "HubRMSNorm"),
        ("keras_hub.src.models.gemma5.layers", None),
        ("other.src.models.gemma", None),
    ],
)
def test_a_rule_may_be_that_of_one_module(module, name):
    kind = type("RMSNormalization", (RMSNormalization,), {})
    kind.__module__ = module
    if name != "GemmaRMSNorm":
        kind = find(kind(name="norm"))
        assert (kind and kind.__name__) == name
        return
    # Its policy is an object, as in the blocks of Gemma.
    layer = kind(dtype=keras.DTypePolicy("float32"), name="norm")
    assert ks.check_rule(layer, (8, 6)).rules == {"norm": name}


def test_layers_of_keras_hub():
    hub = pytest.importorskip("keras_hub").layers
    ks.check_rule(hub.PositionEmbedding(8), (8, 6))
