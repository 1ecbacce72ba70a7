"""The models of `keras.applications`, at the smallest inputs they take."""

import keras
import pytest
from helpers import scramble

import keras_sgl0 as ks

pytestmark = pytest.mark.tensorflow

# The input size and the layers that are kept whole.
MODELS = {
    "VGG16": (32, set()),
    "ResNet50": (32, set()),
    "ResNet50V2": (32, set()),
    "MobileNetV2": (32, set()),
    "MobileNetV3Small": (32, set()),
    "DenseNet121": (32, set()),
    "InceptionV3": (75, set()),
    "Xception": (71, set()),
    "EfficientNetV2B0": (32, set()),
    "ConvNeXtTiny": (32, set()),
    "NASNetMobile": (32, set()),
}
# Their blocks are those of the next version and of the wide residual networks.
LEFT_OUT = ("MobileNetV2", "ResNet50V2")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LEFT_OUT))
        for name in MODELS
    ],
)
def test_the_outputs_stay(name):
    size, whole = MODELS[name]
    model = getattr(keras.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=None,
    )
    scramble(model, dead=0.5, seed=len(name))
    small, report = ks.shrink(model, 0)
    assert report.relative_difference < 1e-5
    assert small.count_params() == report.parameters_after
    assert report.parameters_after < 0.8 * report.parameters
    assert report.macs_after < 0.8 * report.macs
    assert {entry.type for entry in report.whole} == whole
    assert report.kept
