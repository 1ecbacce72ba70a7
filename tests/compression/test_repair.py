import keras
import networks
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers
from random_graphs import RandomGraph

import keras_sgl0 as ks
from keras_sgl0.compression import linear, repair
from keras_sgl0.network.probing import outputs
from keras_sgl0.network.running import Walk

RNG = np.random.default_rng(5)


def error(model, small, x):
    expected = to_numpy(model(x))
    return np.abs(to_numpy(small(x)) - expected).max() / np.abs(expected).max()


def test_what_a_cut_loses_nothing_by_is_restored():
    """Of sixteen linear features the smallest four follow from the others."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(16), layers.Dense(3)]
    )
    mixed = 0.2 * np.random.default_rng(0).normal(size=(12, 4))
    kernel = np.concatenate([np.eye(12), mixed], axis=1)
    model.layers[0].kernel.assign(kernel)
    x = RNG.normal(size=(200, 12)).astype("float32")
    for own, low, high in ((None, 0.1, 9), (x, 0, 1e-4)):
        data = None if own is None else (own, None)
        small, _ = ks.prune(model, channels=0.8, repair=data)
        assert low < error(model, small, x) < high


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "strides": 2},
        {"padding": "valid", "dilation_rate": 2},
        {"padding": "same", "use_bias": False},
    ],
)
@pytest.mark.parametrize(
    "kind", ["Conv{}D", "SeparableConv{}D", "Conv{}DTranspose"]
)
@pytest.mark.parametrize("rank", [1, 2])
def test_a_convolution_takes_over_from_a_copy_of_a_filter(rank, kind, options):
    keras.utils.set_random_seed(0)
    conv = getattr(layers, f"Conv{rank}D")
    inputs = keras.Input((9,) * rank + (2,))
    x = conv(6, 3, padding="same", activation="relu", name="first")(inputs)
    conv = getattr(layers, kind.format(rank))
    x = conv(4, 3, activation="tanh", name="second", **options)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    first = model.get_layer("first")
    w, b = (to_numpy(v) for v in first.weights)
    w[..., 3:], b[3:] = 1.01 * w[..., :3], 0.0  # the first three go
    first.set_weights([w, b])
    if kind == "SeparableConv{}D":  # alike for a filter and its copy
        kernel = model.get_layer("second").depthwise_kernel
        w = to_numpy(kernel).copy()
        w[..., 3:, :] = w[..., :3, :]
        kernel.assign(w)
    x = RNG.normal(size=(60, *inputs.shape[1:])).astype("float32")
    options = {
        "channels": 0.75,
        "limits": {"second": 0.0},
        "importance": lambda members: np.arange(len(members[0])),
    }
    cut, _ = ks.prune(model, **options)
    repaired, report = ks.prune(model, **options, repair=(x,), batch_size=25)
    assert report.families[0].structures_after == 3
    assert error(model, cut, x) > 0.1
    assert error(model, repaired, x) < 5e-3


def test_a_layer_behind_a_refit_one_sees_what_that_one_makes():
    """Two cuts, one after the other; the second layer reads the first."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="tanh"),
            layers.Dense(24, activation="tanh"),
            layers.Dense(3),
        ]
    )
    x = RNG.normal(size=(400, 8)).astype("float32")
    cut, _ = ks.prune(model, channels=0.7)
    repaired, _ = ks.prune(model, channels=0.7, repair=(x,))
    assert error(model, repaired, x) < 0.6 * error(model, cut, x)


def test_nothing_changes_where_nothing_is_cut():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6), layers.Dense(3)]
    )
    x = RNG.normal(size=(20, 8)).astype("float32")
    small, _ = ks.prune(model, macs=1.0, repair=(x,))
    for a, b in zip(model.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def residual():
    """Returns a model with a shortcut, and one layer that reads the input."""
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        y = layers.Conv2D(8, 3, padding="same")(y)
        x = layers.ReLU()(layers.Add()([layers.Conv2D(8, 1)(x), y]))
    x = layers.GlobalAveragePooling2D()(x)
    late = layers.Dense(3)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(3)(x) + late)


