import keras
import networks
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.compression import brain_surgeon
from keras_sgl0.compression.importance import Sources, scores
from keras_sgl0.compression.linear import mixing_kernel
from keras_sgl0.structures.flat_copy import FlatCopy

RNG = np.random.default_rng(3)


def data(shape=(12,), classes=3, number=20):
    x = RNG.normal(size=(number, *shape)).astype("float32")
    return x, RNG.integers(0, classes, number)


def compiled(model):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    return model


@pytest.fixture(scope="module")
def mlp():
    keras.utils.set_random_seed(0)
    return compiled(networks.mlp())


@pytest.fixture(scope="module")
def residual():
    keras.utils.set_random_seed(1)
    draw = np.random.default_rng(1)  # the same, whichever tests run before
    model = networks.residual(8, stream=6, inner=8, outputs=5)
    for v in model.weights:
        if v.name == "gamma":
            v.assign(draw.uniform(0.5, 1.5, v.shape))
        if v.name == "beta":
            v.assign(draw.normal(size=v.shape))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


def score(model, importance, **options):
    found = ks.structures(model)
    return scores(importance, Sources(model, found, **options))


@pytest.mark.parametrize(("name", "order"), [("l1", 1), ("l2", 2)])
def test_magnitudes(mlp, name, order):
    expected = [
        np.linalg.norm(np.concatenate([w[:, i], b[i : i + 1]]), order)
        for w, b in (layer.get_weights() for layer in mlp.layers[:2])
        for i in range(len(b))
    ]
    np.testing.assert_allclose(score(mlp, name), expected, rtol=1e-5)


def test_scales_of_batch_normalization(residual):
    found = ks.structures(residual)
    gammas = {}
    for entry in found.variables:
        if entry.variable.name == "gamma":
            own = np.abs(to_numpy(entry.variable))
            for s, value in zip(entry.axes[0].structures, own, strict=True):
                gammas[int(s)] = gammas.get(int(s), 0) + value
    expected = [gammas[s] for s in range(found.size)]
    np.testing.assert_allclose(score(residual, "bn_scale"), expected, rtol=1e-5)


def test_geometric_median(mlp):
    expected = []
    for layer in mlp.layers[:2]:
        w = layer.get_weights()[0].T
        expected += [
            sum(np.linalg.norm(a - b) for b in w) for a in w.astype("float64")
        ]
    np.testing.assert_allclose(score(mlp, "fpgm"), expected, rtol=1e-3)


def test_taylor_is_the_derivative_by_what_is_read(residual):
    x, y = data((8, 8, 3), 5)
    found = ks.structures(residual)
    received = score(residual, "taylor", data=(x, y), batch_size=10)
    readers = [e for e in found.variables if e.along("reader")]
    step = 1e-2

    def change(structure, rows):
        """The slope of the loss as all that is read fades."""
        losses = []
        for sign in (1, -1):
            saved = [to_numpy(e.variable) for e in readers]
            for entry, w in zip(readers, saved, strict=True):
                for sliced in entry.along("reader"):
                    own = sliced.structures == structure
                    shape = np.ones(w.ndim, int)
                    shape[sliced.axis] = -1
                    w = w * (1 + sign * step * own.reshape(shape))
                entry.variable.assign(w)
            y_pred = residual(x[rows], training=False)
            loss = residual.compute_loss(x[rows], y[rows], y_pred)
            losses.append(float(to_numpy(loss)))
            for entry, w in zip(readers, saved, strict=True):
                entry.variable.assign(w)
        return (losses[0] - losses[1]) / (2 * step)

    halves = (slice(0, 10), slice(10, 20))
    for structure in range(0, found.size, 3):
        expected = np.mean([change(structure, rows) ** 2 for rows in halves])
        assert received[structure] == pytest.approx(expected, 0.02, 1e-8)


