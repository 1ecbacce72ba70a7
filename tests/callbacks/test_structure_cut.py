"""What a target density of structures counts, weighs and cuts."""

import keras
import numpy as np
import pytest
from densities import train
from helpers import to_numpy, two_layers
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.structure_cut import StructureCut
from keras_sgl0.structures.members import Members


def small(size=6):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((size, size, 2)),
            layers.Conv2D(4, 3, name="conv"),  # 16 positions
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="fc"),
            layers.Dense(3, name="head"),
        ]
    )


def cut_of(model, penalised, target=0.5, of="macs", minimum=1, round_to=1):
    """Returns the cut and the variables of all layers by name."""
    members = Members(ks.structures(model))
    variables = {v.path.split("/", 1)[1]: v for v in model.variables}
    flags = None
    if penalised is not None:
        flags = members.among([variables[name] for name in penalised])
    cut = StructureCut(target, of, model, members, flags, minimum, round_to)
    return cut, variables


BOTH = ("conv/kernel", "fc/kernel")


def test_a_weight_of_a_kernel_costs_its_positions():
    cut, v = cut_of(small(), BOTH)
    names = (*BOTH, "conv/bias", "head/kernel")
    prices = cut.prices([v[name] for name in names])
    sizes, positions = np.array([72, 40, 30]), np.array([16, 1, 1])
    expected = positions * sizes.sum() / (positions @ sizes)
    np.testing.assert_allclose(prices[[0, 1, 3]], expected)
    assert prices[2] == 1


@pytest.mark.parametrize(
    ("penalised", "of"), [(None, "macs"), (BOTH, "channels")]
)
def test_all_cost_the_same_without_macs_or_when_coupled(penalised, of):
    cut, v = cut_of(small(), penalised, of=of)
    assert cut.prices([v[name] for name in BOTH]).tolist() == [1, 1]
    assert cut.prices([v["conv/bias"]]).tolist() == [1]


def test_what_is_in_no_structure_cannot_be_counted():
    cut, v = cut_of(small(), BOTH)
    other = keras.Variable(np.ones(3), name="other")
    with pytest.raises(ValueError, match=r'of other.* Received: of="macs"'):
        cut.prices([other])
    assert cut.has(v["conv/kernel"]) is True
    assert cut.has(v["conv/bias"]) is True
    assert cut.has(v["head/bias"]) is False
    assert cut.has(other) is False


def test_unknown_sizes_have_no_macs():
    with pytest.raises(ValueError, match="no known sizes"):
        cut_of(small(None), BOTH)
    cut_of(small(None), BOTH, of="channels")


def test_the_density_is_that_of_what_is_not_zero():
    # 16 * 18 multiply-adds a channel of conv and 10 of each in fc, then 13.
    cut, v = cut_of(small(), BOTH)
    total = 4 * 288 + 4 * 10 + 10 * 3
    assert cut.density() == 1
    for name in ("conv/kernel", "conv/bias"):
        values = to_numpy(v[name]).copy()
        values[..., 1] = 0
        v[name].assign(values)
    assert cut.density() == pytest.approx((total - 288 - 10) / total)
    assert cut.begin_epoch(resumed=False) is False
    assert cut.begin_epoch(resumed=True) is False
    # It was cut, so it does not come back.
    v["conv/kernel"].assign(np.ones((3, 3, 2, 4)))
    assert cut.density() == pytest.approx((total - 288 - 10) / total)
    masked = to_numpy(cut.masked(v["conv/bias"], ops.ones(4)))
    assert masked.tolist() == [1, 0, 1, 1]
    head = ops.ones((10, 3))
    assert cut.masked(v["head/kernel"], head) is head


@pytest.mark.parametrize(
    ("penalised", "whole"), [(("fc/kernel",), "conv"), (("conv/bias",), "fc")]
)
def test_only_what_has_a_penalty_is_cut(penalised, whole):
    model = small()
    cut, _ = cut_of(model, penalised, target=0.99, of="channels")
    cut.finish()
    assert (to_numpy(model.get_layer(whole).kernel) != 0).all()
    assert 0.8 < cut.density() <= 0.99
    with pytest.raises(ValueError, match=f"channels that cannot .*`{whole}`"):
        cut_of(model, penalised, target=0.01, of="channels")


