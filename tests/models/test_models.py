import keras
import numpy as np
import pytest
from helpers import to_numpy

import keras_sgl0 as ks

BUILDERS = {"lenet": ks.models.LeNet5Caffe, "mlp": ks.models.MLP}


@pytest.mark.parametrize(("axis", "neurons"), [("auto", 1370), (-1, 580)])
def test_lenet_has_the_papers_size(axis, neurons):
    model = ks.models.LeNet5Caffe(kernel_regularizer=ks.SGL0(1.0, axis=axis))
    report = ks.sparsity_report(model)
    assert model.count_params() == report.parameters == 431_080
    assert report.kernel_weights == 430_500
    assert report.neurons == neurons
    assert [k.shape for k in report.kernels] == [
        (5, 5, 1, 20),
        (5, 5, 20, 50),
        (800, 500),
        (500, 10),
    ]


def test_lenet_has_the_authors_initialisation():
    keras.utils.set_random_seed(0)
    model = ks.models.LeNet5Caffe()
    for name, fan_in in (("conv2", 500), ("fc1", 800), ("fc2", 500)):
        kernel = to_numpy(model.get_layer(name).kernel)
        deviation = (2 / fan_in) ** 0.5
        assert kernel.std() == pytest.approx(deviation, rel=0.03)
        # A truncated normal would end at 2.27 standard deviations.
        assert abs(kernel).max() > 3 * deviation
    bias = to_numpy(model.get_layer("fc1").bias)
    assert bias.std() == pytest.approx(0.01, rel=0.1)
    first = to_numpy(model.get_layer("conv2").kernel).ravel()[:500]
    second = to_numpy(model.get_layer("fc1").kernel).ravel()[:500]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_lenet_gives_logits_for_other_sizes():
    model = ks.models.LeNet5Caffe((32, 24, 3), 7)
    outputs = to_numpy(model(np.ones((2, 32, 24, 3), "float32")))
    assert outputs.shape == (2, 7)
    assert (outputs < 0).any()


def test_lenet_drops_what_its_dense_layers_read():
    model = ks.models.LeNet5Caffe(dropout=0.4)
    names = [layer.name for layer in model.layers]
    for name in ("fc1", "fc2"):
        before = model.layers[names.index(name) - 1]
        assert isinstance(before, keras.layers.Dropout)
        assert before.rate == 0.4
    assert model.count_params() == 431_080
    without = ks.models.LeNet5Caffe(dropout=0)
    assert len(without.layers) == len(names) - 2


@pytest.mark.parametrize(
    ("dense_fan", "variances"),
    [
        ("fan_in", (2 / 25, 2 / 500, 2 / 800, 2 / 500)),
        ("fan_out", (2 / 25, 2 / 500, 2 / 500, 2 / 10)),
    ],
)
def test_how_large_lenets_weights_start(dense_fan, variances):
    model = ks.models.LeNet5Caffe(dense_fan=dense_fan)
    found = [np.var(to_numpy(w)) for w in model.weights if "kernel" in w.path]
    np.testing.assert_allclose(found, variances, rtol=0.2)


def test_lenet_may_be_narrow():
    model = ks.models.LeNet5Caffe(widths=[4, 12, 383])
    assert ks.count_macs(model).macs == 211_766
    assert model.count_params() == 79_075


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": (28, 28)}, "input_shape"),
        ({"input_shape": (15, 28, 1)}, "input_shape"),
        ({"input_shape": (None, None, 1)}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1}, "dropout"),
        ({"dropout": "0.5"}, "dropout"),
        ({"dense_fan": "in"}, "dense_fan"),
        ({"widths": (4, 12)}, "widths"),
        ({"widths": (4, 12, 50, 9)}, "widths"),
    ],
)
def test_lenet_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.models.LeNet5Caffe(**arguments)


@pytest.mark.parametrize(("axis", "neurons"), [("auto", 1184), (-1, 410)])
def test_mlp_has_the_papers_size(axis, neurons):
    model = ks.models.MLP(kernel_regularizer=ks.SGL0(1.0, axis=axis))
    report = ks.sparsity_report(model)
    assert model.count_params() == report.parameters == 266_610
    assert report.kernel_weights == 266_200
    assert report.neurons == neurons
    assert [k.shape for k in report.kernels] == [
        (784, 300),
        (300, 100),
        (100, 10),
    ]


@pytest.mark.parametrize(
    ("widths", "shapes"),
    [
        ((), [(6, 4)]),
        ([7], [(6, 7), (7, 4)]),
        ((5, 5), [(6, 5), (5, 5), (5, 4)]),
    ],
)
def test_mlp_has_any_widths(widths, shapes):
    model = ks.models.MLP((3, 2), 4, widths=widths)
    kernels = [w for w in model.weights if w.name == "kernel"]
    assert [tuple(w.shape) for w in kernels] == shapes
    assert [w.path.split("/")[0] for w in kernels] == [
        f"fc{i + 1}" for i in range(len(shapes))
    ]
    outputs = to_numpy(model(np.ones((2, 3, 2), "float32")))
    assert outputs.shape == (2, 4)
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": ()}, "input_shape"),
        ({"input_shape": 784}, "input_shape"),
        ({"input_shape": (None,)}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"widths": 300}, "widths"),
        ({"widths": (300, 0)}, "widths"),
        ({"widths": (300.0,)}, "widths"),
    ],
)
def test_mlp_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.models.MLP(**arguments)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("lenet", {"conv1": 26, "conv2": 501, "fc1": 500, "fc2": 10}),
        ("mlp", {"fc1": 300, "fc2": 100, "fc3": 10}),
    ],
)
def test_the_gate_function_gets_layers_and_group_sizes(name, sizes):
    asked = {}

    def gate(layer, group_size):
        asked[layer] = group_size
        return None if layer == "fc1" else ks.HardConcrete(name=f"z_{layer}")

    model = BUILDERS[name](gate=gate)
    assert asked == sizes
    found = [layer.name for layer in model.layers if layer.name[:2] == "z_"]
    assert found == [f"z_{layer}" for layer in sizes if layer != "fc1"]


@pytest.mark.parametrize("name", BUILDERS)
def test_what_is_behind_gates_starts_larger(name):
    rates = {"conv1": 0.2, "conv2": 0.5, "fc1": 0.2, "fc2": 0.5, "fc3": 0.75}

    def gate(layer, group_size):
        return ks.HardConcrete(rates[layer])

    def weights(**arguments):
        keras.utils.set_random_seed(0)
        model = BUILDERS[name](**arguments)
        return {w.path: to_numpy(w) for w in model.weights}

    plain, gated = weights(), weights(gate=gate)
    for path, before in plain.items():
        layer, kind = path.split("/")
        behind = kind == "kernel" or layer.startswith("conv")
        scale = 1 / (1 - rates[layer]) if behind else 1
        # The mean square has a relative standard error of sqrt(2 / size).
        ratio = (gated[path] ** 2).mean() / (before**2).mean()
        error = 6 * (2 / before.size) ** 0.5
        assert np.log(ratio / scale**2) == pytest.approx(0, abs=2 * error)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.models.LeNet5Caffe((8, 8, 1))
    assert str(caught.value) == (
        "Invalid value for argument `input_shape`. Expected (height, width, "
        "channels), both sides at least 16. Received: input_shape=(8, 8, 1)"
    )
