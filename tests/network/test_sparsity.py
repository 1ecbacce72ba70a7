import json

import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy, two_layers

import keras_sgl0 as ks


@pytest.fixture
def model():
    """Returns a 12-16-3 network with known zeros.

    First kernel (12, 16): input row 0 dead, unit 5 tiny, one weight at 2e-5;
    second (16, 3): all alive; biases: the second layer's are zero.
    """
    model = two_layers(None)
    rng = np.random.default_rng(0)
    first = rng.uniform(0.1, 1, (12, 16)).astype("float32")
    first[:, 5] = 9e-6
    first[0] = 0
    first[3, 3] = 2e-5
    second = rng.uniform(-1, -0.1, (16, 3)).astype("float32")
    model.set_weights(
        [first, np.ones(16, "float32"), second, np.zeros(3, "float32")]
    )
    return model


def test_weight_sparsity_counts_biases(model):
    zeros = 16 + 12 - 1 + 1 + 3 - 1
    report = ks.sparsity_report(model)
    assert report.parameters == model.count_params() == 259
    assert report.parameters - report.parameters_alive == 16 + 11 + 3
    assert zeros == 30
    assert ks.weight_sparsity(model) == pytest.approx(30 / 259)
    assert report.weight_sparsity_kernels == pytest.approx(27 / 240)


@pytest.mark.parametrize(
    ("axis", "alive"),
    [(None, (11, 16)), ("auto", (11, 16)), (-1, (15, 3)), (0, (11, 16))],
)
def test_neurons(model, axis, alive):
    report = ks.sparsity_report(model, axis=axis)
    assert report.neurons_alive == alive
    total = sum(k.groups for k in report.kernels)
    expected = 1 - sum(alive) / total
    assert ks.neuron_sparsity(model, axis=axis) == pytest.approx(expected)


def test_the_axis_of_the_penalty_is_the_default():
    model = two_layers(ks.SGL0(1.0, axis=-1))
    assert [k.groups for k in ks.sparsity_report(model).kernels] == [16, 3]
    model = two_layers(ks.SGL0(1.0, axis="auto"))
    assert [k.groups for k in ks.sparsity_report(model).kernels] == [12, 16]


