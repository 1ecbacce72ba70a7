"""The papers' networks. Each takes a regularizer and imports none."""

from collections.abc import Callable

import keras

# Registers what files of trained models need.
from keras_sgl0.models import metrics
from keras_sgl0.models.lenet import LeNet5Caffe
from keras_sgl0.models.mlp import MLP
from keras_sgl0.models.mobilenet_v2 import MobileNetV2
from keras_sgl0.models.resnet import ResNet
from keras_sgl0.models.wide_resnet import WideResNet

# By the names that recipes and files have for them.
BY_NAME: dict[str, Callable[..., keras.Model]] = {
    "lenet5_caffe": LeNet5Caffe,
    "mlp": MLP,
    "wide_resnet": WideResNet,
    "resnet": ResNet,
    "mobilenet_v2": MobileNetV2,
}

__all__ = [
    "BY_NAME",
    "MLP",
    "LeNet5Caffe",
    "MobileNetV2",
    "ResNet",
    "WideResNet",
    "metrics",
]
