"""Where a model keeps the penalties of its kernels."""

import itertools
from collections.abc import Iterator

import keras

from keras_sgl0.network.layer_table import (
    Layout,
    Line,
    all_layers,
    is_cell,
    is_projection,
)
from keras_sgl0.utils.validation import require


def keepers(line: Line) -> Line:
    """Returns the line down to the layer whose config keeps the penalty.

    That is the layer itself, but for the projections of an attention layer
    and the cell of a recurrent one, which are made from the owner's config.

    Args:
        line: A layer and its owners, the model first.
    """
    return line[:-1] if is_projection(line) or is_cell(line) else line


def set_penalty(
    line: Line, layout: Layout, penalty: keras.regularizers.Regularizer
):
    """Puts a penalty on a kernel.

    It is set on the variable, which training reads, and on the layers, which
    saving and cloning read.

    Args:
        line: The layer of the kernel and its owners.
        layout: The kernel.
        penalty: The penalty, with the axis of this kernel.
    """
    layer = line[-1]
    getattr(layer, layout.kernel).regularizer = penalty
    setattr(layer, layout.regularizer, penalty)
    if not is_projection(line):  # a recurrent layer asks its cell
        return
    # Attention layers differ in the name they keep it under.
    for name in ("kernel_regularizer", "_kernel_regularizer"):
        if hasattr(line[-2], name):
            setattr(line[-2], name, penalty)


def with_axis_of(
    penalty: keras.regularizers.Regularizer,
    layout: Layout,
    shape: tuple[int, ...],
    path: str,
) -> keras.regularizers.Regularizer:
    """Returns a copy of a penalty with the group axis that a kernel needs.

    A penalty without groups is returned as it is.

    Args:
        penalty: A penalty whose `axis` may be `-1` or `"auto"`.
        layout: The kernel.
        shape: The kernel's shape.
        path: The name of the kernel's layer, for messages.

    Raises:
        ValueError: If the kernel has no such axis.
    """
    if getattr(penalty, "axis", None) is None:
        return penalty

    def own_axis(axis):
        axis = layout.meant(axis)
        require(
            -len(shape) <= axis < len(shape),
            "penalty",
            f"one whose axis the kernel of `{path}` has, of shape {shape}; or "
            "leave that layer out by `layers`",
            axis,
        )
        return axis

    def adapted(config):
        result = {}
        for name, value in config.items():
            if name == "axis":
                value = own_axis(value)
            elif isinstance(value, dict) and "config" in value:
                value = {**value, "config": adapted(value["config"])}
            result[name] = value
        return result

    return type(penalty).from_config(adapted(penalty.get_config()))


class SavedParts:
    """Which layers are in the configs of their owners."""

    def __init__(self):
        self._found: dict[int, tuple[set[str], keras.layers.Layer | None]] = {}

    def why_lost(self, line: Line) -> str:
        """Returns why what is set on a layer is lost when the model is saved.

        Every owner must have the next one of the line in its config.

        Args:
            line: A layer and its owners, the model first.

        Returns:
            The reason, empty where it is kept.
        """
        for owner, part in itertools.pairwise(line):
            names, without = self._in_config(owner)
            if without is not None and without is not owner:
                return f"cannot be saved: `{without.name}` gives no config"
            if part.name not in names and type(part).__name__ not in names:
                return f"lost when saved: not in the config of `{owner.name}`"
        return ""

    def _in_config(self, owner):
        """Returns the names in a config, and the layer that gives none."""
        if id(owner) not in self._found:
            without = None
            if not config_of(owner):
                # The innermost one, as its owners fail with it.
                every = reversed(all_layers(owner))
                without = next((x for x in every if not config_of(x)), None)
            names = set(_layer_names(config_of(owner)))
            self._found[id(owner)] = names, without
        return self._found[id(owner)]


def config_of(thing) -> dict:
    """Returns the config of a layer or penalty, empty where it gives none.

    Args:
        thing: Anything with `get_config`.
    """
    try:
        return thing.get_config()
    except Exception:  # that of a user's layer may raise anything
        return {}


def describe(penalty: keras.regularizers.Regularizer) -> str:
    """Returns a penalty as one would write it, without its axis.

    Args:
        penalty: A regularizer.
    """
    return _written(type(penalty).__name__, config_of(penalty))


def _written(name: str, config: dict) -> str:
    values = []
    for key, value in config.items():
        if isinstance(value, dict) and "class_name" in value:
            values.append(_written(value["class_name"], value["config"]))
        elif key != "axis":
            number = isinstance(value, float)
            values.append(f"{key}={value:g}" if number else f"{key}={value}")
    return f"{name}({', '.join(values)})"


def _layer_names(config: object) -> Iterator[str]:
    """Yields the names of the layers that are serialized in a config."""
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config and isinstance(inner, dict):
            # Not deeper: whether that layer keeps its own is another question.
            names = (inner.get("name"), config.get("name"))
            yield next(filter(None, names), config["class_name"])
            return
        config = config.values()
    elif not isinstance(config, list | tuple):
        return
    for value in config:
        yield from _layer_names(value)
