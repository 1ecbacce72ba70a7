"""Which features of the original those of a smaller network are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.structures.discovery import Discovery
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.utils.validation import require


class Feature(NamedTuple):
    """A tensor of a student, and the same of its teacher.

    Args:
        student: The tensor in the student.
        teacher: The tensor in the teacher, with more channels.
        axis: The axis of the channels.
        channels: The channels of the teacher that the student has, in order.
    """

    student: Any
    teacher: Any
    axis: int
    channels: np.ndarray


class Lineage:
    """Follows the features of a model through one cut after the other.

    The channels of a smaller model are some of the original's, so features are
    compared channel by channel, without the projections that networks of other
    shapes need. For each family of structures there is one feature: what the
    last layer that reads the family reads, such as the end of a stage.

    Args:
        found: The structures of the original.

    Attributes:
        teacher: A copy of it, with models in it unfolded.

    Raises:
        ValueError: If no feature can be followed.
    """

    def __init__(self, found: Structures):
        flat = FlatCopy(found.discovery.graph, f"{found.name}_teacher")
        self.teacher = flat.model
        # Copies of the copy have the same names.
        self._names = {
            node.path: flat.layers[node].name for node in flat.layers
        }
        self._features: dict[str, tuple[Any, int]] = {}
        self._channels: dict[str, np.ndarray] = {}
        for node, x in _last_read(found.discovery):
            if node not in flat.shared and x.axis is not None:
                name = flat.layers[node].name
                self._features[name] = flat.made[x], x.axis
                self._channels[name] = np.arange(x.channels)
        require(
            self._features,
            "distill",
            "'outputs' for a model without features that can be compared",
            "features",
        )

    def cut(self, found: Structures, kept: np.ndarray):
        """Notes a cut.

        Args:
            found: The structures of the model that was cut.
            kept: Flags, which structures are kept.
        """
        kept = np.append(kept, True)  # the last one is for -1
        for node in found.discovery.graph.nodes:
            name = self._names.get(node.path, node.path)
            before = self._channels.get(name)
            if before is None or node.calls > 1:
                continue
            own = kept[found.discovery.channels[node.outputs[0]]]
            if len(own) == len(before):
                self._channels[name] = before[own]
            else:  # more went than structures: what was zero before the cut
                del self._channels[name]

    def features(self, student: keras.Model) -> list[Feature]:
        """Returns the features that a model shares with the original.

        Args:
            student: The model after the cuts.
        """
        layers = {layer.name: layer for layer in student.layers}
        return [
            Feature(layers[name].output, tensor, axis, self._channels[name])
            for name, (tensor, axis) in self._features.items()
            if name in layers
            and name in self._channels
            and layers[name].output.shape[axis] == len(self._channels[name])
        ]


def _last_read(found: Discovery) -> Iterator[tuple[Node, Tensor]]:
    """Yields what is read last of each family, and the call it comes from."""
    makers = {
        node.outputs[0]: node
        for node in found.graph.nodes
        if node.calls == 1 and len(node.outputs) == 1
    }
    last: dict[int, Tensor] = {}
    for node in found.graph.nodes:
        if any(own.role == "reader" for own in found.rules[node].slices()):
            own = found.channels[node.inputs[0]]
            for family in np.unique(found.families[own[own >= 0]]).tolist():
                last[family] = node.inputs[0]
    for x in dict.fromkeys(last.values()):
        if x in makers:
            yield makers[x], x
