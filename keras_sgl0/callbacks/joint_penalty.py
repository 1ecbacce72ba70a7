"""A group penalty on structures: its value and its proximal operator."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import upcast
from keras_sgl0.network.layer_table import layouts_of
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.regularizers import GroupPenalty, Penalty
from keras_sgl0.regularizers.group import shrinkage
from keras_sgl0.structures.members import Members
from keras_sgl0.utils.validation import InputError


class JointPenalty:
    """The group part of a penalty, with structures as its groups.

    The members of the structures of one family form a matrix `(structures,
    |s|)`. The penalty is the sum, over families, of the penalty of that matrix
    with its rows as groups. A multiple of the groups' l2 norms needs no
    matrix: the squares of all slices are added up.

    Args:
        model: The model.
        members: The members of its structures.
        penalty: A penalty with a part on groups.
        weights: By what the penalty of each family is multiplied.
        groups: The group part of each family, in place of that of the penalty.

    Attributes:
        penalty: The penalty.
        members: The members.
        why_no_prox: Why the joint proximal operator is not known, empty if it
            is.
    """

    def __init__(
        self,
        model: keras.Model,
        members: Members,
        penalty: Penalty,
        weights: np.ndarray,
        groups: list[GroupPenalty] | None = None,
    ):
        self.penalty = penalty
        self.members = members
        self._kernels = set(layouts_of(model))
        self._group = _with_rows_as_groups(penalty)
        self._groups = groups or [self._group] * len(weights)
        self._weights = weights
        self._norm_weights = self._find_norm_weights()
        self.why_no_prox = self._find_why_no_prox()
        # What the variables of one step share, see `prox`.
        self._served: set[int] = set()
        self._step: Any = None
        self._smallest: Any = None

    def element_of(self, variable) -> Penalty | None:
        """Returns the penalty on the single weights of a variable.

        Args:
            variable: A variable of the model. Only kernels have one.
        """
        return self.penalty.element if id(variable) in self._kernels else None

    def value(self):
        """Returns the penalty as a scalar in at least float32."""
        dtype = self.members.dtype
        if self._norm_weights is not None:
            weights = ops.convert_to_tensor(self._norm_weights, dtype)
            return ops.sum(weights * self.members.norms())
        total = ops.zeros((), dtype)
        for family, rows in self.members.matrices().items():
            own = self._groups[family](ops.concatenate(rows, axis=1))
            total = total + self._weights[family] * ops.cast(own, dtype)
        return total

    def following(self, transfer: Transfer, members: Members) -> "JointPenalty":
        """Returns the same penalty on what is left of the structures.

        Args:
            transfer: From the model to a smaller one.
            members: The members of the structures of the smaller model.
        """
        number = len(members.structures.counts)
        weights, groups = np.ones(number), [self._group] * number
        for part in members.parts:
            for family, places in part.places.items():
                source = members.sources(part, transfer, self.members)
                one = source[places[0, 0]]
                old = int(self.members.structures.families[one])
                weights[family] = self._weights[old]
                groups[family] = self._groups[old].resized(
                    self.members.matrix_shape(old),
                    members.matrix_shape(family),
                )
        return JointPenalty(
            transfer.model, members, self.penalty, weights, groups
        )

    def _find_why_no_prox(self) -> str:
        group, element = self.penalty.group, self.penalty.element
        ways = "Train it by its subgradient or with `VariableSplitting`."
        for variable in self.members.variables:
            if len(self.members.of(variable)) > 1:
                # Groups that overlap, none within the other: one step after
                # the other is not the step for their sum.
                return (
                    f"A weight of {variable.path} is in two structures, as "
                    "with `readers=True`, or in a head and in a dimension of "
                    "an attention layer, so the joint proximal operator is not "
                    "known. Choose one kind, `CoupledGroups(..., "
                    f'inside="heads")`, or train otherwise. {ways}'
                )
        if not self._group.has_prox:
            return (
                f"The proximal operator of {type(group).__name__} is not "
                f"known. {ways}"
            )
        if element is None:
            return ""
        if self._norm_weights is not None and (
            element.precedes_groups or element.ranks_with_groups
        ):
            return ""
        return (
            f"The joint proximal operator of {type(group).__name__} on "
            f"structures and {type(element).__name__} on kernels is not "
            "known. It is for `GroupLasso` with `L1` or `L0`, or alone. Train "
            "this penalty with `VariableSplitting`."
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
        if self.why_no_prox:
            raise InputError(self.why_no_prox)
        parts = self.members.of(variable)
        if not parts:
            return self._after_element(variable, w, step)
        if not self._served or id(variable) in self._served:
            self._served.clear()
            self._step = self._joint_step(step)
        self._served.add(id(variable))
        x = upcast(self._after_element(variable, w, step))
        for part in parts:
            x = self._apply(part, x)
        if len(self._served) == len(self.members.variables):
            # A tensor must not outlive the trace it belongs to.
            self._served.clear()
            self._step = self._smallest = None
        return ops.cast(x, keras.backend.standardize_dtype(w.dtype))

    def _joint_step(self, step):
        """Returns factors of all structures, or the rows of all families."""

        def value(variable):
            return self._after_element(variable, variable, step)

        if self._norm_weights is None:
            return self._step_of_rows(value, step)
        dtype = self.members.dtype
        weights = ops.convert_to_tensor(self._norm_weights, dtype)
        prices = ops.cast(step, dtype) * weights
        element = self.penalty.element
        if element is not None and element.ranks_with_groups:
            self._smallest = self._find_smallest(element, prices, step)
        scale = shrinkage(self.members.norms(value), prices)
        # The last one is for what is in no structure.
        return ops.concatenate([scale, ops.ones_like(scale[:1])])

    def _find_smallest(self, element, prices, step):
        """Returns the size of the smallest weight that each structure keeps."""
        found: list = []
        owners: list[np.ndarray] = []
        for family, rows in self.members.matrices().items():
            own = self.members.owners(family)
            kinds = [
                id(part.variable) in self._kernels
                for part in self.members.parts_of(family)
            ]
            pairs = list(zip(rows, kinds, strict=True))
            counted = [ops.abs(r) for r, is_kernel in pairs if is_kernel]
            rest = [ops.square(r) for r, is_kernel in pairs if not is_kernel]
            if not counted:
                continue
            joined = ops.concatenate(counted, axis=1)
            largest = ops.flip(ops.sort(joined, axis=1), axis=1)
            squares = ops.zeros_like(largest[:, :1])
            if rest:
                joined = ops.concatenate(rest, axis=1)
                squares = ops.sum(joined, axis=1, keepdims=True)
            price = ops.take(prices, own, axis=0)[:, None]
            found.append(element.smallest_kept(largest, squares, price, step))
            owners.append(own)
        # The last entry is for weights in no structure.
        alone = ops.reshape(element.threshold(step), (1,))
        found.append(ops.cast(alone, self.members.dtype))
        structures = np.concatenate(owners)
        places = np.full(self.members.structures.size + 1, len(structures))
        places[structures] = np.arange(len(structures))
        return ops.take(ops.concatenate(found), places, axis=0)

    def _step_of_rows(self, value, step):
        """Returns the new rows of each part, by family."""
        found: dict[int, dict] = {
            id(part.owners): {} for part in self.members.parts
        }
        for family, rows in self.members.matrices(value).items():
            matrix = ops.concatenate(rows, axis=1)
            weight = self._weights[family]
            new = self._groups[family].prox(matrix, step * weight)
            ends = np.cumsum([own.shape[1] for own in rows])[:-1].tolist()
            parts = self.members.parts_of(family)
            for part, own in zip(parts, ops.split(new, ends, 1), strict=True):
                found[id(part.owners)][family] = own
        return found

    def _apply(self, part, x):
        """Returns a value of a variable after the joint step."""
        if self._norm_weights is None:
            return part.with_rows(x, self._step[id(part.owners)])
        return part.scaled(x, self._step)

    def _after_element(self, variable, w, step):
        """Returns a value after the operator of the part on single weights."""
        element = self.element_of(variable)
        if element is None:
            return w
        parts = self.members.of(variable)
        if self._smallest is None or not parts:
            return element.prox(w, step)
        (part,) = parts
        w = ops.convert_to_tensor(w)
        least = part.spread(self._smallest, w.shape)
        return ops.where(ops.abs(upcast(w)) < least, ops.zeros_like(w), w)

    def _find_norm_weights(self):
        """Returns what the norm of each structure counts, if it is one."""
        if not self._group.is_norm:
            return None
        found = self.members.structures
        sizes = self.members.sizes()
        # Structures without members have norms of 0, whatever these count.
        weights = [
            self._groups[family].weight(
                (int(found.counts[family]), max(int(size), 1))
            )
            for family, size in zip(found.families, sizes, strict=True)
        ]
        return np.array(weights) * self._weights[found.families]


def _with_rows_as_groups(penalty: Penalty) -> GroupPenalty:
    """Returns the group part for a matrix with one group a row."""
    group: Any = penalty.group
    return type(group).from_config(group.get_config() | {"axis": 0})
