"""Finds the structures of a model from the rules of its layers."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np

from keras_sgl0.network.copying import not_copied
from keras_sgl0.network.cost import has_sizes, total
from keras_sgl0.network.graph import Graph, Node, Tensor
from keras_sgl0.network.positions import kernel_positions
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.components import Components
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.report import FixedChannels
from keras_sgl0.structures.rules import Opaque, Rule
from keras_sgl0.structures.slices import Role


class SlicedAxis(NamedTuple):
    """An axis of a variable that runs over channels.

    Args:
        axis: The axis, not negative.
        structures: For each index of the axis, the number of its structure,
            -1 where it belongs to none.
        role: What the slices are to their structures, see `rules.Slices`.
        stays: Whether the axis is as long without some of the structures.
        label: What they are if they are inside the layer, such as heads.
    """

    axis: int
    structures: np.ndarray
    role: Role
    stays: bool
    label: str


@dataclasses.dataclass(frozen=True, eq=False)
class SlicedVariable:
    """A variable of a layer, with the structures along its axes.

    Attributes:
        variable: The variable.
        layer: The path of its layer.
        positions: The multiply-adds of one entry for one example, 0 where it
            is no kernel; `None` where the sizes are not known.
        is_kernel: Whether it is a kernel.
        makes_channels: Whether its layer makes the channels of its outputs.
        axes: Its axes that run over channels; none if it stays whole.
    """

    variable: keras.Variable
    layer: str
    positions: int | None
    is_kernel: bool
    makes_channels: bool
    axes: tuple[SlicedAxis, ...]

    @property
    def rest(self) -> int:
        """The product of the sizes of all axes but those."""
        known = {sliced.axis for sliced in self.axes}
        sizes = enumerate(self.variable.shape)
        return int(np.prod([n for i, n in sizes if i not in known], dtype=int))

    def along(self, *roles: Role) -> tuple[SlicedAxis, ...]:
        """Returns the axes whose slices have one of some roles.

        Args:
            *roles: The roles.
        """
        return tuple(x for x in self.axes if x.role in roles)


@dataclasses.dataclass(frozen=True)
class Discovery:
    """What was found in a model.

    Attributes:
        graph: The calls of the model that an output depends on; `shrink`
            leaves no others.
        rules: The rule of every call.
        channels: For each tensor the structure of each of its channels, -1
            where it belongs to none.
        variables: The variables of all layers, with the structures of each.
        families: For each structure, the number of its family.
        fixed: The channels that cannot be cut, with the reason.
        sized: Whether the sizes of the model's inputs are known.
    """

    graph: Graph
    rules: dict[Node, Rule]
    channels: dict[Tensor, np.ndarray]
    variables: tuple[SlicedVariable, ...]
    families: np.ndarray
    fixed: tuple[FixedChannels, ...]
    sized: bool


def discover(model: keras.Model) -> Discovery:
    """Returns the structures of a model.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model is not built or cannot be traced.
    """
    graph = trace(model)
    graph = dataclasses.replace(graph, nodes=graph.needed())
    rules, components = _analyse(graph)
    numbers, families = _number(graph, rules, components)
    channels = {x: numbers[own] for x, own in components.labels.items()}
    return Discovery(
        graph,
        rules,
        channels,
        tuple(sliced_variables(graph, rules, channels)),
        families,
        tuple(_fixed(graph, rules, components)),
        has_sizes(graph),
    )


def find_rules(graph: Graph) -> dict[Node, Rule]:
    """Returns the rule of every call; the weights' values play no part.

    Args:
        graph: The calls of a model. Sets the channel axes of its tensors.
    """
    liveness = Liveness(graph, _ones, "keep")
    liveness.forward(not_copied(graph))
    return liveness.rules


def _analyse(graph: Graph) -> tuple[dict[Node, Rule], Components]:
    """Returns the rules, and the components with those refused that stay."""
    opaque = not_copied(graph)
    liveness = Liveness(graph, _ones, "keep")
    liveness.forward(opaque)
    components = Components(graph, liveness.rules)
    _refuse_without_savings(graph, liveness.rules, components)
    zeroed = _Zeroed(graph, liveness.rules, components)
    dry_run = Liveness(graph, zeroed, "keep")
    dry_run.forward(opaque)
    dry_run.backward()
    for node in graph.nodes:
        pairs = zip(node.inputs, dry_run.input_constants[node], strict=True)
        for x, own in pairs:
            labels, constants = components.labels[x], dry_run.constants[x]
            components.refuse(
                labels[~np.isnan(constants) & np.isnan(own)],
                liveness.rules[node].why_constants_stay,
            )
    components.refuse_different_constants(dry_run.input_constants)
    for node in graph.nodes:
        for y in node.made:
            components.refuse(
                components.labels[y][
                    np.isnan(dry_run.constants[y]) & dry_run.read[y]
                ],
                f"it is not constant behind `{node.path}` with all zero",
            )
    return liveness.rules, components


def _refuse_without_savings(graph, rules, components):
    """Keeps what no weight goes with, such as zeros in a normalization."""
    saves, found = np.zeros((2, components.size), bool)
    for node in graph.nodes:
        for own in rules[node].slices():
            labels = components.labels[own.channels_of(node)][own.channels]
            found[labels] = True
            saves[labels] |= not own.stays
    components.refuse(np.flatnonzero(found & ~saves), "it saves no weight")


def _number(
    graph: Graph, rules: dict[Node, Rule], components: Components
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the structures, family by family, in the order of the model.

    Returns:
        For each component its structure, -1 where it is none; and for each
        structure its family.
    """
    # Structures of one family have as many channels in the same tensors, and as
    # many slices of the same variables. Each such pair has a random key; the
    # sum of its keys tells a family.
    draw = np.random.default_rng(0)
    signature = np.zeros(components.size, np.uint64)
    slices = [
        components.labels[own.channels_of(node)][own.channels]
        for node in graph.nodes
        for own in rules[node].slices()
    ]
    for own in (*components.labels.values(), *slices):
        found, often = np.unique(own, return_counts=True)
        number = often.max(initial=0) + 1
        keys = draw.integers(2**63, size=number, dtype=np.uint64)
        signature[found] += keys[often]
    free = np.flatnonzero(~components.refused)
    _, first, family = np.unique(
        signature[free], return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), int)
    rank[np.argsort(first)] = np.arange(len(first))
    order = np.argsort(rank[family], kind="stable")
    numbers = np.full(components.size, -1)
    numbers[free[order]] = np.arange(len(free))
    return numbers, rank[family][order]


