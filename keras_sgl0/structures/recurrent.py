"""The rules of the layers that run cells over steps, in one or both ways."""

import functools
import itertools

import keras
import numpy as np

from keras_sgl0.network.copying import with_config
from keras_sgl0.structures.cells import Cell, has_known_cell
from keras_sgl0.structures.registry import find, rule
from keras_sgl0.structures.rules import Rule
from keras_sgl0.structures.slices import Rewrite


@rule(
    keras.layers.SimpleRNN,
    keras.layers.GRU,
    keras.layers.LSTM,
    keras.layers.RNN,
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)
class Recurrent(Rule):
    """A layer that runs a cell over the steps.

    A unit goes with its states, those it starts from and those it ends in.
    """

    cuts = True
    takes_mask = True

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """The cells."""
        return [Cell(self.layer, "cell", self.values)]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers that run them."""
        return [self.layer]

    @property
    def why_outputs_stay(self) -> str:
        """Why no output can be cut, empty where it can."""
        whys = [why for cell in self.cells if (why := cell.why_units_stay)]
        return f"an activation of `{self.node.path}` {whys[0]}" if whys else ""

    @property
    def border(self) -> bool:
        shape = self.node.inputs[0].shape
        return any(cell.is_padded(shape) for cell in self.cells)

    def refusal(self):
        if not all(has_known_cell(layer) for layer in self.layers):
            return "its cell is not known"
        inputs = self.data
        if len(inputs) not in (1, 1 + self._states()):
            return "it has other inputs than a sequence and states"
        if any(x.axes != (x.rank - 1,) for x in inputs):
            return "its channels are not at the channel axis of its input"
        reasons = [reason for cell in self.cells if (reason := cell.refusal)]
        return reasons[0] if reasons else ""

    def all_axes(self):
        """Returns the last axis of every output."""
        return [(y.rank - 1,) for y in self.node.outputs]

    def ties(self):
        """Returns that a unit goes with its states; inputs have no ties."""
        units = self.cells[0].units
        x = units + np.arange(self.node.inputs[0].channels)
        own = [
            None if y in self.masks else np.arange(y.channels) % units
            for y in (*self.node.inputs[1:], *self.node.outputs)
        ]
        return [x, *own]

    def slices(self):
        """Returns the rows and columns of all kernels, and the biases."""
        pairs = zip(self.cells, self._places(), strict=True)
        found = [cell.slices(own, self.node) for cell, own in pairs]
        return [*itertools.chain(*found)]

    def all_constants(self, input_constants):
        """Returns what the units make of constants alone."""
        found = self._constants(input_constants)
        return [self.merged(found), *self._of_states(found)]

    def all_needed(self, live, input_constants):
        """Returns which units reach a live one over some steps."""
        constants = self._constants(input_constants)
        needed = [
            cell.needed(own, np.isnan(c))
            for cell, own, c in zip(
                self.cells, self._live(live), constants, strict=True
            )
        ]
        output = np.zeros(self.node.outputs[0].channels, bool)
        for own, places in zip(needed, self._places(), strict=True):
            output[places] |= own
        return [output, *self._of_states(needed)]

    def all_reads(self, live, input_constants):
        """Returns which inputs reach a live unit, and its first states."""
        own = self._live(live)
        pairs = zip(self.cells, own, strict=True)
        x = np.any([cell.reads(units) for cell, units in pairs], axis=0)
        states = iter(self._per_state(own))
        return [
            x,
            *(
                np.ones(y.channels, bool) if y in self.masks else next(states)
                for y in self.node.inputs[1:]
            ),
        ]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with smaller kernels."""
        (change,) = self._changes(kept_inputs, kept_outputs, input_constants)
        return change

    def merged(self, found: list[np.ndarray]) -> np.ndarray:
        """Returns what becomes of constants of the units in the output.

        Args:
            found: Those of every cell.
        """
        return found[0]

    def _changes(self, kept_inputs, kept_outputs, input_constants):
        """Returns every layer with smaller kernels."""
        return [
            cell.rewrite(kept_inputs[0], kept_outputs[own], input_constants[0])
            for cell, own in zip(self.cells, self._places(), strict=True)
        ]

    def _states(self):
        return sum(cell.states for cell in self.cells)

    def _places(self):
        """Returns the channel of the output of each unit of each cell."""
        return [np.arange(self.cells[0].units)]

    def _constants(self, input_constants):
        """Returns the constants of the units of each cell."""
        pairs = zip(self.node.inputs, input_constants, strict=True)
        sequence, *states = [c for x, c in pairs if x not in self.masks]
        found = []
        for cell in self.cells:
            own, states = states[: cell.states], states[cell.states :]
            initial = np.ones(cell.units, bool)
            for state in own:
                initial &= state == 0
            constants = cell.constants(sequence, initial)
            if self.masks:
                # At the first steps it may still be at zero.
                constants = np.where(constants == 0, 0.0, np.nan)
            found.append(constants)
        return found

    def _live(self, live):
        """Returns which units of each cell an output or a state has live."""
        output, *states = live
        found = []
        for cell, places in zip(self.cells, self._places(), strict=True):
            own, states = states[: cell.states], states[cell.states :]
            found.append(np.any([output[places], *own], axis=0))
        return found

    def _of_states(self, found):
        """Returns, for the states among the outputs, what is of their cells."""
        return self._per_state(found) if len(self.node.outputs) > 1 else []

    def _per_state(self, found):
        pairs = zip(self.cells, found, strict=True)
        return [own for cell, own in pairs for _ in range(cell.states)]


@rule(keras.layers.Bidirectional)
class Bidirectional(Recurrent):
    """Two recurrent layers, one in each direction.

    Keras wants as many units in both. So unit `i` of one is cut with unit `i`
    of the other, also where they come side by side.
    """

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """The cell of each direction."""
        names = ("forward_layer", "backward_layer")
        return [
            Cell(layer, f"{name}.cell", self.values)
            for name, layer in zip(names, self.layers, strict=True)
        ]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of both directions."""
        return [self.layer.forward_layer, self.layer.backward_layer]

    def refusal(self):
        reason = super().refusal()
        if reason:
            return reason
        if any(find(layer) is not Recurrent for layer in self.layers):
            return "its cell is not known"
        if self.layer.merge_mode is None:
            return "it has several outputs"
        if len({cell.units for cell in self.cells}) > 1:
            return "its layers have different numbers of units"
        return ""

    def merged(self, found):
        """Returns the constants side by side, or what they make together."""
        first, second = found
        mode = self.layer.merge_mode
        if mode == "concat":
            return np.concatenate(found)
        if mode == "mul":
            return first * second
        return (first + second) / (2 if mode == "ave" else 1)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with smaller layers."""
        changes = self._changes(kept_inputs, kept_outputs, input_constants)
        config: dict = {}
        weights: dict[str, np.ndarray] = {}
        names = ("layer", "backward_layer")
        for name, layer, own in zip(names, self.layers, changes, strict=True):
            config[name] = with_config(layer, own.config)
            weights |= own.weights
        return Rewrite(config, weights)

    def _places(self):
        units = np.arange(self.cells[0].units)
        beside = self.layer.merge_mode == "concat"
        return [units, units + len(units) if beside else units]