def both_losses(layer, kernel, x, y):
    """The losses that "dcp" differentiates, at a kernel."""

    variable = mixing_kernel(layer)

    def outputs(w):
        saved = layer.get_weights()
        variable.assign(w)
        if layer.use_bias:
            layer.bias.assign(np.zeros(layer.bias.shape))
        activation, layer.activation = layer.activation, lambda z: z
        found = to_numpy(layer(x)).astype("float64")
        layer.activation = activation
        layer.set_weights(saved)
        return found.reshape(len(x), -1, found.shape[-1])

    whole, own = outputs(to_numpy(variable)), outputs(kernel)
    whole, own = whole - whole.mean((0, 1)), own - own.mean((0, 1))
    reconstruction = np.square(whole - own).sum() / np.square(whole).sum()
    whole, own = whole.mean(1), own.mean(1)
    gram = whole.T @ whole
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    theta = np.linalg.solve(gram + ridge, whole.T @ y)
    loss = np.square(y - own @ theta).sum() / np.square(y).sum()
    return (reconstruction + loss) / 2


def mixed():
    """A network with the other kinds of convolutions."""
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=3, activation="relu")(x)
    x = layers.Conv2DTranspose(3, 2, 2, name="inner", activation="relu")(x)
    x = layers.SeparableConv2D(4, 2, depth_multiplier=2, name="outer")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


@pytest.mark.parametrize("kind", ["classes", "numbers", "mixed"])
def test_dcp_is_the_gradient_of_both_losses_at_zero(residual, kind):
    x, labels = data((8, 8, 3), 5)
    y = RNG.normal(size=(20, 2)) if kind == "numbers" else np.eye(5)[labels]
    model = mixed() if kind == "mixed" else residual
    found = ks.structures(model)
    given = (x, y if kind == "numbers" else labels)
    received = score(model, "dcp", data=given, batch_size=8)
    y = y - y.mean(0)
    expected = np.zeros(found.size)
    for name in ("inner", "outer", "head"):
        layer = model.get_layer(name)
        reads = keras.Model(model.inputs, layer.input)(x)
        variable = mixing_kernel(layer)
        (entry,) = (e for e in found.variables if e.variable is variable)
        (sliced,) = entry.along("reader")
        for place in np.ndindex(*variable.shape):
            ends = []
            for sign in (1, -1):
                kernel = np.zeros(variable.shape, "float32")
                kernel[place] = sign
                ends.append(both_losses(layer, kernel, reads, y))
            slope = (ends[0] - ends[1]) / 2  # exact for a parabola
            expected[sliced.structures[place[sliced.axis]]] += slope**2
    np.testing.assert_allclose(received, np.sqrt(expected), rtol=1e-3)


def test_dcp_prefers_what_tells_classes_apart():
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 400)
    x = draw.normal(size=(400, 6)).astype("float32")
    x[:, 2] += 3 * y  # the one input that knows the class
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6), layers.Dense(2)]
    )
    model.layers[0].set_weights([np.eye(6), np.zeros(6)])
    model.layers[1].set_weights([np.full((6, 2), [0.1, -0.1]), np.zeros(2)])
    found = score(model, "dcp", data=(x, y))
    assert found.argmax() == 2 and found[2] > 2 * np.delete(found, 2).max()


def test_dcp_refuses(mlp):
    x, _ = data()
    with pytest.raises(ValueError, match=r"`data`\. Expected labels, which"):
        score(mlp, "dcp", data=(x,))
    with pytest.raises(ValueError, match="one vector an example"):
        score(mlp, "dcp", data=(x, np.zeros((20, 2, 2))))
    model = keras.Sequential(
        [
            keras.Input((6, 2)),
            layers.Conv1D(4, 3, name="one"),
            layers.LSTM(2),
        ]
    )
    with pytest.raises(ValueError, match="no dense layer or convolution: one"):
        score(model, "dcp", data=(np.zeros((9, 6, 2)), np.zeros((9, 1))))


def rows_of(layer, x):
    """What each position is computed from, centered, a kernel row a column."""
    variable, saved = mixing_kernel(layer), layer.get_weights()
    activation, layer.activation = layer.activation, lambda z: z
    transposed = isinstance(layer, layers.Conv2DTranspose)
    places = np.moveaxis(np.empty(variable.shape), -1, -2 if transposed else -1)
    found, bias = [], layer.bias
    if bias is not None:
        bias.assign(np.zeros(bias.shape))
    for place in np.ndindex(*places.shape[:-1]):
        kernel = np.zeros(places.shape, "float32")
        kernel[(*place, 0)] = 1
        variable.assign(np.moveaxis(kernel, -1, -2) if transposed else kernel)
        found.append(to_numpy(layer(x))[..., 0].ravel().astype("float64"))
    layer.set_weights(saved)
    layer.activation = activation
    rows = np.stack(found, axis=1)
    return rows - rows.mean(0)


