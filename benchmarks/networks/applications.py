"""The networks of Keras and of this package."""

import functools

import keras

import keras_sgl0 as ks
from networks.common import NETWORKS


def _application(name):
    size = 64 if name.startswith(("VGG", "ResNet", "Mobile")) else 96
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3))


_NAMES = [name for name in dir(keras.applications) if name[0].isupper()]
for _name in _NAMES:
    NETWORKS[_name] = functools.partial(_application, _name)

NETWORKS |= {
    "LeNet5Caffe": ks.models.LeNet5Caffe,
    "LeNet300100": ks.models.MLP,
    "WideResNet28_10": functools.partial(
        ks.models.WideResNet, (32, 32, 3), 10, depth=28, width=10
    ),
    "WideResNet16_1": functools.partial(
        ks.models.WideResNet, (32, 32, 3), 10, depth=16, width=1
    ),
    "ResNet20": functools.partial(ks.models.ResNet, (32, 32, 3), 10),
    "MobileNetV2_cifar": functools.partial(
        ks.models.MobileNetV2, (32, 32, 3), 10
    ),
}
