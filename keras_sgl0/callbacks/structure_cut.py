"""What a target density counts and cuts where it speaks of structures."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.compilation import scope_of
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.members import Members
from keras_sgl0.structures.selection import PRECISION, Floor, select
from keras_sgl0.structures.values import ThresholdedArrays
from keras_sgl0.utils.validation import InputError


class StructureCut:
    """Structures that are cut for good, one after the other.

    It has the same methods as `WeightCut`.

    Args:
        target: The density to be met, in (0, 1].
        measure: What is counted.
        model: The model.
        members: The members of its structures.
        penalised: Flags, which structures have a penalty; `None` for all with
            members, which `CoupledGroups` penalises.
        minimum: How many structures each family keeps.
        round_to: Families keep a multiple of this many.

    Raises:
        ValueError: If the target cannot be met, or the measure not be taken.
    """

    def __init__(
        self,
        target: float,
        measure: Measure,
        model: keras.Model,
        members: Members,
        penalised: np.ndarray | None,
        minimum: int,
        round_to: int,
    ):
        self._target = target
        self._measure = measure
        self._members = members
        self._structures = members.structures
        cost = self._structures.cost()
        if measure == "macs" and cost.macs is None:
            raise InputError(
                "`TargetDensity` cannot count the macs of a model whose "
                "inputs have no known sizes. Give a target of parameters, or a "
                "model that is called on inputs of known sizes. "
                f"Received: {model!r}"
            )
        self._total = cost.of(measure)
        self._values = ThresholdedArrays(model)
        self._has_trained = False
        self._coupled = penalised is None
        self._removable = _removable(members, penalised)
        self._floor = Floor(self._removable, minimum, round_to)
        self._floor.require_reach(
            self._structures,
            measure,
            target,
            "density",
            "have no penalty, are frozen, or make the model's outputs",
        )
        with scope_of(model):
            self._kept: Any = _flags(members)

    def follow(
        self,
        transfer: Transfer,
        members: Members,
        penalised: np.ndarray | None,
    ):
        """Goes on with a smaller model, the density being that of this one.

        Args:
            transfer: From the model to the smaller one.
            members: The members of the structures of the smaller model.
            penalised: Flags, which structures have a penalty, as before.
        """
        kept = np.ones(members.structures.size + 1)
        before = ops.convert_to_numpy(self._kept)
        for part in members.parts:
            source = members.sources(part, transfer, self._members)
            kept[part.owners] = before[source]
        self._members, self._structures = members, members.structures
        self._values = ThresholdedArrays(transfer.model)
        self._removable = _removable(members, penalised)
        self._floor = dataclasses.replace(
            self._floor, removable=self._removable
        )
        with scope_of(transfer.model):
            self._kept = _flags(members)
        self._kept.assign(kept)

    def has(self, variable) -> bool:
        """Returns whether a variable has something that may be cut.

        Args:
            variable: A variable of the model.
        """
        return bool(self._members.of(variable))

    def masked(self, variable, w):
        """Returns a value of a variable with zeros for what is cut.

        Args:
            variable: The variable.
            w: Its value.
        """
        for part in self._members.of(variable):
            w = part.scaled(w, ops.convert_to_tensor(self._kept))
        return w

    def density(self) -> float:
        """Returns the density: that of the model that `shrink` leaves.

        In the first epoch, it is what has a member that is not zero. A layer
        may begin with gammas of zero, and what is behind them is not dead.
        """
        return self._cost(self._alive()) / self._total

    def prices(self, variables: list) -> np.ndarray:
        """Returns by what the penalty of each variable is multiplied.

        With `"macs"`, that is what an entry of a kernel costs, relative to the
        mean over all weights of the kernels. A penalty of `CoupledGroups` has
        its own weights for that.

        Args:
            variables: Those with a penalty.

        Raises:
            ValueError: If one is in no structure and no kernel whose cost is
                known.
        """
        known = {id(e.variable): e for e in self._structures.variables}
        positions = np.zeros(len(variables))
        sizes = np.zeros(len(variables))
        for i, variable in enumerate(variables):
            entry = known.get(id(variable))
            if entry is None or not (entry.axes or entry.is_kernel):
                raise InputError(
                    f"`TargetDensity` cannot count the {self._measure} of "
                    f'{variable.path}. Received: of="{self._measure}"'
                )
            if entry.is_kernel and not self._coupled:
                positions[i] = entry.positions or 0
                sizes[i] = math.prod(variable.shape)
        if self._measure != "macs" or not positions.any():
            return np.ones(len(variables))
        relative = positions * sizes.sum() / (positions @ sizes)
        return np.where(sizes > 0, relative, 1.0)

    def begin_epoch(self, resumed: bool) -> bool:
        """Cuts what is exactly zero, so that it stays so.

        A resumed run, which knows only the weights, and any other do alike.

        Args:
            resumed: Whether this epoch is the first one of a resumed run.

        Returns:
            `False`: a run that has met its target is cut when it is counted.
        """
        self._has_trained |= resumed
        self._keep(self._alive())
        return False

    def end_epoch(self):
        """Counts from now on what is alive, not only what is not zero."""
        self._has_trained = True

    def approach(self, path: float):
        """Cuts the smallest structures, as far as that stays above the target.

        Args:
            path: The most that the density may be.
        """
        least = self._target * self._total
        chosen = self._largest(path * self._total, least)
        enough = self._cost(chosen) >= least
        self._keep(chosen if enough else self._alive())

    def finish(self):
        """Keeps the largest structures that the target pays for."""
        most = self._target * self._total
        self._keep(self._largest(most, (1 - PRECISION) * most))

    def _largest(self, most, least):
        """Returns what is kept for a cost between two."""
        alive = self._alive()
        if self._cost(alive) <= most:
            return alive
        sizes = ops.convert_to_numpy(self._members.norms())
        return select(
            self._structures,
            sizes.astype("float64"),
            alive,
            (least, most),
            self._measure,
            self._floor,
        )

    def _cost(self, kept):
        return self._structures.cost(kept).of(self._measure)

    def _alive(self):
        norms = ops.convert_to_numpy(self._members.norms())
        kept = ops.convert_to_numpy(self._kept)[:-1] > 0
        alive = kept & (norms != 0)
        if self._has_trained:
            alive &= self._structures.alive(self._values)
        return ~self._removable | alive

    def _keep(self, alive):
        self._kept.assign(np.append(alive, True).astype("float32"))
        # Not left to the next step: there may be none.
        self._members.zero(~alive)


def _removable(members, penalised):
    if penalised is None:
        return members.removable
    return members.removable & penalised


def _flags(members):
    """Returns a variable of ones; the last is for what is in no structure."""
    return keras.Variable(
        np.ones(members.structures.size + 1),
        trainable=False,
        dtype=members.dtype,
        name="kept_structures",
    )
