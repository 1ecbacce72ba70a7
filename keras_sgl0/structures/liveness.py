"""Which channels of a model are alive, and which can be cut.

A channel is *constant* if it is the same number for every example and position
(forward pass), and *read* if an output of the model depends on it (backward
pass). It is dead if it is constant or not read. Dead channels are cut where
every call they go through can do without; what is tied is cut together or not
at all. A constant that is cut is folded into the layers that read it. A layer
that is called several times has one place for it, so that it must be the same
constant in all calls.
"""

import dataclasses

import numpy as np

from keras_sgl0.network.graph import Graph, Node, Tensor, tensors
from keras_sgl0.structures.components import Components
from keras_sgl0.structures.registry import rule_for
from keras_sgl0.structures.rules import Opaque, Rule, Values
from keras_sgl0.utils.validation import require


@dataclasses.dataclass(frozen=True)
class Cuts:
    """What stays of every tensor.

    Attributes:
        rules: The rule of every call.
        kept_channels: Which channels of a tensor stay.
        input_constants: For every call, the constants of its inputs as the
            calls of its layer see them.
        dead_but_kept: Per layer that makes or scales channels, the dead
            channels that stay, by reason.
        dead_branches: The layers of which all channels could have been cut.
    """

    rules: dict[Node, Rule]
    kept_channels: dict[Tensor, np.ndarray]
    input_constants: dict[Node, list[np.ndarray]]
    dead_but_kept: dict[Node, dict[str, list[int]]]
    dead_branches: list[Node]


def analyse(
    graph: Graph,
    values: Values,
    on_constant: str = "keep",
    round_to: int | None = None,
    minimum: int = 1,
    opaque: dict[Node, str] | None = None,
    trains: bool = False,
) -> Cuts:
    """Returns which channels can be cut.

    Args:
        graph: The calls of a model.
        values: Gives the values of a variable, with zeros for what counts as
            zero.
        on_constant: What becomes of a constant that meets zeros at a border:
            `"keep"`, `"fold"` or `"drop"`.
        round_to: Layers keep a multiple of this many channels.
        minimum: Layers keep this many channels. With 0, a layer that would
            lose all its channels is an error.
        opaque: Calls that must stay as they are, with the reason.
        trains: Whether training goes on with what stays. A constant other than
            zero, which would be trained on, then stays.

    Raises:
        ValueError: If `minimum` is 0 and no channel of a layer would stay.
    """
    liveness = Liveness(graph, values, on_constant, trains)
    liveness.forward(opaque or {})
    liveness.backward()
    cutting = _Cutting(liveness)
    empty = [n for n, x in cutting.makers if not cutting.count(x)]
    branches = list({id(n.operation): n for n in empty}.values())
    require(
        minimum > 0 or not branches,
        "minimum",
        "at least 1, as no channel would stay in "
        + ", ".join(f"`{n.path}`" for n in branches),
        minimum,
    )
    cutting.restore(minimum, round_to)
    return Cuts(
        liveness.rules,
        {x: ~cut for x, cut in cutting.cut.items()},
        cutting.input_constants(),
        cutting.dead_but_kept(),
        branches,
    )


