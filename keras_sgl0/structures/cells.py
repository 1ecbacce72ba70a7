"""What the cells of recurrent layers do to channels: a unit is a channel.

The columns of a unit in every gate are its members, its row of the recurrent
kernel is what reads it. With all members zero it stays at the zero it starts
from: a candidate of 0 changes no state of 0, whatever the gates are.
"""

import functools

import keras
import numpy as np

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.copying import with_config
from keras_sgl0.network.graph import Node
from keras_sgl0.structures.activations import evaluate, is_elementwise
from keras_sgl0.structures.kernels import is_padded
from keras_sgl0.structures.rules import Values
from keras_sgl0.structures.slices import Rewrite, Slices

_CONV_LSTM = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)
# The number of gates, and which of them is the candidate for the new state.
_GATES = {
    keras.layers.SimpleRNNCell: (1, 0),
    keras.layers.GRUCell: (3, 2),
    keras.layers.LSTMCell: (4, 2),
}


class Cell:
    """What a cell does to channels, step by step.

    Args:
        layer: The recurrent layer that runs it.
        path: Where the layer of the call has the cell: `"cell"`.
        values: Gives the values of a variable.

    Attributes:
        layer: The recurrent layer that runs it.
        units: The number of its units.
        states: The number of its states.
    """

    def __init__(self, layer: keras.layers.RNN, path: str, values: Values):
        self.layer = layer
        self._path = path
        self._values = values
        self._cell = cell = layer.cell
        self._gates, self._candidate = (
            (4, 2) if isinstance(layer, _CONV_LSTM) else _GATES[type(cell)]
        )
        self._size = "units" if hasattr(cell, "units") else "filters"
        self.units = getattr(cell, self._size)
        # An LSTM has its carry beside its output.
        self.states = 2 if self._gates == 4 else 1

    @property
    def is_convolutional(self) -> bool:
        """Whether its kernels are those of convolutions."""
        return isinstance(self.layer, _CONV_LSTM)

    @property
    def refusal(self) -> str:
        """Why nothing of the cell can be cut, empty where it can."""
        if self.layer.stateful:
            return "it is stateful"
        if any(getattr(own, "weights", ()) for own in self._activations()):
            return "its activation has weights"
        if getattr(self._cell, "data_format", "") == "channels_first":
            return "its channels come first"
        return ""

    @property
    def why_units_stay(self) -> str:
        """Why no unit can be cut, empty where it can."""
        if not all(is_elementwise(own) for own in self._activations()):
            return "may mix channels"
        if self._activated(np.zeros(1))[0] != 0:
            return "is not 0 at 0, so that a unit keeps changing"
        return ""

    @functools.cached_property
    def kernel(self) -> np.ndarray:
        """The kernel as `(positions, inputs, gates, units)`."""
        return self._by_gate(self._cell.kernel)

    @functools.cached_property
    def links(self) -> np.ndarray:
        """Which input reaches which gate of which unit."""
        return np.asarray(self.kernel.any(0))

    @functools.cached_property
    def recurrent(self) -> np.ndarray:
        """Which unit reaches which gate of which unit, a step later."""
        return np.asarray(self._by_gate(self._cell.recurrent_kernel).any(0))

    def slices(self, channels: np.ndarray, node: Node) -> list[Slices]:
        """Returns which parts of the variables belong to which channels.

        Args:
            channels: For each unit, its channel of the output.
            node: The call.
        """
        inputs = np.arange(node.inputs[0].channels)
        columns = np.tile(channels, self._gates)
        kernel, recurrent, bias = (
            f"{self._path}.{name}"
            for name in ("kernel", "recurrent_kernel", "bias")
        )
        found = [
            Slices(kernel, -2, inputs, "reader"),
            Slices(kernel, -1, columns, "member"),
            Slices(recurrent, -2, channels, "reader", node.outputs[0]),
            Slices(recurrent, -1, columns, "member"),
        ]
        if self._cell.bias is not None:
            found.append(Slices(bias, -1, columns, "member"))
        return found

    def is_padded(self, shape: tuple[int | None, ...]) -> bool:
        """Returns whether it sees zeros beyond the border of its input.

        Args:
            shape: The shape of the input of the layer.
        """
        own = self.is_convolutional
        return own and is_padded(self._cell, shape[2:-1])

    def constants(self, inputs: np.ndarray, initial: np.ndarray) -> np.ndarray:
        """Returns the constant of every unit, NaN for none.

        Args:
            inputs: The constants of the input channels, NaN for none.
            initial: Which units start from zero.
        """
        if self.why_units_stay:
            return np.full(self.units, np.nan)
        bias, recurrent_bias = self._bias()
        sums = bias + self.folded(~np.isnan(inputs), inputs)
        unknown = self.links[np.isnan(inputs)].any(0) | (recurrent_bias != 0)
        sums = np.where(unknown, np.nan, sums)[self._candidate]
        settled = self._activated(sums)
        zero = self._unread((settled == 0) & initial)
        found = np.where(zero, 0.0, np.nan)
        if self._gates == 1:
            # Others than 0 come to their constant at the first step. The units
            # that read one would see it change then.
            links = self.recurrent[:, 0]
            known = ~np.isnan(settled) & ~links[~zero].any(0)
            known &= ~links[:, ~zero].any(1)
            found = np.where(known, settled, found)
        return found

    def needed(self, live: np.ndarray, changing: np.ndarray) -> np.ndarray:
        """Returns which units the live ones depend on, themselves included.

        Args:
            live: Which units are read and not constant.
            changing: Which units are not constant.
        """
        if self.why_units_stay:
            return np.full(self.units, live.any())
        while True:
            more = live | (self.recurrent[..., live].any((1, 2)) & changing)
            if (more == live).all():
                return live
            live = more

    def reads(self, live: np.ndarray) -> np.ndarray:
        """Returns which inputs some units read.

        Args:
            live: The units.
        """
        return np.asarray(self.links[..., live].any((1, 2)))

    def folded(self, which: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Returns what constant inputs add to each gate of each unit.

        Args:
            which: Which inputs.
            constants: The constants of the inputs, NaN for none.
        """
        which = which & ~np.isnan(constants) & (constants != 0)
        kernel = self.kernel[:, which].sum(0, dtype="float64")
        return np.tensordot(constants[which], kernel, 1)

    def rewrite(
        self, kept_inputs: np.ndarray, kept: np.ndarray, constants: np.ndarray
    ) -> Rewrite:
        """Returns the layer without the units that are cut.

        Args:
            kept_inputs: Which inputs stay.
            kept: Which units stay.
            constants: The constants of the inputs, NaN for none.
        """
        columns = np.tile(kept, self._gates)
        kernel = self._values(self._cell.kernel)
        recurrent = self._values(self._cell.recurrent_kernel)
        weights = {
            "kernel": kernel[..., kept_inputs, :][..., columns],
            "recurrent_kernel": recurrent[..., kept, :][..., columns],
        }
        folded = self.folded(~kept_inputs, constants).reshape(-1)
        has_bias = bool(self._cell.use_bias or folded.any())
        if has_bias:
            both = getattr(self._cell, "reset_after", False)
            own = self._cell.bias
            bias = np.zeros((2, folded.size) if both else folded.size)
            bias = bias if own is None else self._values(own).astype("float64")
            # The first row is the bias of the inputs.
            first = bias[0] if both else bias
            first += folded
            weights["bias"] = bias[..., columns]
        config: dict = {self._size: int(kept.sum()), "use_bias": has_bias}
        if type(self.layer) is keras.layers.RNN:
            config = {"cell": with_config(self._cell, config)}
        named = {f"{self._path}.{name}": w for name, w in weights.items()}
        return Rewrite(config, named)

    def _activations(self):
        names = ("activation", "recurrent_activation")
        return [getattr(self._cell, n) for n in names if hasattr(self._cell, n)]

    def _by_gate(self, variable):
        w = self._values(variable)
        return w.reshape(-1, w.shape[-2], self._gates, self.units)

    def _bias(self):
        """Returns the bias, and what of it a gate of the GRU multiplies."""
        none = np.zeros((self._gates, self.units))
        if self._cell.bias is None:
            return none, none
        bias = self._values(self._cell.bias)
        bias = bias.reshape(-1, self._gates, self.units)
        return bias[0], bias[1] if len(bias) > 1 else none

    def _activated(self, sums):
        dtype = wide_dtype(self._cell)
        return evaluate(self._cell.activation, sums, dtype=dtype)

    def _unread(self, zero):
        """Returns which units stay at 0, as they read no others."""
        links = self.recurrent[:, self._candidate]
        while (changed := zero & links[~zero].any(0)).any():
            zero = zero & ~changed
        return zero


def has_known_cell(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is recurrent and has a cell of Keras.

    Args:
        layer: The layer.
    """
    return isinstance(layer, _CONV_LSTM) or (
        isinstance(layer, keras.layers.RNN) and type(layer.cell) in _GATES
    )