def _ones(variable) -> np.ndarray:
    return np.broadcast_to(np.float32(1), variable.shape)


class _Zeroed:
    """Gives zero for the members of what may be cut, one for all else."""

    def __init__(self, graph, rules, components):
        free = ~components.refused
        self._masks: dict[int, np.ndarray] = {}
        for node in graph.nodes:
            for own in rules[node].slices():
                if own.role not in ("member", "statistic"):
                    continue
                variable = own.of(node.operation)
                labels = components.labels[own.channels_of(node)]
                stays = own.along(
                    (~free[labels]).astype("float32"), len(variable.shape)
                )
                so_far = self._masks.get(id(variable), np.float32(1))
                self._masks[id(variable)] = so_far * stays

    def __call__(self, variable):
        mask = self._masks.get(id(variable), np.float32(1))
        return np.broadcast_to(mask, variable.shape)


def sliced_variables(
    graph: Graph,
    rules: dict[Node, Rule],
    channels: dict[Tensor, np.ndarray],
) -> Iterator[SlicedVariable]:
    """Yields the variables of all layers, each once.

    Args:
        graph: The calls of a model.
        rules: The rule of every call.
        channels: For each tensor a number for each of its channels. These
            become the `structures` along the axes of the variables.
    """
    positions: dict[int, int | None] = {}
    for node in graph.nodes:
        for kernel, number in kernel_positions(node):
            so_far = positions.get(id(kernel), 0)
            positions[id(kernel)] = total((so_far, number))
    yielded: set[int] = set()
    for calls in graph.by_operation().values():
        node, layer = calls[0], calls[0].operation
        if not isinstance(layer, keras.layers.Layer):
            continue
        axes: dict[int, list[SlicedAxis]] = {}
        for own in rules[node].slices():
            variable = own.of(layer)
            x = own.channels_of(node)
            axis, along = own.side(channels[x], len(variable.shape))
            axes.setdefault(id(variable), []).append(
                SlicedAxis(axis, along, own.role, own.stays, x.label)
            )
        for variable in layer.weights:
            if id(variable) in yielded:
                continue
            yielded.add(id(variable))
            yield SlicedVariable(
                variable=variable,
                layer=node.path,
                positions=positions.get(id(variable), 0),
                is_kernel=id(variable) in positions,
                makes_channels=rules[node].cuts,
                axes=tuple(axes.get(id(variable), ())),
            )


def _fixed(graph, rules, components):
    """Yields the channels of layers with kernels that are in no structure."""
    for node, *_ in graph.by_operation().values():
        rule = rules[node]
        if isinstance(rule, Opaque):
            if getattr(node.operation, "weights", ()):
                yield FixedChannels(
                    node.path, node.outputs[0].channels, rule.reason
                )
            continue
        if not rule.cuts:
            continue
        reasons: dict[str, int] = {}
        for component in components.labels[node.outputs[0]].tolist():
            reason = components.reason(component)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        for reason, number in reasons.items():
            yield FixedChannels(node.path, number, reason)