def loss_without(gone, readers):
    """What readers lose without structures if the other rows are refit."""
    total = 0.0
    for gram, ridged, weights, owners in readers:
        rows, rest = np.isin(owners, gone), ~np.isin(owners, gone)
        inner = ridged[rows][:, rest]
        left = np.linalg.solve(ridged[rest][:, rest], inner.T)
        product = (ridged[rows][:, rows] - inner @ left) @ weights[rows]
        total += (weights[rows] * product).sum() / (
            weights * (gram @ weights)
        ).sum()
    return total


@pytest.mark.parametrize("kind", ["residual", "mixed"])
def test_obs_is_what_readers_lose_one_structure_after_the_other(residual, kind):
    model = mixed() if kind == "mixed" else residual
    x, _ = data((8, 8, 3), 5)
    found = ks.structures(model)
    received = score(model, "obs", data=(x,), batch_size=8)
    readers = []
    for name in ("inner", "outer", "head"):
        layer = model.get_layer(name)
        rows = rows_of(layer, keras.Model(model.inputs, layer.input)(x))
        gram = rows.T @ rows
        ridge = 1e-3 * np.trace(gram) / len(gram)
        variable = mixing_kernel(layer)
        (entry,) = (e for e in found.variables if e.variable is variable)
        (sliced,) = entry.along("reader")
        others = [i for i in range(len(variable.shape)) if i != sliced.axis]
        owners = np.expand_dims(sliced.structures, others)
        weights = to_numpy(variable).astype("float64")
        owners = np.broadcast_to(owners, weights.shape)
        if isinstance(layer, layers.Conv2DTranspose):
            owners, weights = owners.swapaxes(-1, -2), weights.swapaxes(-1, -2)
        columns = weights.shape[-1]
        readers.append(
            (
                gram,
                gram + ridge * np.eye(len(gram)),
                weights.reshape(-1, columns),
                owners.reshape(-1, columns)[:, 0],
            )
        )
    for family in range(len(found.counts)):
        own = np.flatnonzero(found.families == family)
        order = own[np.argsort(received[own])]
        for k in range(len(order)):
            gone, rest = order[: k + 1], order[k:]
            expected = loss_without(gone, readers)
            assert received[order[k]] == pytest.approx(expected, rel=1e-4)
            first = gone[:-1]
            all_next = [loss_without([*first, s], readers) for s in rest]
            assert min(all_next) == pytest.approx(expected, rel=1e-4)


def test_obs_keeps_one_of_two_twins():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), layers.Dense(3)]
    )
    first = np.eye(4, 5)
    first[:, 4] = first[:, 1]  # the same as the second channel
    model.layers[0].set_weights([first, np.zeros(5)])
    model.layers[1].set_weights([np.ones((5, 3)), np.zeros(3)])
    found = score(model, "obs", data=(x,))
    assert min(found[[1, 4]]) < 1e-3
    # The other one now does the work of both.
    assert found.argmax() in (1, 4)
    twins, _ = ks.prune(
        model, channels=0.9, importance="obs", data=(x,), repair=(x,)
    )
    np.testing.assert_allclose(
        to_numpy(twins(x)), to_numpy(model(x)), atol=1e-3
    )


@pytest.mark.parametrize("limit", ["_STEPS", "_MOST_ROWS"])
def test_obs_of_large_layers_is_an_estimate_from_above(
    residual, monkeypatch, limit
):
    x, _ = data((8, 8, 3), 5)
    exact = score(residual, "obs", data=(x,))
    monkeypatch.setattr(brain_surgeon, limit, 3)
    found = score(residual, "obs", data=(x,))
    families = ks.structures(residual).families
    for family in np.unique(families):
        last = exact[families == family].max()
        own = found[families == family]
        assert len(np.unique(own)) == len(own)
        assert last * 0.99 <= own.max() <= 3 * last


