"""Which channels of a model can only be cut together.

A layer's rule says which channels of its inputs and outputs are tied. Channels
that are tied over any number of calls form one component: it is cut as a whole
or stays as a whole. A component stays if any of its channels must, and then
the reason is kept.

A layer with weights that is called several times ties channels over its calls:
those that the same slice of a variable belongs to.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_sgl0.network.graph import Graph, Node, Tensor, tensors
from keras_sgl0.structures.rules import Rule
from keras_sgl0.structures.slices import least_along


class SharedAxis(NamedTuple):
    """An axis of a variable that has slices in several calls of its layer.

    Args:
        path: The path of the layer.
        slices: For each of its slices the call, the tensor whose channels they
            are, and the channel of each index of the axis.
    """

    path: str
    slices: list[tuple[Node, Tensor, np.ndarray]]

    def constants(
        self, input_constants: dict[Node, list[np.ndarray]]
    ) -> list[np.ndarray]:
        """Returns what each call sees of the inputs, one array a call.

        Args:
            input_constants: For every call, the constants of its inputs.
        """
        return [
            input_constants[node][node.inputs.index(x)][places]
            for node, x, places in self.slices
            if x in node.inputs
        ]


def shared_axes(graph: Graph, rules: dict[Node, Rule]) -> Iterator[SharedAxis]:
    """Yields what is shared by several calls of a layer.

    Args:
        graph: The calls of a model.
        rules: The rule of every call.
    """
    for calls in graph.by_operation().values():
        found: dict[tuple, list[tuple[Node, Tensor, np.ndarray]]] = {}
        for node in calls if len(calls) > 1 else ():
            for own in rules[node].slices():
                rank = len(own.of(node.operation).shape)
                axes = np.atleast_1d(own.axis) % rank
                found.setdefault((own.variable, *axes.tolist()), []).append(
                    (node, own.channels_of(node), np.ravel(own.channels))
                )
        for slices in found.values():
            yield SharedAxis(calls[0].path, slices)


class Components:
    """The connected components of all ties of a model.

    Args:
        graph: The calls of a model.
        rules: The rule of every call.

    Attributes:
        labels: For each tensor, the component of each of its channels.
        size: The number of components.
        ties: For each call with ties, the pairs of a tensor and the vector in
            which channels that are cut together have the same number.
        shared: The axes of variables that several calls of a layer share.

    Example:
        >>> components = Components(graph, rules)
        >>> components.labels[node.outputs[0]]
    """

    def __init__(self, graph: Graph, rules: dict[Node, Rule]):
        self._graph = graph
        self._rules = rules
        self.ties: dict[Node, list[tuple[Tensor, np.ndarray]]] = {}
        for node in graph.nodes:
            ties = rules[node].ties()
            if ties is not None:
                pairs = zip((*node.inputs, *node.made), ties, strict=True)
                self.ties[node] = [
                    (x, own) for x, own in pairs if own is not None
                ]
        self.shared = list(shared_axes(graph, rules))
        self.labels, self.size = self._connect()
        self._reasons = [""]
        self._why = np.zeros(self.size, int)
        self._refuse_what_calls_need()

    @property
    def refused(self) -> np.ndarray:
        """Which components stay, whatever their weights are."""
        return self._why > 0

    def reason(self, component: int) -> str:
        """Returns why a component stays, empty where it need not.

        Args:
            component: Its number.
        """
        return self._reasons[self._why[component]]

    def refuse(self, components: np.ndarray, reason: str):
        """Keeps components; the first reason to keep one is its reason.

        Args:
            components: Their numbers.
            reason: Why they stay.
        """
        if reason not in self._reasons:
            self._reasons.append(reason)
        free = components[self._why[components] == 0]
        self._why[free] = self._reasons.index(reason)

    def refuse_different_constants(
        self, input_constants: dict[Node, list[np.ndarray]]
    ):
        """Keeps what is not the same constant in all calls of a layer.

        It has one bias for all its calls to hold the constant.

        Args:
            input_constants: For every call, the constants of its inputs, NaN
                for none.
        """
        for axis in self.shared:
            seen = axis.constants(input_constants)
            if len(seen) < 2:
                continue
            known = np.nan_to_num(np.fmax.reduce(seen))
            different = np.any([(c != known) & ~np.isnan(c) for c in seen], 0)
            for _, x, places in axis.slices:
                self.refuse(
                    self.labels[x][places[different]],
                    f"it is another constant in another call of `{axis.path}`",
                )

    def any(self, channels: dict[Tensor, np.ndarray]) -> np.ndarray:
        """Returns which components have any of the given channels.

        Args:
            channels: Flags for the channels of each tensor.
        """
        found = np.zeros(self.size, bool)
        for x, flags in channels.items():
            found[self.labels[x][flags]] = True
        return found

    def _connect(self):
        """Gives tied channels the smallest number among them."""
        every = [*tensors(self._graph.inputs)]
        every += [y for node in self._graph.nodes for y in node.made]
        ends = np.cumsum([x.channels for x in every])
        flat = np.arange(ends[-1])
        # Views, so that a change of one is a change of the whole.
        labels = dict(zip(every, np.split(flat, ends[:-1]), strict=True))
        spread = [x for x in every if len(x.axes) > 1]
        self._propagate(flat, labels)
        # One at a time: what one ties may say along which axis others go.
        while any(_tie_slices(labels[x], x.sizes) for x in spread):
            self._propagate(flat, labels)
        found, compact = np.unique(flat, return_inverse=True)
        split = np.split(compact, ends[:-1])
        return dict(zip(every, split, strict=True)), len(found)

    def _propagate(self, flat, labels):
        """Gives what calls tie the smallest number among it, in place."""
        changed = True
        while changed:
            before = flat.copy()
            for node in (*self.ties, *reversed(self.ties)):
                pairs = self.ties[node]
                number = 1 + max(own.max() for _, own in pairs)
                least = np.full(number, len(flat))
                for x, own in pairs:
                    np.minimum.at(least, own, labels[x])
                for x, own in pairs:
                    labels[x][:] = least[own]
            for axis in self.shared:
                smallest = np.minimum.reduce(
                    [labels[x][places] for _, x, places in axis.slices]
                )
                for _, x, places in axis.slices:
                    np.minimum.at(labels[x], places, smallest)
            changed = bool((before != flat).any())

    def _refuse_what_calls_need(self):
        for x in tensors(self._graph.inputs):
            self.refuse(self.labels[x], "an input of the model")
        for y in tensors(self._graph.outputs):
            self.refuse(self.labels[y], "an output of the model")
        for node in self._graph.nodes:
            rule = self._rules[node]
            tied = [x for x, _ in self.ties.get(node, ())]
            fixed = rule.fixed_inputs()
            if rule.why_outputs_stay:
                for y in node.outputs:
                    self.refuse(self.labels[y], rule.why_outputs_stay)
            for x in node.inputs:
                if rule.why_inputs_stay:
                    self.refuse(self.labels[x], rule.why_inputs_stay)
                elif x in fixed:
                    self.refuse(self.labels[x], f"`{node.path}` needs all")
                elif tied and x not in tied:
                    self.refuse(self.labels[x], f"`{node.path}` broadcasts it")


def _tie_slices(labels: np.ndarray, sizes: tuple[int, ...]) -> bool:
    """Ties channels over several axes so that whole slices are cut.

    Where the ties leave it open along which axis, it is the last.

    Args:
        labels: The component of each channel; changed in place.
        sizes: The sizes of the axes.

    Returns:
        Whether that ties any that were not.
    """
    grid = labels.reshape(sizes)
    for place in range(grid.ndim):
        least = least_along(grid, place)
        if (grid == least).all():
            return False
    grid[...] = least
    return True
