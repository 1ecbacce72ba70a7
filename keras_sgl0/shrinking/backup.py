"""The state of a training on a shrinking network, in a file."""

import os
from typing import Any

import keras
import numpy as np

from keras_sgl0.network.transfer import Transfer, shape_with
from keras_sgl0.utils.files import array_of, read_state, write_state
from keras_sgl0.utils.validation import InputError


class Backup:
    """What a killed training goes on from, replaced as a whole each epoch.

    Args:
        path: The file, `None` for none.

    Attributes:
        done: How many epochs were done, `None` without a file.
        finished: Whether the training was over.
        history: The logs of all epochs, by name.
        epochs: The numbers of these epochs.
        cuts: What `fit_shrinking` puts into `History.cuts`.

    Raises:
        ValueError: If the file is damaged.
    """

    def __init__(self, path: str | None):
        self._path = path
        self._values: dict[str, np.ndarray] = {}
        self.done: int | None = None
        self.finished = False
        self.history: dict[str, list] = {}
        self.epochs: list[int] = []
        self.cuts: list[tuple[int, int]] = []
        if path is not None and os.path.exists(path):
            read_state(path, self._take)

    @property
    def has_cut(self) -> bool:
        """Whether the model in the file is smaller than the original."""
        return any(name.startswith("places/") for name in self._values)

    def places(self, model: keras.Model) -> dict[int, tuple[np.ndarray, ...]]:
        """Returns what was left of each variable, by its `id`.

        Args:
            model: The original model.

        Raises:
            ValueError: If the file is of another one.
        """
        found = {}
        for i, variable in enumerate(_own_variables(model)):
            own = []
            for axis, size in enumerate(variable.shape):
                whole = np.arange(size)
                own.append(self._values.get(f"places/{i}/{axis}", whole))
                if own[-1].max(initial=0) >= size:
                    raise self._of_another()
            found[id(variable)] = tuple(own)
        return found

    def restore(self, model: keras.Model):
        """Gives a model and its optimizer the values in the file.

        Args:
            model: The smaller model, or the original one if none was cut.

        Raises:
            ValueError: If the file is of another one.
        """
        for i, variable in enumerate(_variables(model)):
            value = self._values.get(f"variable/{i}")
            if value is None or value.shape != tuple(variable.shape):
                raise self._of_another()
            variable.assign(value)

    def restore_callbacks(self, callbacks: list):
        """Gives callbacks that have a state what is in the file.

        Args:
            callbacks: The callbacks of the training.
        """
        for i, callback in enumerate(callbacks):
            start = f"callback/{i}/"
            store = {
                name.removeprefix(start): value
                for name, value in self._values.items()
                if name.startswith(start)
            }
            if store:
                callback.load_own_variables(store)

    def save(
        self,
        done: int,
        finished: bool,
        history: Any,
        model: keras.Model,
        transfer: Transfer | None,
        callbacks: list,
    ):
        """Writes the state after an epoch.

        Args:
            done: How many epochs were done.
            finished: Whether the training is over.
            history: Their history, with the cuts.
            model: The model at hand.
            transfer: From the original one to it, `None` if it is that one.
            callbacks: The callbacks of the training.
        """
        if self._path is None:
            return
        values: dict[str, Any] = {
            f"variable/{i}": array_of(v)
            for i, v in enumerate(_variables(model))
        }
        if transfer is not None:
            for i, variable in enumerate(_own_variables(transfer.original)):
                if not transfer.has(variable):
                    continue
                places = transfer.places(variable)
                sizes = shape_with(len(places), variable.shape)
                for axis, own in enumerate(places):
                    if len(own) < sizes[axis]:
                        # From the last, which is that of a table of rows too.
                        axis += len(variable.shape) - len(places)
                        values[f"places/{i}/{axis}"] = own
        for i, callback in enumerate(callbacks):
            store: dict[str, np.ndarray] = {}
            if hasattr(callback, "save_own_variables"):
                callback.save_own_variables(store)
            values |= {f"callback/{i}/{k}": v for k, v in store.items()}
        facts = {
            "done": done,
            "finished": bool(finished),
            "history": history.history,
            "epochs": history.epoch,
            "cuts": history.cuts,
        }
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        write_state(self._path, facts, values)

    def _take(self, facts, values):
        self._values = values
        self.done, self.finished = facts["done"], facts["finished"]
        self.history, self.epochs = facts["history"], facts["epochs"]
        self.cuts = [(done, size) for done, size in facts["cuts"]]

    def _of_another(self):
        return InputError(
            "Invalid value for argument `backup`. Expected a new file, or that "
            "of the same training: this one is of another model or optimizer. "
            f"Received: backup={self._path!r}"
        )


def _variables(model) -> list:
    return [*_own_variables(model), *model.optimizer.variables]


def _own_variables(model) -> list:
    """Returns the weights and the states of random numbers."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]
