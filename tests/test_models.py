import keras
import numpy as np
import pytest
from helpers import to_numpy

import keras_sgl0 as ks


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


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"input_shape": (28, 28)}, "input_shape"),
        ({"input_shape": (15, 28, 1)}, "input_shape"),
        ({"input_shape": (None, None, 1)}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_lenet_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.models.LeNet5Caffe(**arguments)


def test_the_whole_message():
    with pytest.raises(ValueError) as caught:
        ks.models.LeNet5Caffe((8, 8, 1))
    assert str(caught.value) == (
        "Invalid value for argument `input_shape`. Expected (height, width, "
        "channels), both sides at least 16. Received: input_shape=(8, 8, 1)"
    )