@pytest.mark.parametrize(
    ("axis", "last"), [(None, 112), ("auto", 112), (-1, 2)]
)
def test_the_axis_is_the_one_that_the_layer_needs(axis, last):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Conv2DTranspose(5, 3),
            keras.layers.SeparableConv2D(7, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    depthwise = model.layers[0].kernel
    depthwise.assign(to_numpy(depthwise) * [[[[1], [0], [1]]]])
    found = ks.sparsity_report(model, axis=axis).kernels
    assert [k.groups for k in found] == [3, 5, 5, 7, last]
    assert found[0].groups_alive == 2
    ks.regularize(
        model,
        ks.GroupLasso(1.0, axis="auto" if axis is None else axis),
        [layer for layer in model.layers if layer.weights],
    )
    assert ks.sparsity_report(model).kernels == found


def test_zero_tolerance_counts_exact_zeros(model):
    assert ks.sparsity_report(model, 0).neurons_alive == (11, 16)
    assert ks.sparsity_report(model, 0, axis=-1).neurons_alive == (16, 3)
    assert ks.weight_sparsity(model, 0) == pytest.approx((16 + 3) / 259)


def test_a_weight_at_the_tolerance_is_alive(model):
    tolerance = float(np.float32(2e-5))
    assert ks.sparsity_report(model, tolerance).kernels[0].weights_alive == (
        12 * 16 - 16 - 11
    )


def test_apply_threshold_gives_exact_zeros(model):
    before = ks.sparsity_report(model, axis=-1)
    assert ks.apply_threshold(model, axis=-1) is model
    for tolerance in (0, 1e-5):
        after = ks.sparsity_report(model, tolerance, axis=-1)
        assert after.neurons_alive == before.neurons_alive
        assert after.parameters_alive == before.parameters_alive
    kernel = to_numpy(model.layers[0].kernel)
    assert not kernel[:, 5].any()
    assert kernel[3, 3] == np.float32(2e-5)


def test_a_neuron_counted_as_dead_becomes_dead():
    model = two_layers(None)
    weights = model.get_weights()
    weights[0][2] = 0
    weights[0][2, 0] = 1e-4
    model.set_weights(weights)
    assert ks.sparsity_report(model).neurons_alive[0] == 11
    ks.apply_threshold(model)
    assert not to_numpy(model.layers[0].kernel)[2].any()


def test_apply_threshold_twice_changes_nothing(model):
    first = [w.copy() for w in ks.apply_threshold(model, 0.3).get_weights()]
    second = ks.apply_threshold(model, 0.3).get_weights()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_report_as_dict(model):
    content = json.loads(json.dumps(ks.sparsity_report(model).to_dict()))
    assert content["neurons_alive"] == [11, 16]
    assert content["kernels"][0] == {
        "name": model.layers[0].kernel.path,
        "shape": [12, 16],
        "axis": 0,
        "groups": 12,
        "groups_alive": 11,
        "weights": 192,
        "weights_alive": 165,
        "density": 165 / 192,
    }
    assert content["weight_sparsity"] == pytest.approx(30 / 259)


def test_report_as_table(model):
    text = str(ks.sparsity_report(model))
    assert "first/kernel" in text
    for cell in ("12x16", "11 / 12", "165 / 192", "85.94%", "229 / 259"):
        assert cell in text, text
    assert "neuron sparsity 3.57%" in text
    assert max(map(len, text.splitlines())) <= 100


def test_embeddings_and_convolutions_are_kernels():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Embedding(10, 6),
            keras.layers.SeparableConv1D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    report = ks.sparsity_report(model)
    names = [k.name.split("/")[-1] for k in report.kernels]
    assert names == [
        "embeddings",
        "depthwise_kernel",
        "pointwise_kernel",
        "kernel",
    ]
    assert report.parameters == sum(
        int(np.prod(v.shape)) for v in model.trainable_variables
    )


@pytest.mark.parametrize("tolerance", [-1e-9, float("nan"), "small"])
def test_a_bad_tolerance_is_refused(model, tolerance):
    for function in (ks.sparsity_report, ks.apply_threshold):
        with pytest.raises(ValueError, match="argument `tolerance`"):
            function(model, tolerance)


def test_an_axis_out_of_range_is_refused(model):
    with pytest.raises(ValueError, match="argument `axis`"):
        ks.sparsity_report(model, axis=2)


def test_models_without_kernels_are_refused():
    with pytest.raises(ValueError, match="a built model"):
        ks.sparsity_report(keras.Sequential([keras.layers.Dense(3)]))
    flat = keras.Sequential([keras.Input((3, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError) as caught:
        ks.apply_threshold(flat)
    assert str(caught.value).startswith(
        "Invalid value for argument `model`. Expected a model with a trainable "
        "kernel. Received: model="
    )


def test_monitor_writes_what_the_report_says(images, tmp_path):
    model = two_layers(ks.GroupLasso(1e-3, axis="auto"))
    history = model.fit(
        *images,
        epochs=2,
        verbose=0,
        callbacks=[
            ks.SparsityMonitor(tolerance=0.2),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        ],
    ).history
    report = ks.sparsity_report(model, 0.2)
    assert history["weight_sparsity"][-1] == report.weight_sparsity > 0
    assert history["neuron_sparsity"][-1] == report.neuron_sparsity > 0
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {"weight_sparsity", "neuron_sparsity"} <= set(header.split(","))


def test_monitor_counts_by_the_lent_penaltys_axis(images):
    model = two_layers(ks.SGL0(1e-3, axis=-1))
    monitor = ks.SparsityMonitor(0.2)
    splitting = ks.VariableSplitting(0.1)
    for callbacks in ([splitting, monitor], [monitor, splitting]):
        logs = model.fit(*images, verbose=0, callbacks=callbacks).history
        expected = ks.neuron_sparsity(model, 0.2, axis=-1)
        assert logs["neuron_sparsity"] == [expected]


def test_monitor_refuses_bad_arguments():
    with pytest.raises(ValueError, match="argument `tolerance`"):
        ks.SparsityMonitor(tolerance=-1)
    with pytest.raises(ValueError, match="argument `axis`"):
        ks.SparsityMonitor(axis="rows")


class Mixing(keras.layers.Layer):
    """A layer whose grouped weight is not called a kernel."""

    def build(self, shape):
        self.mixing = self.add_weight(
            shape=(shape[-1], 3),
            name="mixing",
            regularizer=ks.SGL0(1e-3, axis=-1),
        )

    def call(self, x):
        return x @ self.mixing


def test_monitor_sees_any_grouped_weight_while_it_is_lent(images):
    model = keras.Sequential([keras.Input((12,)), Mixing()])
    model.compile("sgd", two_layers(None).loss, **QUICK)
    logs = model.fit(
        *images,
        verbose=0,
        callbacks=[ks.VariableSplitting(0.1), ks.SparsityMonitor(0.2)],
    ).history
    assert logs["neuron_sparsity"] == [ks.neuron_sparsity(model, 0.2)]
