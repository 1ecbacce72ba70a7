"""A smaller model to train on, and what of each variable is left in it."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import other_axes
from keras_sgl0.network.copying import shared_weights
from keras_sgl0.network.graph import Node
from keras_sgl0.network.layer_table import all_layers, layouts
from keras_sgl0.network.loans import without_loan
from keras_sgl0.network.transfer import Kept, Transfer, shape_with
from keras_sgl0.regularizers import Penalty
from keras_sgl0.shrinking.rewrite import Rebuilt
from keras_sgl0.structures.costs import share_saved
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.flat_copy import NotCopied, weight_pairs
from keras_sgl0.structures.liveness import analyse
from keras_sgl0.structures.slices import variable_of
from keras_sgl0.structures.values import ThresholdedArrays
from keras_sgl0.utils.validation import require


@dataclasses.dataclass(frozen=True)
class Limits:
    """What may be cut, and when it is worth it.

    Attributes:
        least: The share of the model's cost that must be saved.
        tolerance: A structure is dead where no member is above it.
        minimum: A layer keeps this many channels.
        round_to: Layers keep a multiple of this many.
    """

    least: float
    tolerance: float
    minimum: int
    round_to: int | None


def follow(model: keras.Model, limits: Limits) -> Transfer | None:
    """Returns the way to a smaller model, `None` where it does not pay.

    What is cut is what `fit_shrinking` says.

    Args:
        model: A built model.
        limits: What may be cut.
    """
    found = structures(model)
    arrays = ThresholdedArrays(model, 0.0)
    values = _Values(arrays, found, _dead(arrays, found, limits.tolerance))
    return _smaller(model, found, values, limits)


def follow_again(
    model: keras.Model,
    limits: Limits,
    places: Mapping[int, tuple[np.ndarray, ...]],
) -> Transfer:
    """Returns the way to a smaller model that was there before.

    Args:
        model: A built model.
        limits: What was cut then.
        places: For each variable, by its `id`, the indices that are left.

    Raises:
        ValueError: If the model or the limits are others.
    """
    limits = dataclasses.replace(limits, least=0.0)
    found = _smaller(model, structures(model), _Left(places), limits)
    same = found is not None and all(
        _are_same(one.places, places[id(one.variable)]) for one in found.kept
    )
    require(
        same,
        "backup",
        "a new file, or that of the same training: this one is of another "
        "model",
        model,
    )
    return cast(Transfer, found)


def _are_same(first, second) -> bool:
    """Returns whether the same indices are left of a variable."""
    if len(first) != len(second):  # what is cut of it is of the last axis
        first, second = first[-1:], second[-1:]
    return all(map(np.array_equal, first, second))


def _smaller(model, found, values, limits) -> Transfer | None:
    """Returns the way to the model without what is dead."""
    graph = found.discovery.graph
    # The analysis makes new tensors for what is inside of calls.
    inner = {node: node.inner for node in graph.nodes}
    opaque = shared_weights(graph)
    while True:
        cuts = analyse(
            graph,
            values,
            round_to=limits.round_to,
            minimum=limits.minimum,
            opaque=opaque,
            trains=True,
        )
        left = found.cost(found.left(cuts, inner))
        saved = share_saved(found.cost(), left)
        if saved <= 0 or saved < limits.least:
            return None
        try:
            rebuilt = _Followed(graph, cuts, values, model.name)
        except NotCopied as error:
            opaque[error.node] = error.reason
        else:
            return Transfer(model, rebuilt.model, rebuilt.kept)


def _dead(arrays, found: Structures, tolerance: float) -> np.ndarray:
    """Returns the structures that can be trained and are zero."""
    largest = np.zeros(found.size + 1)
    for entry in found.variables:
        sliced = entry.along("member")
        if not sliced:
            continue
        sizes = np.abs(arrays(entry.variable))
        for one in sliced:
            others = other_axes(sizes.shape, one.axis)
            np.maximum.at(largest, one.structures, sizes.max(others))
    return found.removable() & (largest[:-1] <= tolerance)


class _Values:
    """The values of variables, with zeros for what is dead."""

    def __init__(self, arrays, found, dead):
        self._arrays = arrays
        self._own = {id(v): value for v, value in found.without(dead)}

    def __call__(self, variable):
        """Returns the values of a variable, in at least float32."""
        own = self._own.get(id(variable))
        return self._arrays(variable) if own is None else own


class _Left:
    """Ones for what is left, zeros for what was cut."""

    def __init__(self, places):
        self._places = places

    def __call__(self, variable):
        """Returns the ones and zeros of a variable."""
        values = np.zeros(tuple(variable.shape), "float32")
        values[np.ix_(*self._places[id(variable)])] = 1
        return values


class _Codes:
    """Numbers in the place of values, another one for each entry.

    What a rule makes of them tells where each entry of a smaller variable
    comes from. None is 0, so that nothing looks dead.
    """

    def __init__(self):
        self._first: dict[int, tuple[keras.Variable, int]] = {}
        self._next = 1

    def __call__(self, variable):
        """Returns the numbers of a variable."""
        size = int(np.prod(variable.shape))
        if id(variable) not in self._first:
            self._first[id(variable)] = variable, self._next
            self._next += size
        first = self._first[id(variable)][1]
        codes = np.arange(first, first + size)
        return codes.reshape(tuple(variable.shape))

    def places(self, codes):
        """Returns the variable of some numbers and the indices of each axis.

        Args:
            codes: What a rule has made of the numbers of one variable.

        Returns:
            `None` if they are not whole slices of it.
        """
        whole = codes.astype("int64")
        for variable, first in self._first.values():
            flat, size = whole - first, int(np.prod(variable.shape))
            if not 0 <= flat.flat[0] < size:
                continue
            if flat.max() >= size:
                return None
            shape = shape_with(flat.ndim, variable.shape)
            if flat.ndim != len(shape):
                return None
            places = tuple(
                np.unravel_index(_edge(flat, axis), shape)[axis]
                for axis in range(flat.ndim)
            )
            again = np.ravel_multi_index(np.ix_(*places), shape)
            same = np.array_equal(again, flat) and (whole == codes).all()
            return (variable, places) if same else None
        return None


def _edge(array, axis):
    """Returns the entries along one axis, at the beginning of the others."""
    start = [0] * array.ndim
    return array[*start[:axis], :, *start[axis + 1 :]]


class _Followed(Rebuilt):
    """A model without the channels that are cut, to train on.

    Its layers keep their penalties, with the strength they had.

    Attributes:
        kept: What is left of each variable.
    """

    def __init__(self, graph, cuts, values, name):
        self.kept: list[Kept] = []
        self._codes = _Codes()
        super().__init__(graph, cuts, values, name)
        for node in self.shared:
            for variable in getattr(node.operation, "weights", ()):
                self._keep(variable, variable, _whole(variable))

    def config(self, config):
        """Returns the config as it is."""
        return config

    def set_weights(self, node: Node, new, change):
        """Sets the weights, and notes where they come from."""
        super().set_weights(node, new, change)
        old = node.operation
        _copy_states(old, new)
        if change is None:
            for a, b in weight_pairs(old, new):
                self._keep(a, b, _whole(b))
            return
        rule = self._cuts.rules[node]
        values, rule.values = rule.values, self._codes
        try:
            coded = rule.cut(
                self._cuts.kept_channels, self._cuts.input_constants[node]
            )
        finally:
            rule.values = values
        for attribute, codes in coded.weights.items():
            found = self._codes.places(np.asarray(codes))
            if found is None:
                raise NotCopied(node, "its weights are not slices of what was")
            self._keep(found[0], variable_of(new, attribute), found[1])
        self._give_penalties(new)

    def _keep(self, old, new, places):
        self.kept.append(Kept(old, new, places))
        if new is old:
            return
        new.trainable = old.trainable
        new.constraint = without_loan(old.constraint)
        regularizer = without_loan(old.regularizer)
        if isinstance(regularizer, Penalty):
            regularizer = regularizer.resized(
                tuple(old.shape), tuple(new.shape)
            )
        new.regularizer = regularizer

    def _give_penalties(self, layer):
        """Lets a layer's config say what its variables have."""
        for part in all_layers(layer):
            for layout in layouts((part,)):
                variable = getattr(part, layout.kernel)
                if isinstance(variable.regularizer, Penalty):
                    setattr(part, layout.regularizer, variable.regularizer)


def _copy_states(old, new):
    """Copies what is no weight, such as the states of random numbers."""
    pairs = (
        [v for v in getattr(one, "variables", ()) if not _is_in(v, one.weights)]
        for one in (old, new)
    )
    for a, b in zip(*pairs, strict=False):
        if a.shape == b.shape:
            b.assign(ops.convert_to_numpy(a))


def _is_in(variable, variables):
    return any(variable is other for other in variables)


def _whole(variable):
    return tuple(np.arange(size) for size in variable.shape)
