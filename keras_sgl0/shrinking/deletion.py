"""Cuts channels out of a model that its weights alone would keep."""

from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_sgl0.network.own_methods import require_no_preprocessing
from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.shrinking.shrink import shrink
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.utils.validation import InputError, invalid, require


def delete_channels(
    model: keras.Model,
    channels: Mapping[str, Iterable[int]],
    verify: bool = True,
    inputs: object = None,
) -> tuple[keras.Model, ShrinkReport]:
    """Returns a model without some channels, and what was cut.

    The smaller model computes what the model would compute if these channels
    were zero: their kernel slices, biases, gammas and betas. What can only be
    cut together goes together: a channel of a residual stream is cut in every
    layer that adds to the stream. Exact zeros elsewhere are cut as well, as
    `shrink(model, tolerance=0)` does it. The model passed in is not changed.

    Args:
        model: A built model of any kind.
        channels: For each layer the output channels to delete, by index. A
            layer in an inner model is named `outer/inner`.
        verify: Whether to compare the outputs of the smaller model with those
            of the model with these channels set to zero.
        inputs: Inputs to compare on, structured as the model wants them;
            `None` for two random examples.

    Returns:
        The smaller model, Functional and not compiled, and a `ShrinkReport`.

    Raises:
        ValueError: If the model is refused by `shrink`, if there is no such
            layer or channel, if a channel cannot be cut (the message says why),
            or if no channel would be left.

    Example:
        >>> small, report = delete_channels(model, {"conv2": [1, 5]})
    """
    require_no_preprocessing(model)
    found = structures(model)
    zeroed = WithZeros(found, _chosen(found, channels)).model
    return shrink(zeroed, tolerance=0, verify=verify, inputs=inputs)


class WithZeros(FlatCopy):
    """A copy of a model in which the members of some structures are zero.

    What `shrink(copy.model, tolerance=0)` leaves is the model without these
    structures.

    Args:
        found: The structures of the model.
        dead: Flags, which are zero.
    """

    def __init__(self, found, dead):
        self._values = {id(v): value for v, value in found.without(dead)}
        super().__init__(found.discovery.graph, found.name)

    def value(self, variable):
        """Returns the value, with zeros for what goes."""
        own = self._values.get(id(variable))
        return super().value(variable) if own is None else own


def _chosen(found: Structures, channels) -> np.ndarray:
    """Returns flags for the structures of the given channels."""
    require(
        isinstance(channels, Mapping) and channels,
        "channels",
        "a dictionary from the name of a layer to the indices of its channels",
        channels,
    )
    tensors = {
        node.path: node.outputs[0] for node in found.discovery.graph.nodes
    }
    fixed = {entry.layer: entry.reason for entry in found.fixed}
    dead = np.zeros(found.size, bool)
    for layer, indices in channels.items():
        require(
            layer in tensors,
            "channels",
            f"names of layers, such as {sorted(tensors)[:3]}",
            layer,
        )
        several = isinstance(indices, Iterable)
        require(several, "channels", f"indices for `{layer}`", indices)
        own = found.discovery.channels[tensors[layer]]
        chosen = np.asarray(list(indices))
        require(
            chosen.ndim == 1
            and (not chosen.size or chosen.dtype.kind in "iu")
            and ((chosen >= 0) & (chosen < len(own))).all(),
            "channels",
            f"indices from 0 to {len(own) - 1} for `{layer}`",
            list(indices),
        )
        chosen = own[chosen.astype(int)]
        if (chosen < 0).any():
            why = fixed.get(layer, "they touch an input or an output")
            raise InputError(
                f"Channels of `{layer}` cannot be cut: {why}. "
                f"Received: channels={{{layer!r}: {list(indices)}}}"
            )
        dead[chosen] = True
    gone = np.bincount(found.families[dead], minlength=len(found.counts))
    for family in np.flatnonzero(gone == found.counts):
        makers = ", ".join(found.made_by(int(family)))
        raise invalid(
            "channels", f"one channel or more to be left in {makers}", channels
        )
    return dead
