import keras
import networks
import numpy as np
import pytest
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.structures.selection import Floor, select


def residual():
    return networks.residual(8, stream=6, inner=8, outputs=5)


def shared_activation_of_one():
    """A constant that is not zero meets 'same' padding: sigmoid(0) = .5."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="sigmoid", name="first"),
            layers.Conv2D(3, 3, padding="same", name="second"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )


def mean_without_gamma():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Conv2D(3, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def all_kinds():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(x)
    x = layers.PReLU(shared_axes=(1, 2))(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    z = layers.Conv2DTranspose(5, 3, padding="same")(x)
    x = layers.Concatenate()([y, z])
    x = layers.BatchNormalization()(x)
    x = layers.Flatten()(layers.MaxPooling2D(4)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(7)(x)))


MODELS = {
    "residual": residual,
    "lenet": ks.models.LeNet5Caffe,
    "mean_without_gamma": mean_without_gamma,
    "all_kinds": all_kinds,
    "wide_resnet": lambda: ks.models.WideResNet(depth=10, width=1),
    "mobilenet": ks.models.MobileNetV2,
}
APPLICATIONS = {
    "VGG16": 64,
    "ResNet50": 64,
    "MobileNetV2": 64,
    "EfficientNetV2B0": 64,
    "DenseNet121": 64,
    "InceptionResNetV2": 96,
    "NASNetMobile": 224,
    "ConvNeXtTiny": 64,
}


def half_dead(found):
    """A random half of the structures, at least one left in each family."""
    dead = np.random.default_rng(1).random(found.size) < 0.5
    for family in range(len(found.counts)):
        own = np.flatnonzero(found.families == family)
        dead[own[0]] &= not dead[own].all()
    return dead


def require_exact(model):
    networks.vary_statistics(model)
    found = ks.structures(model)
    whole, counted = found.cost(), ks.count_macs(model)
    assert whole.parameters == counted.parameters
    assert whole.macs == counted.macs
    dead = half_dead(found)
    found.zero(dead)
    small, report = ks.shrink(model, tolerance=0.0)
    left, counted = found.cost(~dead), ks.count_macs(small)
    assert (left.parameters, left.macs) == (counted.parameters, counted.macs)
    assert left.macs < whole.macs
    assert report.relative_difference < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_what_the_structures_say_is_what_shrink_leaves(name):
    require_exact(MODELS[name]())


def test_what_no_output_depends_on_is_no_structure():
    """A backbone has an output for each stage, and the last is not used."""
    x = inputs = keras.Input((8, 8, 3))
    x = y = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    for i in range(2):
        y = keras.layers.Conv2D(6, 3, name=f"unused_{i}")(y)
        y = keras.layers.BatchNormalization()(y)
    backbone = keras.Model(inputs, [x, y], name="backbone")
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs)[0])
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    found = ks.structures(model)
    assert found.counts.tolist() == [4]
    assert found.cost().parameters == 4 * 27 + 4 + 4 * 3 + 3
    dead = half_dead(found)
    found.zero(dead)
    small, report = ks.shrink(model, 0)
    assert small.count_params() == found.cost(~dead).parameters
    assert report.parameters == model.count_params()
    assert report.parameters_after == small.count_params()
    assert ks.count_macs(small).macs == report.macs_after
    (entry,) = (x for x in report.layers if x.layer == "backbone/unused_0")
    assert (entry.channels_after, entry.macs_after) == (0, 0)


@pytest.mark.slow
def test_wrn_28_10():
    require_exact(ks.models.WideResNet(depth=28, width=10))


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name):
    size = APPLICATIONS[name]
    require_exact(
        getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=10
        )
    )


def test_families_of_a_residual_network():
    report = ks.structures(residual()).report()
    stream, inner = report.families
    assert stream.made_by == ("stem", "outer")
    assert stream.through == ("stem_norm", "outer_norm")
    assert stream.read_by == ("inner", "head")
    assert stream.structures == 6
    # 9*3 + 4, 9*8 + 1 + 4; 9*8 rows of `inner`, 5 of the head.
    assert stream.parameters == 31 + 77 + 72 + 5
    assert stream.macs == 64 * (27 + 72 + 72) + 5
    assert inner.made_by == ("inner",)
    assert inner.read_by == ("outer",)
    assert inner.structures == 8
    assert report.structures == 14
    (head,) = report.fixed
    assert (head.layer, head.channels) == ("head", 5)
    assert head.reason == "an output of the model"
    text = str(ks.structures(residual()))
    assert "14 structures in 2 families" in text
    assert "an output of the model" in text
    assert report.to_dict()["families"][1]["made_by"] == ("inner",)


def test_a_constant_that_meets_zeros_is_no_structure():
    (entry, *_) = ks.structures(shared_activation_of_one()).fixed
    assert (entry.layer, entry.channels) == ("first", 4)
    assert entry.reason == "its constant meets the zeros around `second`"


def test_an_unknown_layer_is_named():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
            self.count = self.add_weight(shape=(), trainable=False, name="n")

        def call(self, x):
            self.count.assign_add(1.0)
            return x @ self.kernel

    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(Own(name="own")(layers.Dense(5)(x))))
    reasons = {e.layer: e.reason for e in ks.structures(model).fixed}
    assert "it uses its weight" in reasons["own"]
    assert ks.structures(model).size == 0


def test_unknown_sizes_have_no_macs():
    x = keras.Input((None, None, 3))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    found = ks.structures(keras.Model(x, layers.Dense(2)(y)))
    assert found.cost().macs is None
    assert found.cost().parameters == 112 + 10
    assert "?" in str(found)


def test_a_subclassed_model_that_cannot_be_traced_is_refused():
    class Own(keras.Model):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    model = Own()
    model(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="a Sequential or Functional model"):
        ks.structures(model)


@pytest.mark.parametrize("round_to", [1, 2, 4])
@pytest.mark.parametrize("density", [0.7, 0.5, 0.3])
def test_selection_meets_a_cost_and_its_floor(density, round_to):
    found = ks.structures(ks.models.LeNet5Caffe())
    sizes = np.random.default_rng(0).random(found.size)
    sizes[found.families == 0] *= 1e-3  # a layer of small weights stays
    most = density * found.cost().macs
    alive = np.ones(found.size, bool)
    floor = Floor(alive, minimum=2, round_to=round_to)
    kept = select(found, sizes, alive, (0.99 * most, most), "macs", floor)
    assert 0.99 * most <= found.cost(kept).macs <= most
    counts = np.bincount(found.families[kept], minlength=3)
    assert (counts >= 2).all()
    assert (counts % round_to == 0).all()
    for family in range(3):
        own = found.families == family
        assert sizes[own & kept].min() > sizes[own & ~kept].max(initial=0)


def test_what_is_dead_or_may_not_go_is_left_as_it_is():
    found = ks.structures(residual())
    sizes = np.arange(1.0, 15.0)
    alive = np.arange(14) != 13
    removable = found.families == 1
    floor = Floor(removable)
    most = 0.6 * found.cost().macs
    kept = select(found, sizes, alive, (0.0, most), "macs", floor)
    assert kept[:6].all() and not kept[13]
    assert found.cost(kept).macs <= most
