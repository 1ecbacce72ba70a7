"""The structures of a model: what can be cut, and what that saves."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Literal, NamedTuple

import keras
import numpy as np

from keras_sgl0.network.copying import from_config
from keras_sgl0.network.cost import has_sizes, kernel_positions
from keras_sgl0.network.graph import Graph, Node, trace
from keras_sgl0.network.layer_table import layouts
from keras_sgl0.structures.components import Components
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.report import Family as FamilyEntry
from keras_sgl0.structures.report import FixedChannels, StructureReport
from keras_sgl0.structures.rules import Opaque, Role, Rule

Measure = Literal["macs", "parameters", "weights", "channels"]
MEASURES: tuple[Measure, ...] = ("macs", "parameters", "weights", "channels")


class SlicedAxis(NamedTuple):
    """An axis of a variable that runs over channels.

    Args:
        axis: The axis, not negative.
        structures: For each index of the axis, the number of its structure,
            -1 where it belongs to none.
        role: What the slices are to their structures, see `rules.Slices`.
    """

    axis: int
    structures: np.ndarray
    role: Role


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
class Cost:
    """What a model costs after a cut.

    Attributes:
        macs: The multiply-adds of its kernels for one example, `None` where
            the sizes of its inputs are not known.
        parameters: Its parameters, statistics included.
        weights: The weights of its kernels.
        channels: The output channels of its layers that make channels.
    """

    macs: int | None
    parameters: int
    weights: int
    channels: int

    def of(self, measure: Measure) -> int:
        """Returns one of them.

        Args:
            measure: Its name.
        """
        return getattr(self, measure)


class Structures:
    """The structures of a model, in families.

    A *structure* is one channel with all channels that can only be cut with
    it, over all layers they run through: a channel of a residual stream is cut
    in every block or not at all. A *family* is the set of structures that run
    through the same layers. A structure's *members* are the slices of kernels,
    biases, gammas and betas that make it. Where all members are zero the
    channel is zero, or a known constant, for every input, and `shrink` cuts it
    exactly.

    `print(structures)` shows one row a family, and what cannot be cut and why:
    a dry run of `shrink` before any training. `to_dict()` gives plain values.

    Attributes:
        variables: The variables of all layers, with the structures of each.
        families: For each structure, the number of its family. Structures of
            one family follow each other.
        size: The number of structures.
        fixed: The channels that cannot be cut, with the reason.

    Example:
        >>> found = structures(keras.applications.MobileNetV2(weights=None))
        >>> found.size, found.cost().macs
        >>> print(found)
    """

    def __init__(self, model: keras.Model):
        graph = trace(model)
        self._name = model.name
        rules, components = _analyse(graph)
        numbers = self._number(components, graph)
        sized = has_sizes(graph)
        self.variables = tuple(
            _sliced_variables(graph, rules, components, numbers, sized)
        )
        self.fixed = tuple(_fixed(graph, rules, components))
        self._sized = sized

    def __len__(self) -> int:
        return self.size

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many structures each family has."""
        return np.bincount(self.families)

    def cost(self, kept: np.ndarray | None = None) -> Cost:
        """Returns what the model costs with only some of its structures.

        It is what `count_macs` says of the model that `shrink` leaves, without
        building that model.

        Args:
            kept: Flags, one a structure; `None` for all of them.
        """
        if kept is None:
            return self._cost(self.counts)
        return self._cost(
            np.bincount(self.families[kept], minlength=len(self.counts))
        )

    def savings(self, measure: Measure) -> np.ndarray:
        """Returns what one structure of each family saves, all others kept.

        Args:
            measure: What is counted.

        Raises:
            ValueError: If it is `"macs"` and the input sizes are not known.
        """
        whole = self._cost(self.counts).of(measure)
        one = np.eye(len(self.counts), dtype=int)
        return np.array(
            [whole - self._cost(self.counts - e).of(measure) for e in one], int
        )

    def smallest(
        self, minimum: int = 1, removable: np.ndarray | None = None
    ) -> Cost:
        """Returns what the model costs with as little as possible kept.

        Args:
            minimum: How many structures each family keeps.
            removable: Flags, which structures may go; `None` for all.
        """
        if removable is None:
            removable = np.ones(self.size, bool)
        stay = np.bincount(
            self.families[~removable], minlength=len(self.counts)
        )
        return self._cost(np.minimum(np.maximum(stay, minimum), self.counts))

    def removable(self, readers: bool = False) -> np.ndarray:
        """Returns which structures training can set to zero.

        That is those of which all members can be trained, with `readers` also
        those of which all slices that read them can be.

        Args:
            readers: Whether a structure is dead, too, if nothing reads it.
        """
        frozen = {
            role: np.zeros(self.size, bool) for role in ("member", "reader")
        }
        for entry in self.variables:
            for sliced in entry.along("member", "reader"):
                own = sliced.structures[sliced.structures >= 0]
                frozen[sliced.role][own] |= not entry.variable.trainable
        may_go = ~frozen["member"]
        return may_go | ~frozen["reader"] if readers else may_go

    def report(self) -> StructureReport:
        """Returns one row a family, and what cannot be cut."""
        whole, least = self.cost(), self.smallest()
        parameters = self.savings("parameters")
        macs = self.savings("macs") if self._sized else None
        entries = []
        for family, count in enumerate(self.counts.tolist()):
            without = self.counts.copy()
            without[family] = 0
            gone = self._cost(without)
            entries.append(
                FamilyEntry(
                    made_by=self._layers(family, True, "member"),
                    through=self._layers(
                        family, False, "member", "statistic", "follower"
                    ),
                    read_by=self._layers(family, None, "reader"),
                    structures=count,
                    parameters=int(parameters[family]),
                    macs=None if macs is None else int(macs[family]),
                    share=_share(whole, gone),
                )
            )
        return StructureReport(
            model=self._name,
            families=tuple(entries),
            fixed=self.fixed,
            parameters=whole.parameters,
            macs=whole.macs,
            smallest_parameters=least.parameters,
            smallest_macs=least.macs,
        )

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return self.report().to_dict()

    def __str__(self) -> str:
        return str(self.report())

    def zero(
        self, dead: np.ndarray, roles: Iterable[Role] = ("member", "statistic")
    ):
        """Sets the members of structures to zero, in place.

        Args:
            dead: Flags, one a structure.
            roles: What to set to zero.
        """
        keep = np.append(~dead, True)  # the last one is for -1
        for entry in self.variables:
            for sliced in entry.along(*roles):
                if not keep[sliced.structures].all():
                    shape = [1] * len(entry.variable.shape)
                    shape[sliced.axis] = -1
                    own = keep[sliced.structures].reshape(shape)
                    value = keras.ops.convert_to_numpy(entry.variable)
                    entry.variable.assign(value * own)

    def _number(self, components: Components, graph: Graph) -> np.ndarray:
        """Numbers the structures, family by family, in the order of the model.

        Returns:
            For each component its structure, -1 where it is none.
        """
        draw = np.random.default_rng(0)
        signature = np.zeros(components.size, np.uint64)
        for own in components.labels.values():
            found, often = np.unique(own, return_counts=True)
            keys = draw.integers(
                2**63, size=often.max(initial=0) + 1, dtype=np.uint64
            )
            signature[found] += keys[often]
        free = np.flatnonzero(~components.refused)
        _, first, family = np.unique(
            signature[free], return_index=True, return_inverse=True
        )
        rank = np.empty(len(first), int)
        rank[np.argsort(first)] = np.arange(len(first))
        order = np.argsort(rank[family], kind="stable")
        self.families = rank[family][order]
        self.size = len(free)
        numbers = np.full(components.size, -1)
        numbers[free[order]] = np.arange(self.size)
        return numbers

    @functools.cached_property
    def _factors(self):
        """For each variable, its rest and the counts along its axes."""
        number = len(self.counts)
        factors = []
        for entry in self.variables:
            axes = []
            for sliced in entry.axes:
                own = sliced.structures[sliced.structures >= 0]
                slots = np.bincount(self.families[own], minlength=number)
                fixed = len(sliced.structures) - len(own)
                # Structures of one family have equally many slots each.
                axes.append((fixed, slots // np.maximum(self.counts, 1)))
            factors.append((entry, entry.rest, axes))
        return factors

    def _cost(self, counts: np.ndarray) -> Cost:
        macs = parameters = weights = channels = 0
        for entry, rest, axes in self._factors:
            along = [fixed + int(slots @ counts) for fixed, slots in axes]
            size = rest * int(np.prod(along, dtype=int))
            parameters += size
            if entry.is_kernel:
                weights += size
                macs += size * (entry.positions or 0)
            if entry.is_kernel and entry.makes_channels:
                channels += sum(
                    n
                    for n, sliced in zip(along, entry.axes, strict=True)
                    if sliced.role == "member"
                )
        return Cost(
            macs if self._sized else None, parameters, weights, channels
        )

    def _layers(
        self, family: int, makes: bool | None, *roles: Role
    ) -> tuple[str, ...]:
        """Returns the layers in which a family has slices of some roles."""
        found: dict[str, None] = {}
        for entry in self.variables:
            if makes is not None and entry.makes_channels != makes:
                continue
            for sliced in entry.along(*roles):
                own = sliced.structures[sliced.structures >= 0]
                if (self.families[own] == family).any():
                    found[entry.layer] = None
        return tuple(found)


def structures(model: keras.Model) -> Structures:
    """Returns what of a model can be cut: its structures, in families.

    Models in the model are unfolded. What touches an input or output of the
    model, or a call of which nothing is known, is no structure; the report
    says why. The weights' values play no part.

    Args:
        model: A built Sequential or Functional model.

    Raises:
        ValueError: If the model is not built or is subclassed.

    Example:
        >>> print(structures(models.LeNet5Caffe()))
    """
    return Structures(model)


def _analyse(graph: Graph) -> tuple[dict[Node, Rule], Components]:
    """Returns the rules, and the components with those refused that stay."""
    opaque = {
        node: "it cannot be made from its config"
        for node in graph.nodes
        if not _can_be_copied(node)
    }
    liveness = Liveness(graph, _ones, "keep")
    liveness.forward(opaque)
    components = Components(graph, liveness.rules)
    zeroed = _Zeroed(graph, liveness.rules, components)
    dry_run = Liveness(graph, zeroed, "keep")
    dry_run.forward(opaque)
    for node in graph.nodes:
        pairs = zip(node.inputs, dry_run.input_constants[node], strict=True)
        for x, own in pairs:
            labels, constants = components.labels[x], dry_run.constants[x]
            components.refuse(
                labels[~np.isnan(constants) & np.isnan(own)],
                f"its constant meets the zeros around `{node.path}`",
            )
    for node in graph.nodes:
        for y in node.outputs:
            components.refuse(
                components.labels[y][np.isnan(dry_run.constants[y])],
                f"it is not constant behind `{node.path}` with all zero",
            )
    return liveness.rules, components


def _can_be_copied(node: Node) -> bool:
    """Whether a layer of a user's class can be made from its config."""
    if type(node.operation).__module__.partition(".")[0] == "keras":
        return True
    try:
        from_config(node.operation)
    except Exception:  # the config of a user's layer may raise anything
        return False
    return True


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
                variable = getattr(node.operation, own.variable)
                labels = components.labels[node.outputs[0]][own.channels]
                shape = [1] * len(variable.shape)
                shape[own.axis] = -1
                self._masks[id(variable)] = (
                    (~free[labels]).astype("float32").reshape(shape)
                )

    def __call__(self, variable):
        mask = self._masks.get(id(variable), np.float32(1))
        return np.broadcast_to(mask, variable.shape)


def _sliced_variables(graph, rules, components, numbers, sized):
    """Yields the variables of all layers, each once."""
    known: set[int] = set()
    for node in graph.nodes:
        layer = node.operation
        if not isinstance(layer, keras.layers.Layer) or id(layer) in known:
            continue
        known.add(id(layer))
        axes: dict[int, list[SlicedAxis]] = {}
        for own in rules[node].slices():
            variable = getattr(layer, own.variable)
            tensor = (node.inputs if own.role == "reader" else node.outputs)[0]
            axes.setdefault(id(variable), []).append(
                SlicedAxis(
                    own.axis % len(variable.shape),
                    numbers[components.labels[tensor][own.channels]],
                    own.role,
                )
            )
        kernels = {id(getattr(layer, row.kernel)) for row in layouts((layer,))}
        positions = dict.fromkeys(kernels, 0) if sized else {}
        calls = [n for n in graph.nodes if n.operation is layer]
        if sized:
            for call in calls:
                for kernel, number in kernel_positions(call):
                    positions[id(kernel)] += number
        for variable in layer.weights:
            yield SlicedVariable(
                variable=variable,
                layer=node.path,
                positions=positions.get(id(variable), 0) if sized else None,
                is_kernel=id(variable) in kernels,
                makes_channels=rules[node].cuts,
                axes=tuple(axes.get(id(variable), ())),
            )


def _fixed(graph, rules, components):
    """Yields the channels of layers with kernels that are in no structure."""
    for node in graph.nodes:
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


def _share(whole: Cost, without: Cost) -> float:
    """Returns the share of the multiply-adds, or else of the parameters."""
    measure: Measure = "parameters" if whole.macs is None else "macs"
    total = whole.of(measure)
    return (total - without.of(measure)) / total if total else 0.0
