"""A group penalty on structures: its value and its proximal operator."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import other_axes, per_weight, upcast
from keras_sgl0.network.layer_table import layouts_of
from keras_sgl0.regularizers import GroupPenalty, Penalty
from keras_sgl0.structures.families import Structures
from keras_sgl0.utils.validation import InputError


class _Part(NamedTuple):
    """The members that one variable has along one axis.

    Args:
        variable: The variable.
        axis: The axis.
        owners: For each index of the axis the structure it is a member of,
            the number of all structures where there is none.
        places: For each family the indices that are its members, one row a
            structure.
    """

    variable: keras.Variable
    axis: int
    owners: np.ndarray
    places: dict[int, np.ndarray]

    def squares(self, w, dtype):
        """Returns the sum of squares of each slice of a value of it."""
        wide = ops.cast(w, dtype)
        return ops.sum(ops.square(wide), axis=other_axes(w.shape, self.axis))

    def rows(self, w, family):
        """Returns the members of a family as rows, one a structure."""
        places = self.places[family]
        slices = ops.take(ops.moveaxis(w, self.axis, 0), places.ravel(), 0)
        return ops.reshape(slices, (len(places), -1))

    def with_rows(self, w, rows):
        """Returns a value of the variable with other members.

        Args:
            w: The value.
            rows: For each family the new members, one row a structure.
        """
        moved = ops.moveaxis(w, self.axis, 0)
        order = [self.places[family].ravel() for family in rows]
        pieces = [
            ops.cast(ops.reshape(own, (-1, *moved.shape[1:])), moved.dtype)
            for own in rows.values()
        ]
        others = np.setdiff1d(np.arange(moved.shape[0]), np.concatenate(order))
        if len(others):
            order.append(others)
            pieces.append(ops.take(moved, others, 0))
        inverse = np.argsort(np.concatenate(order))
        joined = ops.take(ops.concatenate(pieces), inverse, 0)
        return ops.moveaxis(joined, 0, self.axis)


class JointPenalty:
    """The group part of a penalty, with structures as its groups.

    The members of the structures of one family form a matrix `(structures,
    |s|)`. The penalty is the sum, over families, of the penalty of that matrix
    with its rows as groups. A multiple of the groups' l2 norms needs no
    matrix: the squares of all slices are added up.

    Args:
        model: The model.
        structures: Its structures.
        penalty: A penalty with a part on groups.
        readers: Whether the slices that read a channel are members too.
        weights: By what the penalty of each family is multiplied.

    Attributes:
        removable: Flags, which structures have a penalty: those of which all
            that must be zero can be trained.
        variables: The variables that have members.
        dtype: The dtype of the value.
    """

    def __init__(
        self,
        model: keras.Model,
        structures: Structures,
        penalty: Penalty,
        readers: bool,
        weights: np.ndarray,
    ):
        self.penalty = penalty
        self.removable = structures.removable(readers)
        self._size = structures.size
        self._families = structures.families
        self._parts = self._find_parts(structures, readers)
        # By id, as variables compare by value.
        found = {id(part.variable): part.variable for part in self._parts}
        self.variables = tuple(found.values())
        wide = any(v.dtype == "float64" for v in self.variables)
        self.dtype = "float64" if wide else "float32"
        self._kernels = set(layouts_of(model))
        self._group = _with_rows_as_groups(penalty)
        self._weights = weights
        self._norm_weights = self._find_norm_weights()
        # What the variables of one step share, see `prox`.
        self._served: set[int] = set()
        self._step: Any = None

    def has(self, variable) -> bool:
        """Returns whether a variable has members.

        Args:
            variable: A variable of the model.
        """
        return any(part.variable is variable for part in self._parts)

    def element_of(self, variable) -> Penalty | None:
        """Returns the penalty on the single weights of a variable.

        Args:
            variable: A variable of the model. Only kernels have one.
        """
        return self.penalty.element if id(variable) in self._kernels else None

    def value(self):
        """Returns the penalty as a scalar in at least float32."""
        if self._norm_weights is not None:
            return ops.sum(self._constant(self._norm_weights) * self.norms())
        total = ops.zeros((), self.dtype)
        for family, rows in self._matrices(lambda variable: variable).items():
            own = self._group(ops.concatenate(rows, axis=1))
            total = total + self._weights[family] * ops.cast(own, self.dtype)
        return total

    def norms(self):
        """Returns the l2 norm of each structure, 0 for one without penalty."""
        return self._norms(lambda variable: variable)

    def why_no_prox(self) -> str:
        """Returns why there is no joint proximal operator, empty if one is."""
        group, element = self.penalty.group, self.penalty.element
        ways = "Train it by its subgradient or with `VariableSplitting`."
        for variable in self.variables:
            if sum(part.variable is variable for part in self._parts) > 1:
                return (
                    f"With `readers=True` a weight of {variable.path} is in "
                    "two structures, so the joint proximal operator is not "
                    f"known. {ways}"
                )
        if not self._group.has_prox:
            return (
                f"The proximal operator of {type(group).__name__} is not "
                f"known. {ways}"
            )
        if element is None:
            return ""
        if self._norm_weights is not None and element.precedes_groups:
            return ""
        return (
            f"The joint proximal operator of {type(group).__name__} on "
            f"structures and {type(element).__name__} on kernels is not "
            "known. It is for `GroupLasso` with `L1`, or alone. Train this "
            "penalty with `VariableSplitting`."
        )

    def prox(self, variable, w, step):
        """Returns one variable's part of the joint proximal operator.

        Keras runs the constraints of all variables one after the other, after
        all updates. The first of them computes the step from all variables as
        they are then; the others use it.

        Args:
            variable: The variable.
            w: Its value.
            step: A number or scalar tensor greater than 0.

        Raises:
            ValueError: If the operator is not known.
        """
        if reason := self.why_no_prox():
            raise InputError(reason)
        if not self.has(variable):
            return self._after_element(variable, w, step)
        if not self._served or id(variable) in self._served:
            self._served.clear()
            self._step = self._joint_step(step)
        self._served.add(id(variable))
        x = upcast(self._after_element(variable, w, step))
        for part in self._parts:
            if part.variable is variable:
                x = self._apply(part, x)
        if len(self._served) == len(self.variables):
            # A tensor must not outlive the trace it belongs to.
            self._served.clear()
            self._step = None
        return ops.cast(x, keras.backend.standardize_dtype(w.dtype))

    def _joint_step(self, step):
        """Returns factors of all structures, or the rows of all families."""

        def value(variable):
            return self._after_element(variable, variable, step)

        if self._norm_weights is None:
            return self._step_of_rows(value, step)
        norms = self._norms(value)
        amount = ops.cast(step, self.dtype)
        amount = amount * self._constant(self._norm_weights)
        alive = norms > amount
        safe = ops.where(alive, norms, ops.ones_like(norms))
        scale = ops.where(alive, 1 - amount / safe, ops.zeros_like(norms))
        # What is in no structure, or has no penalty, stays as it is.
        free = ops.convert_to_tensor(self.removable)
        scale = ops.where(free, scale, ops.ones_like(scale))
        return ops.concatenate([scale, ops.ones_like(scale[:1])])

    def _step_of_rows(self, value, step):
        """Returns the new rows of each part, by family."""
        found: dict[int, dict] = {id(part.owners): {} for part in self._parts}
        for family, rows in self._matrices(value).items():
            matrix = ops.concatenate(rows, axis=1)
            new = self._group.prox(matrix, step * self._weights[family])
            ends = np.cumsum([own.shape[1] for own in rows])[:-1].tolist()
            parts = [part for part in self._parts if family in part.places]
            for part, own in zip(parts, ops.split(new, ends, 1), strict=True):
                found[id(part.owners)][family] = own
        return found

    def _apply(self, part, x):
        """Returns a value of a variable after the joint step."""
        if self._norm_weights is None:
            return part.with_rows(x, self._step[id(part.owners)])
        factors = ops.take(self._step, part.owners, axis=0)
        return x * per_weight(ops.cast(factors, x.dtype), x.shape, part.axis)

    def _after_element(self, variable, w, step):
        """Returns a value after the operator of the part on single weights."""
        element = self.element_of(variable)
        return w if element is None else element.prox(w, step)

    def _constant(self, values):
        return ops.convert_to_tensor(values, self.dtype)

    def _norms(self, value):
        squares = [
            part.squares(value(part.variable), self.dtype)
            for part in self._parts
        ]
        owners = np.concatenate([part.owners for part in self._parts])
        total = ops.segment_sum(
            ops.concatenate(squares),
            ops.convert_to_tensor(owners, "int32"),
            num_segments=self._size + 1,
        )[: self._size]
        # Both `where` are needed: one keeps the value, one the gradient.
        alive = total > 0
        norms = ops.sqrt(ops.where(alive, total, ops.ones_like(total)))
        return ops.where(alive, norms, ops.zeros_like(total))

    def _matrices(self, value):
        """Returns for each family its members, a list of rows by part."""
        found: dict[int, list] = {}
        for part in self._parts:
            w = ops.cast(value(part.variable), self.dtype)
            for family in part.places:
                found.setdefault(family, []).append(part.rows(w, family))
        return found

    def _find_parts(self, structures, readers):
        roles = ("member", "reader") if readers else ("member",)
        allowed = np.append(self.removable, False)
        parts = []
        for entry in structures.variables:
            if not entry.variable.trainable:
                continue
            for sliced in entry.along(*roles):
                # -1, which is in no structure, is the last one here.
                has_penalty = allowed[sliced.structures]
                owners = np.where(has_penalty, sliced.structures, self._size)
                if has_penalty.any():
                    places = self._find_places(owners)
                    parts.append(
                        _Part(entry.variable, sliced.axis, owners, places)
                    )
        return tuple(parts)

    def _find_places(self, owners):
        """Returns the indices of each family's members, a row a structure."""
        order = np.argsort(owners, kind="stable")
        order = order[owners[order] < self._size]
        families = self._families[owners[order]]
        return {
            family: own.reshape(len(np.unique(owners[own])), -1)
            for family in np.unique(families).tolist()
            for own in (order[families == family],)
        }

    def _find_norm_weights(self):
        """Returns what the norm of each structure counts, if it is one."""
        if not self._group.is_norm:
            return None
        sizes = np.zeros(self._size)
        for part in self._parts:
            rest = np.prod(part.variable.shape) / len(part.owners)
            own = part.owners[part.owners < self._size]
            np.add.at(sizes, own, rest)
        counts = np.bincount(self._families)
        shapes = [
            (int(counts[family]), int(size))
            for family, size in zip(self._families, sizes, strict=True)
        ]
        weights = [
            self._group.weight(shape) if shape[1] else 0.0 for shape in shapes
        ]
        weights = np.array(weights) * self._weights[self._families]
        return weights.astype(self.dtype)


def _with_rows_as_groups(penalty: Penalty) -> GroupPenalty:
    """Returns the group part for a matrix with one group a row."""
    group: Any = penalty.group
    return type(group).from_config(group.get_config() | {"axis": 0})
