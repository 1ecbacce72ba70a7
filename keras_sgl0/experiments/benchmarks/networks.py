"""Networks to measure, and what makes half of their channels dead."""

import inspect
import re
from collections.abc import Callable

import keras
import numpy as np

from keras_sgl0 import models
from keras_sgl0.regularizers import Penalty
from keras_sgl0.structures.families import structures
from keras_sgl0.structures.selection import random_half
from keras_sgl0.utils.validation import invalid, require

# Two kinds, by width and by depth.
NETWORKS = (
    *(f"WRN-16-{width}" for width in (1, 2, 4, 8, 16)),
    *(f"WRN-28-{width}" for width in (1, 2, 4, 10)),
    *(f"ResNet-{depth}" for depth in (20, 32, 56, 110)),
)


def network(
    name: str, depth: int | None = None, width: float | None = None
) -> Callable[[Penalty | None], keras.Model]:
    """Returns what builds a network with a penalty.

    Args:
        name: A name in `models.BY_NAME`.
        depth: Its number of layers. Default: that of the network.
        width: The multiplier of its channels. Default: that of the network.

    Raises:
        ValueError: If the network has no such argument.
    """
    builder = models.BY_NAME[name]
    known = inspect.signature(builder).parameters
    size = {"depth": depth, "width": width}
    size = {k: value for k, value in size.items() if value is not None}
    for argument, value in size.items():
        require(argument in known, argument, f"none, as {name} has none", value)
    return lambda penalty: builder(kernel_regularizer=penalty, **size)


def by_title(title: str) -> keras.Model:
    """Returns a network by the name that papers call it.

    Args:
        title: `"WRN-16-4"` or `"ResNet-56"`, which take CIFAR-10's images, a
            name in `models.BY_NAME`, or one in `keras.applications`, such as
            `"ResNet152"`, without weights.

    Raises:
        ValueError: If there is no such network.

    Example:
        >>> by_title("WRN-28-10").count_params()
        36,497,146
    """
    if match := re.fullmatch(r"WRN-(\d+)-(\d+)", title):
        depth, width = map(int, match.groups())
        return models.WideResNet(depth=depth, width=width)
    if match := re.fullmatch(r"ResNet-(\d+)", title):
        return models.ResNet(depth=int(match[1]))
    if title in models.BY_NAME:
        return models.BY_NAME[title]()
    builder = getattr(keras.applications, title, None)
    expected = (
        "WRN-16-4, ResNet-56, one of "
        f"{', '.join(models.BY_NAME)} or a name in keras.applications"
    )
    if not callable(builder):
        raise invalid("title", expected, title)
    return builder(weights=None)


def kill_half(model: keras.Model, seed: int = 0) -> None:
    """Sets half of the structures of each family to zero.

    Args:
        model: A built model.
        seed: Of the draw.
    """
    found = structures(model)
    found.zero(random_half(found, np.random.default_rng(seed)))