def test_obs_without_readers_is_the_share_of_the_weights():
    model = keras.Sequential(
        [keras.Input((6, 2)), layers.Conv1D(3, 1, name="one"), layers.LSTM(2)]
    )
    kernel = np.zeros((1, 2, 3))
    kernel[0, 0] = [3, 1, -2]
    model.layers[0].set_weights([kernel, np.zeros(3)])
    found = score(model, "obs", data=(np.ones((9, 6, 2), "float32"),))
    own = ks.structures(model).families == 0
    np.testing.assert_allclose(found[own], [14 / 14, 1 / 14, 5 / 14])


def test_zeros_of_what_is_read(mlp):
    x, _ = data()
    hidden = np.maximum(x @ mlp.layers[0].kernel + mlp.layers[0].bias, 0)
    received = score(mlp, "apoz", data=(x, None), batch_size=7)
    expected = (to_numpy(hidden) > 0).mean(0)
    np.testing.assert_allclose(received[:16], expected, atol=1e-6)
    np.testing.assert_allclose(received[16:], 1)  # tanh is never zero


def test_zeros_of_a_map_are_counted_where_it_is_read(residual):
    x, _ = data((8, 8, 3))
    found = ks.structures(residual)
    received = score(residual, "apoz", data=(x, None))
    flat = FlatCopy(found.discovery.graph, "copy")
    nodes = {node.path: node for node in found.discovery.graph.nodes}
    maps = nodes["outer"].inputs[0]
    view = keras.Model(flat.model.inputs, flat.made[maps])
    expected = (to_numpy(view(x)) != 0).mean((0, 1, 2))
    own = found.discovery.channels[maps]
    np.testing.assert_allclose(received[own], expected, rtol=1e-6)
    assert expected.min() < 1


