"""What a target density counts and cuts where it speaks of single weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks.density_measures import (
    MEASURES,
    fan_in,
    negligible,
)
from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.layer_table import layouts_of
from keras_sgl0.network.transfer import Transfer


class WeightCut:
    """Weights of kernels that are cut for good, all at once.

    It has the same methods as `StructureCut`.

    Args:
        target: The density to be met, in (0, 1].
        measure: What is counted, a name in `MEASURES`.
        model: The model.
        kernels: Its variables with a penalty.

    Raises:
        ValueError: If the target cannot be met, or the measure not be taken.
    """

    def __init__(
        self, target: float, measure: str, model: keras.Model, kernels: list
    ):
        self._target = target
        self._kernels = kernels
        known = layouts_of(model)
        # Up to this size the weights of each kernel are dead.
        self._least = [
            negligible(fan_in(kernel, known.get(id(kernel))))
            for kernel in kernels
        ]
        self._measure = MEASURES[measure](target, model, kernels)
        # By id, as variables compare by value. Empty until the cut.
        self._supports: dict[int, np.ndarray] = {}
        self._count_alive: Any = compiled(self._alive)

    def follow(
        self,
        transfer: Transfer,
        members: object = None,
        penalised: object = None,
    ):
        """Goes on with a smaller model, the density being that of this one.

        Args:
            transfer: From the model to the smaller one.
            members: Not used.
            penalised: Not used.
        """
        self._supports = {
            id(transfer.of(kernel)): transfer.take(kernel, own)
            for kernel in self._kernels
            if (own := self._supports.get(id(kernel))) is not None
        }
        self._kernels = [transfer.of(kernel) for kernel in self._kernels]
        self._measure.follow(transfer)
        self._count_alive = compiled(self._alive)

    def has(self, variable) -> bool:
        """Returns whether a variable without a penalty is cut: never.

        Args:
            variable: A variable of the model.
        """
        return False

    def prices(self, variables: list) -> np.ndarray:
        """Returns by what the penalty of each variable is multiplied: 1.

        Args:
            variables: Variables with a penalty.
        """
        return np.ones(len(variables))

    def masked(self, variable, w):
        """Returns a value of a variable with zeros for what is cut.

        Args:
            variable: The variable.
            w: Its value.
        """
        support = self._supports.get(id(variable))
        return w if support is None else w * ops.cast(support, w.dtype)

    def density(self) -> float:
        """Returns the density: what is not dead."""
        alive = ops.convert_to_numpy(self._count_alive()).astype("int64")
        return self._measure.density(alive)

    def begin_epoch(self, resumed: bool) -> bool:
        """Returns whether a resumed run was cut before it was stopped.

        Args:
            resumed: Whether this epoch is the first one of a resumed run.
        """
        if not resumed:
            return False
        alive = [int(self._measure.alive(k, 0.0)) for k in self._kernels]
        if not self._measure.density(np.array(alive)) <= self._target < 1:
            return False
        self._fix([ops.convert_to_numpy(k) != 0 for k in self._kernels])
        return True

    def end_epoch(self):
        """Counts on as before."""

    def approach(self, path: float):
        """Cuts nothing: on its way to the target the penalty does it.

        Args:
            path: The density that is due.
        """

    def finish(self):
        """Keeps the largest weights that the target pays for."""
        self._fix(self._measure.supports(self._least))

    def _fix(self, supports):
        for kernel, support in zip(self._kernels, supports, strict=True):
            kernel.assign(ops.convert_to_numpy(kernel) * support)
            self._supports[id(kernel)] = support
        # What is left counts, however small.
        self._least = [0.0] * len(self._kernels)
        self._count_alive = compiled(self._alive)

    def _alive(self):
        """Returns the number of units alive in each kernel."""
        return ops.stack(
            list(map(self._measure.alive, self._kernels, self._least))
        )