class Liveness:
    """The forward pass and the backward pass.

    Args:
        graph: The calls of a model.
        values: Gives the values of a variable.
        on_constant: What becomes of a constant that meets zeros at a border:
            `"keep"`, `"fold"` or `"drop"`.
        trains: Whether layers with weights can do without zeros alone.

    Attributes:
        rules: The rule of every call.
        constants: The constants of the channels of each tensor, NaN for none.
        input_constants: For every call, the constants of its inputs as the
            call sees them.
        reads: For every call, which channels of its inputs it reads.
    """

    def __init__(self, graph, values, on_constant, trains=False):
        self.graph = graph
        self.trains = trains
        self.values = values
        self.on_constant = on_constant
        self.rules, self.input_constants, self.reads = {}, {}, {}
        self.constants, self._without_axis = {}, set()

    def forward(self, opaque):
        """Finds the constants.

        A layer of which one call must stay as it is, stays in all calls.

        Args:
            opaque: Calls that must stay as they are, with the reason.
        """
        opaque = dict(opaque)
        while True:
            self._forward(opaque)
            more = self._other_calls()
            if not more:
                break
            opaque |= more

    def _other_calls(self):
        """Returns the calls of layers that have others which are opaque."""
        found: dict[Node, str] = {}
        for calls in self.graph.by_operation().values():
            rules = [self.rules[node] for node in calls]
            known = [r for r in rules if isinstance(r, Opaque)]
            if known and getattr(calls[0].operation, "weights", None):
                others = [
                    node
                    for node, r in zip(calls, rules, strict=True)
                    if not isinstance(r, Opaque)
                ]
                found |= dict.fromkeys(others, known[0].reason)
        return found

    def _forward(self, opaque):
        self.constants, self._without_axis = {}, set()
        for x in tensors(self.graph.inputs):
            self._leave(x)
        for node in self.graph.nodes:
            self._fix_axes(node)
            if node in opaque:
                node.inner = []
                rule = Opaque(opaque[node]).bind(node, self.values)
            else:
                rule = rule_for(node, self.values)
            self.rules[node] = rule
            constants = [self.constants[x] for x in node.inputs]
            if rule.border:
                constants = [self._at_border(c) for c in constants]
            has_weights = bool(getattr(node.operation, "weights", ()))
            if rule.zeros_only or (self.trains and has_weights):
                constants = [np.where(c == 0, c, np.nan) for c in constants]
            self.input_constants[node] = constants
            if isinstance(rule, Opaque):
                for y in node.outputs:
                    self._leave(y)
            else:
                for y, axes in zip(node.outputs, rule.all_axes(), strict=True):
                    y.axes = axes
                found = rule.all_constants(constants)
                self.constants |= zip(node.made, found, strict=True)

    def backward(self):
        """Finds what is read."""
        self.read = {x: np.zeros(len(c), bool) for x, c in self._known()}
        for y in tensors(self.graph.outputs):
            self.read[y][:] = True
        for node in reversed(self.graph.nodes):
            rule = self.rules[node]
            constants = self.input_constants[node]
            live = [
                self.read[y] & np.isnan(self.constants[y]) for y in node.outputs
            ]
            live = rule.all_needed(live, constants)
            for y, own in zip(node.outputs, live, strict=True):
                self.read[y] |= own
            self.reads[node] = rule.all_reads(live, constants)
            every = [*node.inputs, *node.inner]
            for x, read in zip(every, self.reads[node], strict=True):
                self.read[x] |= read

    def _leave(self, x):
        """Takes a tensor without known constants.

        Its channel axis is not known yet: its first reader sets it.
        """
        self.constants[x] = np.full(x.channels, np.nan)
        self._without_axis.add(x)

    def _fix_axes(self, node):
        """Sets the axis of the inputs without one, as a call wants it."""
        inputs = self._without_axis.intersection(node.inputs)
        if getattr(node.operation, "data_format", "") == "channels_first":
            for x in inputs:
                x.axes = (1,)
                self._leave(x)
        self._without_axis -= inputs

    def dead(self):
        """Returns which channels are constant or not read."""
        return {x: ~self.read[x] | ~np.isnan(c) for x, c in self._known()}

    def _known(self):
        return self.constants.items()

    def _at_border(self, constants):
        """Returns constants as a call that pads with zeros sees them."""
        if self.on_constant == "fold":
            return constants
        lost = np.nan if self.on_constant == "keep" else 0.0
        same = np.isnan(constants) | (constants == 0)
        return np.where(same, constants, lost)


