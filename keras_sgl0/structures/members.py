"""The members of structures: slices of variables that go together."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import (
    other_axes,
    per_weight,
    safe_sqrt,
    sum_of_squares,
)
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.slices import Role


class Part(NamedTuple):
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

    def scaled(self, w, factors):
        """Returns a value of the variable with each slice multiplied.

        Args:
            w: The value.
            factors: One number a structure, then 1 for what is in none.
        """
        own = ops.cast(self.spread(factors, w.shape), w.dtype)
        return ops.multiply(w, own)

    def spread(self, numbers, shape):
        """Returns one number for each slice, to broadcast over a value.

        Args:
            numbers: One number a structure, then one for what is in none.
            shape: The shape of the variable.
        """
        own = ops.take(numbers, self.owners, axis=0)
        return per_weight(own, shape, self.axis)

    def squares(self, w, dtype):
        """Returns the sum of squares of each slice of a value of it."""
        wide = ops.cast(w, dtype)
        return sum_of_squares(wide, other_axes(w.shape, self.axis))

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


class Members:
    """The trainable members of the structures of a model.

    Args:
        structures: The structures.
        readers: Whether the slices that read a channel are members too.
        wanted: Flags, the structures to take; `None` for all of them.

    Attributes:
        structures: The structures.
        removable: Flags, which wanted structures training can set to zero. The
            others have no members here.
        parts: The members, by variable and axis.
        variables: The variables that have members.
        dtype: The dtype to compute in: at least float32.
    """

    def __init__(
        self,
        structures: Structures,
        readers: bool = False,
        wanted: np.ndarray | None = None,
    ):
        self.structures = structures
        self.removable = structures.removable(readers)
        if wanted is not None:
            self.removable = self.removable & wanted
        roles: tuple[Role, ...] = ("member",)
        self.parts = self._find(roles + (("reader",) if readers else ()))
        # By id, as variables compare by value.
        self._by_variable: dict[int, list[Part]] = {}
        for part in self.parts:
            self._by_variable.setdefault(id(part.variable), []).append(part)
        self.variables = tuple(
            parts[0].variable for parts in self._by_variable.values()
        )
        wide = any(v.dtype == "float64" for v in self.variables)
        self.dtype = "float64" if wide else "float32"

    def of(self, variable) -> list[Part]:
        """Returns the members in a variable.

        Args:
            variable: A variable of the model.
        """
        return self._by_variable.get(id(variable), [])

    def parts_of(self, family: int) -> list[Part]:
        """Returns the parts that hold members of a family.

        Args:
            family: The number of the family.
        """
        return [part for part in self.parts if family in part.places]

    def owners(self, family: int) -> np.ndarray:
        """Returns the structures of a family that have members, in order.

        They are the rows of its matrix.

        Args:
            family: The number of the family.
        """
        part = self.parts_of(family)[0]
        return part.owners[part.places[family][:, 0]]

    def matrix_shape(self, family: int) -> tuple[int, int]:
        """Returns how many structures a family has, and of what size.

        Args:
            family: The number of the family.
        """
        owners = self.owners(family)
        return len(owners), max(int(self.sizes()[owners[0]]), 1)

    def sources(self, part: Part, transfer: Transfer, before: "Members"):
        """Returns of which structures of a larger model the slices were.

        Args:
            part: Members in the smaller model.
            transfer: From the larger model to this one.
            before: The members in the larger model.

        Returns:
            For each index of the part's axis the number of the structure.
        """
        variable = transfer.source(part.variable)
        # From the last, as a weight of a block may have had others before.
        axis = part.axis - len(part.variable.shape)
        (old,) = (
            p
            for p in before.of(variable)
            if p.axis - len(variable.shape) == axis
        )
        return old.owners[transfer.places(variable)[axis]]

    def among(self, variables: Iterable[keras.Variable]) -> np.ndarray:
        """Returns which structures have members in some variables.

        Args:
            variables: Some of those with members.
        """
        found = np.zeros(self.structures.size + 1, bool)
        for variable in variables:
            for part in self.of(variable):
                found[part.owners] = True
        return found[:-1]

    def sizes(self) -> np.ndarray:
        """Returns `|s|`, the number of weights of each structure."""
        sizes = np.zeros(self.structures.size, int)
        for part in self.parts:
            rest = int(np.prod(part.variable.shape)) // len(part.owners)
            own = part.owners[part.owners < self.structures.size]
            np.add.at(sizes, own, rest)
        return sizes

    def zero(self, dead: np.ndarray):
        """Sets the members of structures to zero, and their statistics.

        Args:
            dead: Flags, one a structure; what has no members here stays.
        """
        dead = dead & self.removable
        factors = np.append(~dead, True).astype(self.dtype)
        for part in self.parts:
            if not factors[part.owners].all():
                part.variable.assign(part.scaled(part.variable, factors))
        self.structures.zero(dead, ("statistic",))

    def norms(self, value: Callable = lambda variable: variable):
        """Returns the l2 norm of each structure, 0 for one without members.

        The gradient at a norm of 0 is 0.

        Args:
            value: What to take for the value of a variable.
        """
        size = self.structures.size
        if not self.parts:
            return ops.zeros(size, self.dtype)
        squares = [
            part.squares(value(part.variable), self.dtype)
            for part in self.parts
        ]
        owners = np.concatenate([part.owners for part in self.parts])
        total = ops.segment_sum(
            ops.concatenate(squares),
            ops.convert_to_tensor(owners, "int32"),
            num_segments=size + 1,
        )[:size]
        return safe_sqrt(total)

    def matrices(self, value: Callable = lambda variable: variable) -> dict:
        """Returns for each family its members: rows by structure and part.

        Args:
            value: What to take for the value of a variable.
        """
        found: dict[int, list] = {}
        for part in self.parts:
            w = ops.cast(value(part.variable), self.dtype)
            for family in part.places:
                found.setdefault(family, []).append(part.rows(w, family))
        return found

    def _find(self, roles):
        parts = []
        allowed = np.append(self.removable, False)
        for entry in self.structures.variables:
            if not entry.variable.trainable:
                continue
            for sliced in entry.along(*roles):
                # -1, for no structure, is the last of `allowed`.
                has_one = allowed[sliced.structures]
                size = self.structures.size
                owners = np.where(has_one, sliced.structures, size)
                if has_one.any():
                    places = self._places(owners)
                    parts.append(
                        Part(entry.variable, sliced.axis, owners, places)
                    )
        return tuple(parts)

    def _places(self, owners):
        """Returns the indices of each family's members, a row a structure."""
        order = np.argsort(owners, kind="stable")
        order = order[owners[order] < self.structures.size]
        families = self.structures.families[owners[order]]
        found = {}
        for family in np.unique(families).tolist():
            own = order[families == family]
            found[family] = own.reshape(len(np.unique(owners[own])), -1)
        return found
