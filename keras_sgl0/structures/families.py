"""The structures of a model: what can be cut, and what that saves."""

import functools
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_sgl0.groups import other_axes
from keras_sgl0.network.graph import Node, Tensor
from keras_sgl0.structures.costs import Cost, Costs, Measure, share_saved
from keras_sgl0.structures.discovery import discover
from keras_sgl0.structures.liveness import Cuts, analyse
from keras_sgl0.structures.report import Family, StructureReport
from keras_sgl0.structures.rules import Opaque, Values
from keras_sgl0.structures.slices import Role
from keras_sgl0.utils.tables import Report


class Structures(Report):
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

    Args:
        model: A built model.

    Attributes:
        variables: The variables of all layers, with the structures of each.
        families: For each structure, the number of its family. Structures of
            one family follow each other.
        size: The number of structures.
        fixed: The channels that cannot be cut, with the reason.
        name: The model's name.
        discovery: What of the model's graph they were found in.

    Example:
        >>> found = structures(keras.applications.MobileNetV2(weights=None))
        >>> found.size, found.cost().macs
        >>> print(found)
    """

    def __init__(self, model: keras.Model):
        found = discover(model)
        self.variables = found.variables
        self.families = found.families
        self.size = len(found.families)
        self.fixed = found.fixed
        self.discovery = found
        self.name = model.name

    def __len__(self) -> int:
        return self.size

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many structures each family has."""
        return np.bincount(self.families)

    def cost(self, kept: np.ndarray | None = None) -> Cost:
        """Returns what the model costs with only some of its structures.

        It is what `count_macs` says of the model that `shrink` leaves, without
        building that model. One thing is left out: a layer without biases gets
        some if it has to hold the constant that a channel dies with, such as
        `sigmoid(0)`.

        Args:
            kept: Flags, one a structure; `None` for all of them.
        """
        if kept is None:
            return self.cost_of(self.counts)
        return self.cost_of(
            np.bincount(self.families[kept], minlength=len(self.counts))
        )

    def savings(self, measure: Measure) -> np.ndarray:
        """Returns what one structure of each family saves, all others kept.

        Args:
            measure: What is counted.

        Raises:
            ValueError: If it is `"macs"` and the input sizes are not known.
        """
        whole = self.cost_of(self.counts).of(measure)
        one = np.eye(len(self.counts), dtype=int)
        return np.array(
            [whole - self.cost_of(self.counts - e).of(measure) for e in one],
            int,
        )

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
        may_read = ~frozen["reader"] & ~self.mixed
        return may_go | may_read if readers else may_go

    def alive(self, values: Values) -> np.ndarray:
        """Returns which structures `shrink` leaves, with today's weights.

        That is all but those that are a constant or that nothing reads. A
        structure is dead, too, if single weights have died one by one until
        nothing of it reaches the outputs.

        Args:
            values: Gives the values of a variable, with zeros for what counts
                as zero.
        """
        found = self.discovery
        inner = {node: node.inner for node in found.graph.nodes}
        opaque = {
            node: rule.reason
            for node, rule in found.rules.items()
            if isinstance(rule, Opaque)
        }
        cuts = analyse(found.graph, values, opaque=opaque)
        flags = self.left(cuts, inner)
        for node, known in inner.items():
            node.inner = known
        return flags

    def left(self, cuts: Cuts, inner: dict[Node, list[Tensor]]) -> np.ndarray:
        """Returns which structures an analysis of the model leaves.

        Args:
            cuts: What stays of every tensor.
            inner: What was inside each call before the analysis, which makes
                new tensors for it.
        """
        flags = np.zeros(self.size + 1, bool)
        for node, known in inner.items():
            before = [*node.outputs, *known]
            for x, same in zip(before, node.made, strict=True):
                own = self.discovery.channels[x]
                flags[own[cuts.kept_channels[same]]] = True
        return flags[:-1]

    @functools.cached_property
    def mixed(self) -> np.ndarray:
        """Which structures count in a mean of others even if nothing else.

        They run through a layer such as `RMSNormalization`, or a mean over
        channels, so that only their members can make them dead.
        """
        found = self.discovery
        flags = np.zeros(self.size + 1, bool)
        for node, rule in found.rules.items():
            if rule.zeros_only:
                for x in node.inputs:
                    flags[found.channels[x]] = True
        return flags[:-1]

    def report(self) -> StructureReport:
        """Returns one row a family, and what cannot be cut."""
        whole = self.cost()
        least = self.cost_of(np.minimum(self.counts, 1))
        parameters = self.savings("parameters")
        macs = self.savings("macs") if self.discovery.sized else None
        entries = []
        for family, count in enumerate(self.counts.tolist()):
            without = self.counts.copy()
            without[family] = 0
            gone = self.cost_of(without)
            entries.append(
                Family(
                    made_by=self.names(family),
                    through=self._layers(
                        family, False, "member", "statistic", "follower"
                    ),
                    read_by=self._layers(family, None, "reader"),
                    structures=count,
                    parameters=int(parameters[family]),
                    macs=None if macs is None else int(macs[family]),
                    share=share_saved(whole, gone),
                )
            )
        return StructureReport(
            model=self.name,
            families=tuple(entries),
            fixed=self.fixed,
            parameters=whole.parameters,
            macs=whole.macs,
            smallest_parameters=least.parameters,
            smallest_macs=least.macs,
        )

    def makers(self, structures: np.ndarray) -> list[str]:
        """Returns the layers that make structures, and those that are fixed.

        Args:
            structures: Flags, one a structure.
        """
        families = np.unique(self.families[structures]).tolist()
        found = [self.made_by(f) for f in families]
        found.append(tuple(entry.layer for entry in self.fixed))
        return list(dict.fromkeys(name for names in found for name in names))

    def made_by(self, family: int) -> tuple[str, ...]:
        """Returns the layers whose kernels make the structures of a family.

        Args:
            family: Its number.
        """
        return self._layers(family, True, "member")

    def names(self, family: int) -> tuple[str, ...]:
        """Returns what a family is called in reports.

        That is the layers that make it. Of what is inside a layer it says
        what: `attention: heads`.

        Args:
            family: Its number.
        """
        return self._layers(family, True, "member", labels=True)

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
        for variable, value in self.without(dead, roles):
            variable.assign(value)

    def without(
        self, dead: np.ndarray, roles: Iterable[Role] = ("member", "statistic")
    ) -> Iterator[tuple[keras.Variable, np.ndarray]]:
        """Yields the variables with members of structures, those set to zero.

        Args:
            dead: Flags, one a structure.
            roles: What is zero.
        """
        keep = np.append(~dead, True)  # the last one is for -1
        for entry in self.variables:
            axes = [
                x for x in entry.along(*roles) if not keep[x.structures].all()
            ]
            if not axes:
                continue
            value = keras.ops.convert_to_numpy(entry.variable)
            for sliced in axes:
                others = other_axes(entry.variable.shape, sliced.axis)
                value = value * np.expand_dims(keep[sliced.structures], others)
            yield entry.variable, value

    def cost_of(self, counts: np.ndarray) -> Cost:
        """Returns what the model costs with so many structures a family.

        Args:
            counts: One number a family.
        """
        return self._costs.of(counts)

    @functools.cached_property
    def _costs(self):
        return Costs(self.discovery, self.counts)

    def _layers(
        self,
        family: int,
        makes: bool | None,
        *roles: Role,
        labels: bool = False,
    ) -> tuple[str, ...]:
        """Returns the layers in which a family has slices of some roles."""
        found: dict[str, None] = {}
        for entry in self.variables:
            if makes is not None and entry.makes_channels != makes:
                continue
            for sliced in entry.along(*roles):
                own = sliced.structures[sliced.structures >= 0]
                if (self.families[own] == family).any():
                    label = f": {sliced.label}" if sliced.label else ""
                    found[entry.layer + label * labels] = None
        return tuple(found)


def structures(model: keras.Model) -> Structures:
    """Returns what of a model can be cut: its structures, in families.

    Models in the model are unfolded. What touches an input or output of the
    model, or a call of which nothing is known, is no structure; the report
    says why. The weights' values play no part.

    Args:
        model: A built model.

    Raises:
        ValueError: If the model is not built or cannot be traced.

    Example:
        >>> print(structures(models.LeNet5Caffe()))
    """
    return Structures(model)