class _Cutting:
    """Cuts the components of which every channel is dead."""

    def __init__(self, liveness):
        self._liveness = liveness
        self._nodes = liveness.graph.nodes
        self.dead = liveness.dead()
        self.makers = [
            (n, x)
            for n in self._nodes
            if liveness.rules[n].cuts
            for x in n.made
        ]
        # What takes some of the channels of a layer leaves one of them, too.
        self._takers = [
            (n, y)
            for n in self._nodes
            if liveness.rules[n].narrows
            for y in n.outputs
        ]
        self._components = Components(liveness.graph, liveness.rules)
        self._refuse_lost_constants()
        self._components.refuse_different_constants(liveness.input_constants)
        alive = self._components.any({x: ~d for x, d in self.dead.items()})
        self._cut = ~alive & ~self._components.refused

    @property
    def cut(self):
        """Which channels of each tensor are cut."""
        labels = self._components.labels
        return {x: self._cut[own] for x, own in labels.items()}

    def input_constants(self):
        """Returns the constants of the inputs, those of all calls of a layer.

        What is constant in one call and not read in another is cut with the
        constant folded, so that all calls know it.
        """
        found = dict(self._liveness.input_constants)
        for axis in self._components.shared:
            seen = axis.constants(found)
            for node, x, places in axis.slices if seen else ():
                if x in node.inputs:
                    i = node.inputs.index(x)
                    found[node] = [own.copy() for own in found[node]]
                    found[node][i][places] = np.fmax.reduce(seen)
        return found

    def count(self, x):
        """Returns how many channels of a tensor stay."""
        return int((~self._cut[self._of(x)]).sum())

    def restore(self, minimum, round_to):
        """Brings channels back until every layer has enough of them."""
        minimum = max(minimum, 1)
        changed = True
        while changed:
            changed = False
            for _, x in (*self.makers, *self._takers):
                number = self.count(x)
                wanted = max(number, minimum)
                reason = f"a layer keeps at least {minimum}"
                if round_to and wanted % round_to:
                    wanted += round_to - wanted % round_to
                    reason = f"a layer keeps a multiple of {round_to}"
                components = self._of(x)
                back = components[self._cut[components]][: wanted - number]
                if len(back):
                    self._cut[back] = False
                    self._components.refuse(back, reason)
                    changed = True

    def dead_but_kept(self):
        """Returns the dead channels that stay, by layer and reason.

        A layer that scales channels, and makes none, has those that die there.
        """
        found: dict[Node, dict[str, list[int]]] = {}
        ties = self._first_ties()
        named: set[int] = set()
        rules = self._liveness.rules
        for calls in self._liveness.graph.by_operation().values():
            node, rule = calls[0], rules[calls[0]]
            roles = {own.role for own in rule.slices()}
            if not rule.cuts and "member" not in roles:
                continue
            components = self._of(node.outputs[0])
            alike = [n for n in calls if type(rules[n]) is type(rule)]
            dead = np.logical_and.reduce([self._dead_behind(n) for n in alike])
            if not rule.cuts:
                dead = dead & ~np.isin(components, list(named))
            for i in np.flatnonzero(dead & ~self._cut[components]).tolist():
                reason = self._components.reason(components[i])
                if not reason and components[i] in ties:
                    reason = f"tied in `{ties[components[i]]}` to a channel"
                    reason += " that is alive"
                # Channels over several axes go along one of them.
                reason = reason or "another channel of its slice is alive"
                found.setdefault(node, {}).setdefault(reason, []).append(i)
                named.add(components[i])
        return found

    def _dead_behind(self, node):
        """Returns which outputs of a call are dead, or held by activations."""
        held = self._liveness.rules[node].held(
            self._liveness.input_constants[node]
        )
        return self.dead[node.outputs[0]] | held

    def _of(self, x):
        """Returns the components of the channels of a tensor."""
        return self._components.labels[x]

    def _refuse_lost_constants(self):
        """Keeps the constants that a call sees differently at its border."""
        liveness = self._liveness
        for node in self._nodes:
            seen = liveness.input_constants[node]
            reason = liveness.rules[node].why_constants_stay
            reads = liveness.reads[node][: len(seen)]
            for x, own, read in zip(node.inputs, seen, reads, strict=True):
                lost = ~np.isnan(liveness.constants[x]) & np.isnan(own)
                self._components.refuse(
                    self._components.labels[x][lost & read],
                    reason,
                )

    def _first_ties(self):
        """Returns, by component, where a dead channel is tied to a live one."""
        found: dict[int, str] = {}
        for node, pairs in self._components.ties.items():
            number = 1 + max(own.max() for _, own in pairs)
            alive, dead = np.zeros(number, bool), np.zeros(number, bool)
            labels = np.zeros(number, int)
            for x, own in pairs:
                alive[own[~self.dead[x]]] = True
                dead[own[self.dead[x]]] = True
                labels[own] = self._components.labels[x]
            for component in labels[alive & dead].tolist():
                found.setdefault(component, node.path)
        for axis in self._components.shared:
            every = [self.dead[x][places] for _, x, places in axis.slices]
            mixed = np.any(every, axis=0) & ~np.all(every, axis=0)
            _, x, places = axis.slices[0]
            for component in self._of(x)[places[mixed]].tolist():
                found.setdefault(component, axis.path)
        return found