def test_random_scores_follow_the_seed(mlp):
    one, same = (score(mlp, "random", seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert (one != score(mlp, "random", seed=5)).any()


def test_a_function_gets_the_members_of_a_family(mlp):
    shapes = []

    def largest(members):
        shapes.append([rows.shape for rows in members])
        return np.max(np.concatenate(members, axis=1), axis=1)

    received = score(mlp, largest)
    assert shapes == [[(16, 12), (16, 1)], [(9, 16), (9, 1)]]
    w, b = mlp.layers[1].get_weights()
    np.testing.assert_allclose(received[16:], np.maximum(w.max(0), b))


@pytest.mark.parametrize("importance", ["l1", "taylor", "apoz"])
def test_data_of_every_kind_give_the_same(mlp, importance):
    x, y = data()

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[5 * i : 5 * i + 5], y[5 * i : 5 * i + 5]

    given = [(x, y), Batches(), [Batches()[i] for i in range(4)]]
    one, *others = (score(mlp, importance, data=d, batch_size=5) for d in given)
    for other in others:
        np.testing.assert_allclose(one, other, rtol=1e-5)


def two_inputs():
    """Returns a model with inputs whose names are not in their order."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((1,), name="width"), keras.Input((1,), name="age")]
    h = [layers.Dense(6, activation="relu")(x) for x in inputs]
    y = layers.Dense(2)(layers.Concatenate()(h))
    model = keras.Model(inputs, y)
    model.compile(loss="mse")
    return model


@pytest.mark.parametrize("importance", ["taylor", "apoz", "dcp", "obs"])
def test_inputs_may_be_given_in_every_way_of_fit(importance):
    rng = np.random.default_rng(0)
    a, b = rng.normal([[[0]], [[2]]], size=(2, 20, 1)).astype("float32")
    y = rng.normal(size=(20, 2)).astype("float32")
    model = two_inputs()
    expected = score(model, importance, data=([a, b], y))
    for x in (
        {"width": a, "age": b},
        [a[:, 0], b[:, 0]],
        {"age": b[..., None], "width": a[:, 0]},
    ):
        model(keras.tree.map_structure(ops.convert_to_tensor, x))
        received = score(model, importance, data=(x, y))
        np.testing.assert_allclose(received, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ({"width": np.ones((4, 1))}, r"inputs that are named \['width', 'age'"),
        ([np.ones((4, 1))], r"inputs of the shapes \[\(None, 1\), \(None, 1\)"),
        ([np.ones((4, 1)), np.ones((4, 2))], "inputs of the shapes"),
        ([np.ones((4, 1)), np.ones((4, 1, 2))], "inputs of the shapes"),
    ],
)
def test_inputs_that_do_not_fit(x, words):
    with pytest.raises(ValueError, match=f"`data`.*{words}"):
        score(two_inputs(), "apoz", data=(x, np.ones((4, 2))))


def test_the_least_important_go(mlp):
    importance = score(mlp, "l2")[:16]
    small, report = ks.prune(
        mlp, channels=0.68, limits={"second": 0.0}, importance="l2"
    )
    keep = np.sort(np.argsort(importance)[-7:])
    w, b = mlp.layers[0].get_weights()
    np.testing.assert_array_equal(small.layers[1].kernel, w[:, keep])
    np.testing.assert_array_equal(small.layers[1].bias, b[keep])
    assert [f.structures_after for f in report.families] == [7, 9]


@pytest.mark.parametrize("measure", ["macs", "parameters", "channels"])
@pytest.mark.parametrize("scope", ["family", "global", "cost"])
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_budgets_are_met(residual, measure, scope, share):
    small, report = ks.prune(residual, **{measure: share}, scope=scope)
    before, after = (ks.structures(m).cost() for m in (residual, small))
    left = after.of(measure) / before.of(measure)
    assert share * 0.8 < left <= share  # so small a network is coarse
    assert report.shrunk.relative_difference < 1e-5
    assert report.macs_after == after.macs
    assert report.parameters_after == after.parameters
    if measure == "parameters":
        assert small.count_params() <= share * residual.count_params()


@pytest.mark.parametrize("network", ["ResNet", "MobileNetV2", "WideResNet"])
def test_networks_meet_half_of_their_work_within_one_percent(network):
    options = {"depth": 16, "width": 1} if network == "WideResNet" else {}
    model = getattr(ks.models, network)(**options)
    small, report = ks.prune(model, macs=0.5, importance="random")
    assert 0.495 <= report.macs_after / report.macs <= 0.5
    assert report.shrunk.relative_difference < 1e-5
    assert ks.count_macs(small).macs == report.macs_after


def test_what_is_cheap_is_spared_by_its_cost():
    """All weights alike: what saves most goes first."""
    model = keras.Sequential(
        [
            keras.Input((9, 9, 1)),
            layers.Conv2D(8, 3, name="dear"),
            layers.Flatten(),
            layers.Dense(8, name="cheap"),
            layers.Dense(2),
        ]
    )
    options = {"macs": 0.6, "importance": lambda m: np.ones(len(m[0]))}
    _, report = ks.prune(model, scope="cost", **options)
    dear, cheap = (f.structures_after for f in report.families)
    assert dear < 8 and cheap == 8


def test_nothing_goes_for_the_whole_budget(residual):
    small, report = ks.prune(residual, macs=1.0)
    assert small.count_params() == residual.count_params()
    assert report.macs == report.macs_after


def test_frozen_layers_are_cut_and_stay_frozen():
    model = networks.mlp()
    model.get_layer("first").trainable = False
    small, report = ks.prune(model, parameters=0.5)
    first = report.families[0]
    assert first.structures_after < first.structures
    assert not small.get_layer("first").trainable


def test_in_steps_with_fit_between(mlp):
    model, x, y = mlp, *data()
    for share in (0.8, 0.8):
        model, _ = ks.prune(model, macs=share)
        compiled(model).fit(x, y, verbose=0)
    assert ks.count_macs(model).macs <= 0.64 * ks.count_macs(mlp).macs


def test_multiples_minimum_and_limits(residual):
    _, report = ks.prune(residual, macs=0.6, round_to=2)
    assert all(f.structures_after % 2 == 0 for f in report.families)
    _, report = ks.prune(residual, macs=0.35, minimum=3, scope="global")
    assert min(f.structures_after for f in report.families) >= 3
    _, report = ks.prune(residual, macs=0.75, limits=0.25)
    assert all(
        f.structures_after >= 0.75 * f.structures for f in report.families
    )
    _, report = ks.prune(residual, macs=0.6, limits={"stem": 0.0})
    stem = next(f for f in report.families if "stem" in f.made_by)
    assert stem.structures_after == stem.structures


def test_an_inner_model():
    inner = networks.residual(8, stream=6, inner=8, outputs=5)
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    small, report = ks.prune(model, macs=0.5)
    assert report.shrunk.relative_difference < 1e-5
    x = ops.ones((1, 8, 8, 3))
    assert small(x).shape == (1, 2)


class Scaled(layers.Layer):
    """A block with a layer and a weight of its own."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)
        self.scale = self.add_weight((self.dense.units,), name="scale")

    def call(self, x):
        return ops.relu(self.dense(x) * self.scale)


def test_a_block_with_a_weight_of_its_own_is_cut_again_and_again():
    parts = [keras.Input((8,)), Scaled(32), Scaled(32), layers.Dense(3)]
    model = keras.Sequential(parts)
    for _ in range(2):
        before = ks.count_macs(model).macs
        model, _ = ks.prune(model, macs=0.5, importance="l2")
        assert 0.4 * before < ks.count_macs(model).macs <= 0.5 * before


class Exactly(keras.initializers.Initializer):
    """Values for one shape alone."""

    def __call__(self, shape, dtype=None):
        return ops.reshape(ops.arange(64, dtype=dtype), shape)


def test_a_layer_that_cannot_be_made_smaller_after_all():
    exact = layers.Dense(8, kernel_initializer=Exactly(), name="exact")
    model = keras.Sequential([keras.Input((8,)), exact, layers.Dense(2)])
    words = "cut to 40, as .* of which 80 are left; `exact`: it cannot be made"
    with pytest.raises(ValueError, match=words):
        ks.prune(model, macs=0.5, importance="l2")


def test_the_report(residual):
    _, report = ks.prune(residual, macs=0.5, importance="l1")
    text = str(report)
    assert "stem" in text and "By l1: " in text and " multiply-adds (" in text
    values = report.to_dict()
    assert values["families"][0]["structures"] == 6
    assert values["shrunk"]["macs_after"] == report.macs_after


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one budget of `macs`, `parameters`, `channels`"),
        ({"macs": 0.5, "channels": 0.5}, "exactly one budget"),
        ({"macs": 0.0}, "`macs`"),
        ({"macs": 1.5}, "`macs`"),
        ({"macs": 0.01}, "`macs`. Expected at least .*the share of the macs"),
        ({"macs": 0.5, "importance": "l3"}, "`importance`"),
        ({"macs": 0.5, "importance": "taylor"}, "`data`"),
        ({"macs": 0.5, "importance": "apoz"}, "`data`"),
        ({"macs": 0.5, "importance": "apoz", "data": []}, "`data`"),
        ({"macs": 0.5, "importance": "bn_scale"}, "has no normalization"),
        ({"macs": 0.5, "importance": lambda m: np.ones(3)}, "`importance`"),
        ({"macs": 0.5, "importance": lambda m: m[0][:, 0] / 0}, "not finite"),
        ({"macs": 0.5, "scope": "layer"}, "`scope`"),
        ({"macs": 0.5, "limits": 2.0}, "`limits`"),
        ({"macs": 0.5, "limits": {"third": 0.5}}, "`limits`"),
        ({"macs": 0.5, "limits": {"first": -1}}, "limits"),
        ({"macs": 0.5, "limits": {"last": 0.5}}, "`limits`"),
        ({"macs": 0.5, "limits": 0.0}, "`macs`. Expected at least 1.0"),
        ({"macs": 0.5, "minimum": 0}, "`minimum`"),
        ({"macs": 0.5, "round_to": 0}, "`round_to`"),
        ({"macs": 0.5, "batch_size": 0}, "`batch_size`"),
        ({"macs": 0.5, "seed": -1}, "`seed`"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_refusals(mlp, options, words):
    with pytest.raises(ValueError, match=words):
        ks.prune(mlp, **options)


def test_models_that_cannot_be_pruned():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="channels that can be cut"):
        ks.prune(model, macs=0.5)
    with pytest.raises(ValueError, match=r"`macs`.*no known sizes"):
        model = keras.Sequential(
            [
                keras.Input((None, None, 3)),
                layers.Conv2D(4, 3),
                layers.Conv2D(2, 3),
            ]
        )
        ks.prune(model, macs=0.5)
    with pytest.raises(ValueError, match="a compiled model"):
        ks.prune(networks.mlp(), macs=0.5, importance="taylor", data=data())