@pytest.mark.parametrize("most", [0, 1500, 1e9])
def test_the_networks_go_on_where_they_are_if_they_hold_little(
    most, monkeypatch
):
    keras.utils.set_random_seed(0)
    model, x = residual(), RNG.normal(size=(24, 8, 8, 2)).astype("float32")
    calls = []
    make = Walk._make

    def counted(self, call):
        calls.append(call)
        make(self, call)

    def repaired():
        calls.clear()
        found = ks.prune(model, channels=0.5, repair=(x,), batch_size=8)[0]
        return found.get_weights()

    monkeypatch.setattr(Walk, "_make", counted)
    expected = repaired()
    # The two networks and three batches; and those of the comparison.
    assert len(calls) <= 2 * (3 + 1) * len(model.layers)
    least = len(calls)
    monkeypatch.setattr(repair, "_MOST_HELD", most)
    for a, b in zip(expected, repaired(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (len(calls) > least) == (most < 1e9)


def test_normalization_follows_what_is_not_refit():
    """A depthwise convolution keeps its weights, so its outputs change."""
    keras.utils.set_random_seed(0)
    x = RNG.normal(2, 3, size=(64, 6, 6, 3)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(8, 3),
            layers.Conv2D(8, 3, groups=2, name="grouped"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    ks.reestimate_batch_norm(model, (x,), batch_size=64)
    small, _ = ks.prune(model, channels=0.7, repair=(x,), batch_size=64)
    norm = small.get_layer("norm")
    kept = [to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)]
    before = to_numpy(small(x, training=False))
    ks.reestimate_batch_norm(small, (x,), batch_size=64)
    for a, b in zip(
        kept, (norm.moving_mean, norm.moving_variance), strict=True
    ):
        np.testing.assert_allclose(a, to_numpy(b), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        before, to_numpy(small(x, training=True)), rtol=1e-2, atol=1e-3
    )
    # As it was, it is far off.
    cut, _ = ks.prune(model, channels=0.7)
    old = to_numpy(cut.get_layer("norm").moving_variance)
    assert np.abs(old / kept[1] - 1).max() > 0.2


def test_a_network_without_a_layer_to_refit():
    x = inputs = keras.Input((4, 3))
    x = layers.LSTM(6)(x)
    model = keras.Model(inputs, layers.EinsumDense("ab,bc->ac", 2)(x))
    x = RNG.normal(size=(8, 4, 3)).astype("float32")
    expected, _ = ks.prune(model, channels=0.5)
    received, _ = ks.prune(model, channels=0.5, repair=(x,))
    assert received.get_layer("lstm").units < 6
    for a, b in zip(
        expected.get_weights(), received.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_are_repaired(seed):
    graph = RandomGraph(seed, "float32")
    graph.fill()
    found = ks.structures(graph.model)
    if not len(found):
        pytest.skip("nothing can be cut")
    # Half of what can go.
    least = found.cost_of(np.ones_like(found.counts)).channels
    share = (1 + least / found.cost().channels) / 2
    x = [np.concatenate([to_numpy(x)] * 3) for x in graph.inputs]
    options = {"channels": share, "verify": False, "batch_size": 3}
    cut, _ = ks.prune(graph.model, **options)
    repaired, _ = ks.prune(graph.model, **options, repair=(x,))
    expected = outputs(graph.model, x)
    before, after = (
        sum(
            np.square(np.subtract(a, b, dtype="float64")).sum()
            for a, b in zip(expected, outputs(model, x), strict=True)
        )
        for model in (cut, repaired)
    )
    # Not for sure nearer: a layer is fit to what it made, not to the outputs.
    assert after < 3 * before + 1e-6


def normalized(frozen=False):
    norm = layers.BatchNormalization(name="norm", momentum=0.97)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, name="dense"), norm]
    )
    norm.trainable = not frozen
    return model


def test_statistics_are_those_of_the_batches():
    model = normalized()
    x = RNG.normal(size=(100, 5)).astype("float32")
    w, b = model.get_layer("dense").get_weights()
    before = model.get_weights()
    assert ks.reestimate_batch_norm(model, (x,), batch_size=40) is model
    parts = [(x @ w + b)[start : start + 40] for start in (0, 40, 80)]
    shares = [0.4, 0.4, 0.2]
    norm = model.get_layer("norm")
    mean = sum(s * p.mean(0) for s, p in zip(shares, parts, strict=True))
    variance = sum(s * p.var(0) for s, p in zip(shares, parts, strict=True))
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)
    for a, b in zip(before[:4], model.get_weights()[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_statistics_of_a_layer_that_is_called_twice_are_those_of_both():
    pair = [keras.Input((5,)), keras.Input((5,))]
    norm = layers.BatchNormalization(momentum=0.999)
    model = keras.Model(pair, layers.Add()([norm(x) for x in pair]))
    x = [RNG.normal(k, 1 + k, (64, 5)).astype("float32") for k in range(2)]
    ks.reestimate_batch_norm(model, (x,), batch_size=64)
    mean = (x[0].mean(0) + x[1].mean(0)) / 2
    variance = (x[0].var(0) + x[1].var(0)) / 2
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-3)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=2e-3)


def test_frozen_normalization_keeps_its_statistics():
    frozen = layers.BatchNormalization(name="frozen")
    model = keras.Sequential(
        [keras.Input((5,)), frozen, layers.BatchNormalization(name="norm")]
    )
    frozen.trainable = False
    x = 3 + RNG.normal(size=(64, 5)).astype("float32")
    ks.reestimate_batch_norm(model, (x,))
    np.testing.assert_array_equal(frozen.moving_mean, np.zeros(5))
    mean = model.get_layer("norm").moving_mean
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-2)
    with pytest.raises(ValueError, match="that is not frozen"):
        ks.reestimate_batch_norm(normalized(frozen=True), (x,))


def test_refusals():
    model = normalized()
    with pytest.raises(ValueError, match="`data`"):
        ks.reestimate_batch_norm(model, [])
    with pytest.raises(ValueError, match="`data`"):
        ks.reestimate_batch_norm(model, np.ones((3, 5)))
    with pytest.raises(ValueError, match="`batch_size`"):
        ks.reestimate_batch_norm(model, (np.ones((3, 5)),), batch_size=0)
    with pytest.raises(ValueError, match="`repair`"):
        small = keras.Sequential(
            [keras.Input((8,)), layers.Dense(6), layers.Dense(3)]
        )
        ks.prune(small, macs=0.5, repair=[])


def test_a_batch_is_repaired_in_parts_where_it_is_large(monkeypatch):
    model = networks.residual(8, stream=6, inner=8, outputs=5)
    x = np.random.default_rng(0).normal(size=(10, 8, 8, 3)).astype("float32")
    options = {"macs": 0.5, "importance": "obs", "data": (x,), "repair": (x,)}
    whole, _ = ks.prune(model, **options)
    monkeypatch.setattr(linear, "_MOST_NUMBERS", 20_000)
    layer = model.get_layer("inner")
    read = np.zeros((10, *layer.input.shape[1:]))
    assert len(list(linear.parts_of(layer, read))) > 1
    parts, _ = ks.prune(model, **options)
    np.testing.assert_allclose(
        to_numpy(parts(x)), to_numpy(whole(x)), rtol=1e-4, atol=1e-5
    )
