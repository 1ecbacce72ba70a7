"""Which gates must be open for a channel to be there."""

import functools
from collections.abc import Iterable

import keras
import numpy as np

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.shared import Gated, Gates
from keras_sgl0.network.graph import Node, Tensor, tensors
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.components import shared_axes
from keras_sgl0.structures.discovery import (
    SlicedVariable,
    find_rules,
    sliced_variables,
)
from keras_sgl0.structures.rules import Rule

GateSet = frozenset[int]
_NONE: GateSet = frozenset()


class Dependence:
    """For every channel of a model the gates that it depends on.

    A channel is there only if certain gates are open: those that it has gone
    through, on every way from where it was made (forward pass), and those that
    it will go through on every way to where it is read (backward pass). With
    gates on structures that is one gate for every channel of the structure,
    wherever it is.

    Args:
        model: A built model.

    Attributes:
        gates: The gate layers, in the order of computation.
        first: The number of the first gate of each of them.
        number: The number of all gates.
        sets: The sets of gates that occur; the first is the empty one.
        variables: The variables of all layers but the gates. In the place of
            structures stand the numbers of sets.

    Raises:
        ValueError: If the model is not built or cannot be traced.

    Example:
        >>> found = Dependence(model)
        >>> found.sets[found.channels[x][0]]  # of the first channel of x
    """

    def __init__(self, model: keras.Model):
        self.graph = trace(model)
        self.rules = find_rules(self.graph)
        self.gates: list[HardConcrete] = []
        self.first: list[int] = []
        self.number = 0
        self._own: dict[Tensor, list[GateSet]] = {}
        self._find_gates()
        before = self._forward()
        after = self._backward()
        joined: dict[Tensor, list[GateSet]] = {}
        for x, sets in before.items():
            joined[x] = _joined(sets, after.get(x, _none(x)))
        self._join_calls(joined)
        numbers: dict[GateSet, int] = {_NONE: 0}
        self.channels: dict[Tensor, np.ndarray] = {
            x: np.array(
                [numbers.setdefault(own, len(numbers)) for own in sets], int
            )
            for x, sets in joined.items()
        }
        self.sets = list(numbers)

    @functools.cached_property
    def variables(self) -> tuple[SlicedVariable, ...]:
        """The variables of all layers but the gates."""
        gates = {id(v) for gate in self.gates for v in gate.weights}
        every = sliced_variables(self.graph, self.rules, self.channels)
        return tuple(v for v in every if id(v.variable) not in gates)

    def first_of(self, gate: HardConcrete) -> int:
        """Returns the number of the first gate of a layer.

        Args:
            gate: A gate layer of the model.
        """
        return self.first[self.gates.index(gate)]

    def _find_gates(self):
        for node in self.graph.nodes:
            gate = node.operation
            if isinstance(gate, HardConcrete) and gate not in self.gates:
                self.gates.append(gate)
                self.first.append(self.number)
                self.number += gate.log_alpha.shape[0]

    def _forward(self) -> dict[Tensor, list[GateSet]]:
        """Returns the gates that a channel has gone through on every way."""
        before = {x: _none(x) for x in tensors(self.graph.inputs)}
        for node in self.graph.nodes:
            rule = self.rules[node]
            ties = _ways(node, rule)
            if ties is None:
                before |= {y: _none(y) for y in node.made}
                continue
            inward, outward = ties
            met = _meet(
                (labels, before[x])
                for labels, x in zip(inward, node.inputs, strict=True)
                if labels is not None
            )
            for y, labels in zip(node.outputs, outward, strict=True):
                self._own[y] = self._gates_of(node, y, before)
                pairs = zip(labels.tolist(), self._own[y], strict=True)
                # What comes from no input has gone through no gate.
                before[y] = [met.get(i, _NONE) | own for i, own in pairs]
        return before

    def _join_calls(self, joined: dict[Tensor, list[GateSet]]):
        """Leaves the gates that channels depend on in all calls of a layer."""
        for axis in shared_axes(self.graph, self.rules):
            every = [
                [joined[x][i] for i in places.tolist()]
                for _, x, places in axis.slices
            ]
            met = [
                frozenset.intersection(*own) for own in zip(*every, strict=True)
            ]
            for _, x, places in axis.slices:
                for i, own in zip(places.tolist(), met, strict=True):
                    joined[x][i] &= own

    def _gates_of(self, node, y, before) -> list[GateSet]:
        """Returns, for each channel of an output, the gates a call puts on."""
        rule = self.rules[node]
        if isinstance(rule, Gates):
            first = self.first_of(node.operation)
            return [frozenset([first + i]) for i in range(y.channels)]
        if isinstance(rule, Gated):
            _, *gates = node.inputs
            every = [own for z in gates for own in before[z]]
            every.append(_NONE)
            return [every[i] for i in rule.places]
        return _none(y)

    def _backward(self) -> dict[Tensor, list[GateSet]]:
        """Returns the gates that a channel will go through on every way."""
        after: dict[Tensor, list[GateSet]] = {}
        # A call that takes some of the channels reads no others. One number
        # more than there are gates marks what no call has read.
        unread = frozenset(range(self.number + 1))

        def read(x, sets):
            pairs = zip(after.get(x, sets), sets, strict=True)
            after[x] = [a & b for a, b in pairs]

        for y in tensors(self.graph.outputs):
            read(y, _none(y))
        for node in reversed(self.graph.nodes):
            rule = self.rules[node]
            ties = _ways(node, rule)
            if ties is None:
                for x in (*node.inputs, *rule.read_back()):
                    read(x, _none(x))
                continue
            inward, outward = ties
            met = _meet(
                (labels, _joined(after.get(y, _none(y)), self._own[y]))
                for y, labels in zip(node.outputs, outward, strict=True)
            )
            for x, labels in zip(node.inputs, inward, strict=True):
                if labels is None:
                    read(x, _none(x))
                else:
                    read(x, [met.get(i, unread) for i in labels.tolist()])
        return {
            x: [_NONE if self.number in own else own for own in sets]
            for x, sets in after.items()
        }


def _ways(node: Node, rule: Rule) -> tuple[list, list] | None:
    """Returns the ties where a channel comes from one channel of each input.

    Those of the inputs, then those of the outputs.
    """
    # What mixes its inputs, as layer normalization does, is there without.
    carries = rule.carries and not node.inner
    ties = rule.ties() if carries else None
    number = len(node.inputs)
    return None if ties is None else (ties[:number], ties[number:])


def _none(x: Tensor) -> list[GateSet]:
    return [_NONE] * x.channels


def _joined(sets: list[GateSet], others: list[GateSet]) -> list[GateSet]:
    """Returns, for each channel, the gates of both."""
    return [a | b for a, b in zip(sets, others, strict=True)]


def _meet(
    pairs: Iterable[tuple[np.ndarray, list[GateSet]]],
) -> dict[int, GateSet]:
    """Returns what all channels with the same label have in common."""
    met: dict[int, GateSet] = {}
    for labels, sets in pairs:
        for label, own in zip(labels.tolist(), sets, strict=True):
            met[label] = met[label] & own if label in met else own
    return met
