"""The state of a callback in a file, by the epochs that were done."""

import os
import warnings

import numpy as np

from keras_sgl0.utils.files import write
from keras_sgl0.utils.validation import InputError


class StateFile:
    """A file with the state of a callback after the last two epochs.

    Two, as a run may be stopped when this file is written and that of the
    model is not. The file is never half written.

    Args:
        path: Its name.
    """

    def __init__(self, path: str):
        self.path = path
        self._written: dict[int, list[np.ndarray]] = {}

    def write(self, done: int, state: list[np.ndarray]):
        """Writes the state, and keeps the one before.

        Args:
            done: How many epochs were done.
            state: Arrays.
        """
        before = {n: s for n, s in self._written.items() if n == done - 1}
        self._written = before | {done: state}
        arrays = {
            f"{number}/{i}": array
            for number, one in self._written.items()
            for i, array in enumerate(one)
        }
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        write(
            self.path,
            lambda file: np.savez(file, allow_pickle=False, **arrays),
        )

    def read(
        self, done: int, shapes: list[tuple[int, ...]]
    ) -> list[np.ndarray] | None:
        """Returns the state, `None` with a warning if there is no file.

        Args:
            done: How many epochs were done.
            shapes: Those of the arrays.

        Raises:
            ValueError: If the file has the state after other epochs only, or
                arrays of other shapes.
        """
        if not os.path.exists(self.path):
            warnings.warn(
                f"There is no {self.path}: the state after {done} epochs is "
                "not known, and training goes on without it.",
                stacklevel=2,
            )
            return None
        found: dict[int, list[np.ndarray]] = {}
        with np.load(self.path) as file:
            for name in file.files:
                number = int(name.partition("/")[0])
                found.setdefault(number, []).append(file[name])
        if done not in found:
            raise InputError(
                "Invalid value for argument `backup`. Expected the file of a "
                f"run with {done} epochs done, as `fit` begins there. It holds "
                f"the state after {sorted(found)}. Received: "
                f"backup={self.path!r}"
            )
        received = [array.shape for array in found[done]]
        if received != shapes:
            raise InputError(
                "Invalid value for argument `backup`. Expected the file of a "
                f"run of this model, with arrays of {shapes}. It holds "
                f"{received}. Received: backup={self.path!r}"
            )
        self._written = {done: found[done]}
        return found[done]