def test_the_smallest_go_and_the_target_is_met():
    model = small()
    cut, v = cut_of(model, None, of="channels", target=0.6)
    for name in BOTH:
        count = v[name].shape[-1]
        v[name].assign(np.ones(v[name].shape) * np.arange(1, count + 1))
    cut.finish()
    # Of 14 channels, and 3 outputs, 10 stay: 60 % of 17 are 10.2.
    assert cut.density() == pytest.approx(10 / 17)
    sizes = [
        to_numpy(v[name]).max(tuple(range(v[name].ndim - 1))) for name in BOTH
    ]
    assert sum((s > 0).sum() for s in sizes) == 7
    for s in sizes:
        assert (np.diff(s[s > 0]) > 0).all() and s[-1] > 0


def test_the_path_is_approached_but_not_passed():
    cut, _ = cut_of(small(), None, of="channels", target=0.5)
    cut.approach(0.8)
    assert 0.5 <= cut.density() <= 0.8
    before = cut.density()
    cut.approach(0.9)
    assert cut.density() == before


@pytest.mark.parametrize(("minimum", "round_to"), [(3, 1), (1, 4), (2, 2)])
def test_a_family_keeps_its_floor(minimum, round_to):
    cut, v = cut_of(
        small(), None, 0.8, "channels", minimum=minimum, round_to=round_to
    )
    cut.finish()
    for name in BOTH:
        alive = to_numpy(v[name]).any(tuple(range(v[name].ndim - 1))).sum()
        assert alive >= minimum
        assert alive % round_to == 0 or alive == v[name].shape[-1]


def test_what_is_in_no_structure_stays_as_it_is():
    x = inputs = keras.Input((3,))
    x = layers.Concatenate()([layers.Dense(4)(x), inputs])
    x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    cut, _ = cut_of(model, None, of="channels", target=0.7)
    cut.finish()
    # Two of the four channels go; the inputs cannot.
    kept = to_numpy(cut.masked(model.get_layer("norm").gamma, ops.ones(7)))
    assert kept[:4].sum() == 2
    assert kept[4:].tolist() == [1, 1, 1]


def test_what_is_kept_is_not_trained():
    cut, _ = cut_of(small(), None)
    assert (cut._kept.name, cut._kept.trainable) == ("kept_structures", False)
    assert to_numpy(cut._kept).tolist() == [1.0] * 15


def test_what_is_cut_along_the_path_stays_cut(images):
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            first = self.model.layers[0]
            dead = ~to_numpy(first.kernel).any(axis=0)
            seen.append((dead.sum(), abs(to_numpy(first.bias)[dead]).sum()))

    seen = []
    model = two_layers(
        ks.GroupLasso(1e-6), keras.optimizers.SGD(0.1, momentum=0.9)
    )
    target = ks.TargetDensity(0.5, of="channels", settle=0.6)
    density = train(model, images, target, Look())["density"]
    assert all(density[i] > density[i + 1] for i in range(2))
    for epoch in range(3):
        path = 0.5 + 0.5 * (1 - (epoch + 1) / 6) ** 3
        assert 0.5 <= density[epoch] <= path
    assert [dead for dead, _ in seen][6:] == [seen[-1][0]] * 4
    # The bias has no penalty and is cut all the same.
    assert [rest for _, rest in seen] == [0] * 10


def test_what_nothing_reads_is_dead_once_weights_have_trained():
    model = small()
    cut, v = cut_of(model, None, of="channels")
    kernel = to_numpy(v["fc/kernel"]).copy()
    kernel[[0, 2]] = 1e-6  # what reads two channels of the convolution
    v["fc/kernel"].assign(kernel)
    rows = np.arange(10)[:, None] > 0
    v["head/kernel"].assign(to_numpy(v["head/kernel"]) * rows)
    assert cut.density() == 1
    cut.end_epoch()
    assert cut.density() == (17 - 3) / 17
    cut.begin_epoch(resumed=False)
    dead = ~to_numpy(v["conv/kernel"]).any((0, 1, 2))
    assert dead.tolist() == [True, False, True, False]
    assert ks.shrink(model)[0].get_layer("conv").filters == 2


def test_gammas_that_begin_at_zero_are_not_dead():
    inputs = keras.Input((8, 8, 3))
    x = stream = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.Conv2D(5, 3, padding="same", name="inner")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(gamma_initializer="zeros")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([stream, x]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    cut, _ = cut_of(model, None, of="channels")
    cut.begin_epoch(resumed=False)
    assert cut.density() == 1
    assert to_numpy(model.get_layer("inner").kernel).all()
