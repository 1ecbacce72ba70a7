"""What a compression keeps on disk, so that a kill costs one epoch."""

import json
import os
import zlib
from typing import Any

import keras
import numpy as np

from keras_sgl0.utils.files import array_of, read_state, write_state
from keras_sgl0.utils.validation import InputError


class State:
    """The state of a training, and of the cut before it, in one file.

    The file is replaced as a whole, so a kill at any time leaves a good one.

    Args:
        path: The file; `None` to keep nothing.
        key: What the state is of, as plain values. A file with another key is
            refused.

    Attributes:
        kept: Flags, which structures the cut keeps; `None` before the cut, and
            where the training is for finding out.
        facts: What was measured at the cut.
        history: The logs of each epoch.

    Raises:
        ValueError: If the file is of something else, or damaged.
    """

    def __init__(self, path: str | None, key: dict):
        self._path = path
        self._key = json.loads(json.dumps(key))
        self._values: list[np.ndarray] = []
        self.kept: np.ndarray | None = None
        self.facts: dict[str, Any] = {}
        self.history: list[dict] = []
        if path is not None and os.path.exists(path):
            self._load(path)

    def begin(self, model: keras.Model) -> int:
        """Sets a model to where it was, and returns the number of epochs.

        Args:
            model: The compiled model, as it is after the cut.
        """
        if self._values:
            pairs = zip(_variables(model), self._values, strict=True)
            for variable, value in pairs:
                variable.assign(value)
        else:
            self.save(model)
        return len(self.history)

    def save(self, model: keras.Model, logs: dict | None = None):
        """Keeps the state of a model.

        Args:
            model: The compiled model.
            logs: The logs of the epoch that has ended, `None` for none.
        """
        if logs is not None:
            self.history.append(logs)
        if self._path is None:
            return
        values: dict[str, Any] = {
            str(i): array_of(v) for i, v in enumerate(_variables(model))
        }
        if self.kept is not None:
            values["kept"] = self.kept
        content = {
            "key": self._key,
            "facts": self.facts,
            "history": self.history,
        }
        write_state(self._path, content, values)

    def _load(self, path):
        content: dict = {}

        def take(facts, values):
            content.update(facts)
            self.kept = values.pop("kept", None)
            self._values = [values[str(i)] for i in range(len(values))]

        read_state(path, take)
        if content["key"] != self._key:
            other = {
                name: (content["key"].get(name), self._key.get(name))
                for name in content["key"] | self._key
                if content["key"].get(name) != self._key.get(name)
            }
            raise InputError(
                "Invalid value for argument `workdir`. Expected a new folder, "
                "or one of the same compression. These differ (there, here): "
                f"{other}. Received: {path}"
            )
        self.facts, self.history = content["facts"], content["history"]


def fingerprint(model: keras.Model) -> str:
    """Returns a short text that differs for models with other weights.

    Args:
        model: A built model.
    """
    crc = 0
    for variable in model.weights:
        crc = zlib.crc32(array_of(variable).tobytes(), crc)
    return f"{crc:08x}"


def _variables(model) -> list:
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]
