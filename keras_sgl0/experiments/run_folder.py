"""The folder of a run. Its files are written atomically."""

import csv
import errno
import io
import json
import os
import warnings
import zipfile
from collections.abc import Sequence

import keras
import numpy as np

from keras_sgl0.experiments.lock import Lock
from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.run_result import RunResult
from keras_sgl0.utils.validation import InputError, RunError

RECIPE, CHECKPOINT = "recipe.json", "checkpoint.keras"
HISTORY, MODEL, RESULT = "history.csv", "model.keras", "result.json"
SHRUNK = "shrunk.keras"
# What a run that shrinks while it trains goes on from.
SHRINKING = "shrinking.npz"
# Entries of the checkpoint besides those of Keras.
_EPOCHS, _CALLBACKS = "keras_sgl0/epochs", "keras_sgl0/callbacks.npz"
# No space left, quota exceeded, file too large, input/output error.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def run_lock(folder: str | os.PathLike) -> Lock:
    """Returns the lock that a run holds while it trains.

    Args:
        folder: The run's folder, which need not exist.
    """
    return Lock(os.path.join(folder, "lock"))


class RunFolder:
    """Reads and writes the files of one run.

    Every file is written under another name and then renamed, so a killed run
    leaves no incomplete file. Of several processes only the chief writes.

    Args:
        path: The folder, which need not exist.
        writes: Whether this process writes.
    """

    def __init__(self, path: str | os.PathLike, writes: bool = True):
        self.path: str = os.path.expanduser(path)
        self.writes = writes
        self._lock = run_lock(self.path)

    def file(self, name: str) -> str:
        """Returns the path of a file.

        Args:
            name: Its name.
        """
        return os.path.join(self.path, name)

    def result(self) -> RunResult | None:
        """Returns the result of a finished run, otherwise `None`.

        Raises:
            ValueError: If the file is damaged.
        """
        if not all(os.path.exists(self.file(name)) for name in (MODEL, RESULT)):
            return None
        try:
            return RunResult.from_dict(self._read_json(RESULT))
        except (KeyError, TypeError) as problem:
            raise self._unreadable("file", RESULT, problem) from problem

    def require_same_recipe(self, recipe: dict):
        """Raises if the folder belongs to another recipe.

        Settings that are newer than the run in the folder have their defaults.

        Args:
            recipe: The settings, ready for JSON.

        Raises:
            ValueError: If the recipes are different, or if the recipe file in
                the folder is damaged.
        """
        if not os.path.exists(self.file(RECIPE)):
            return
        try:
            there = upgrade_settings(self._read_json(RECIPE))
        except (KeyError, TypeError) as problem:
            raise self._unreadable("file", RECIPE, problem) from problem
        different = {
            name: (there.get(name), recipe.get(name))
            for name in sorted(there.keys() | recipe.keys())
            if there.get(name) != recipe.get(name)
        }
        if different:
            raise InputError(
                "Invalid value for argument `workdir`. Expected a new folder "
                "or one of the same recipe. Received: workdir="
                f"{self.path!r}, where these settings are different "
                f"(there, here): {different}"
            )

    def claim(self, recipe: dict):
        """Creates the folder and writes the recipe to it.

        Args:
            recipe: The settings, ready for JSON.

        Raises:
            ValueError: If the folder cannot be written.
        """
        if not self.writes:
            return
        try:
            os.makedirs(self.path, exist_ok=True)
            self._write_json(RECIPE, recipe)
        except (OSError, RunError) as problem:
            raise InputError(
                "Invalid value for argument `workdir`. Expected a folder that "
                f"can be written. Received: workdir={self.path!r} ({problem})"
            ) from problem

    def lock(self):
        """Waits until no other process trains in this folder, then locks it.

        Only the process that writes does so. `unlock` gives the lock back.
        """
        if not self.writes or self._lock.acquire():
            return
        warnings.warn(
            f"{self.path} is locked by {self._lock.holder()}. Waiting for it.",
            stacklevel=2,
        )
        self._lock.wait()

    def require_locked(self):
        """Raises if another process has taken the folder over.

        Raises:
            RunError: If so, because this process was held up for too long.
        """
        self._lock.require_held()

    def unlock(self):
        """Gives the lock back, if this object has locked the folder."""
        finished = os.path.exists(self.file(RESULT))
        self._lock.release(remove=finished)

    def write(self, name: str, write):
        """Writes a file atomically. On an error the old file is kept.

        Args:
            name: The file's name.
            write: A function that takes a path and writes to it.

        Raises:
            RunError: If the disk is full or broken.
        """
        new = self.file(f"new.{name}")
        try:
            write(new)
            os.replace(new, self.file(name))
        except OSError as problem:
            # HDF5 errors have the text of the cause, but not always its number.
            texts = [os.strerror(number) for number in _DISK]
            if problem.errno in _DISK or any(t in str(problem) for t in texts):
                self._remove(new)
                raise RunError(
                    f"{self.file(name)} could not be written ({problem}). "
                    "The old file is kept. Free some space and start the same "
                    "command again: it resumes after the last saved epoch."
                ) from problem
            raise

    def write_result(self, result: RunResult):
        """Writes the result, which marks the run as finished.

        Args:
            result: What the run measured.
        """
        self._write_json(RESULT, result.to_dict())

    def history(self) -> list[dict[str, str]]:
        """Returns the rows of the history, one per epoch."""
        if not os.path.exists(self.file(HISTORY)):
            return []
        with open(self.file(HISTORY), newline="") as file:
            return list(csv.DictReader(file))

    def column(self, name: str) -> list[float]:
        """Returns a column of the history, one number per epoch.

        Args:
            name: The column's name.
        """
        return [float(row[name]) for row in self.history()]

    def write_history(self, rows: list[dict]):
        """Writes the history.

        Args:
            rows: One dict per epoch, all with the same keys.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write_text(HISTORY, text.getvalue())

    def save_checkpoint(self, model: keras.Model, epochs: int, callbacks: list):
        """Saves what is needed to resume.

        A checkpoint is a Keras file with two more entries. Keras's own
        `BackupAndRestore` writes the epoch to a second file and overwrites
        both, so a run that is killed in between is lost.

        Args:
            model: The compiled model.
            epochs: The number of finished epochs.
            callbacks: The callbacks with state to save.
        """

        def write(path):
            model.save(path)
            states = io.BytesIO()
            np.savez(states, **_states(callbacks))
            with zipfile.ZipFile(path, "a") as file:
                file.writestr(_EPOCHS, str(epochs))
                file.writestr(_CALLBACKS, states.getvalue())

        self.write(CHECKPOINT, write)

    def load_checkpoint(
        self, model: keras.Model, callbacks: Sequence = ()
    ) -> int:
        """Loads the checkpoint, if any, and returns its number of epochs.

        Args:
            model: A compiled model, made by the recipe of the checkpoint.
            callbacks: The callbacks with state to save.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.file(CHECKPOINT)
        if not os.path.exists(path):
            return 0
        try:
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
                if damaged:
                    raise zipfile.BadZipFile(f"{damaged} is damaged")
                epochs = int(file.read(_EPOCHS))
                states = np.load(io.BytesIO(file.read(_CALLBACKS)))
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
            for callback in callbacks:
                callback.load_own_variables(
                    {
                        key.removeprefix(f"{type(callback).__name__}/"): value
                        for key, value in states.items()
                    }
                )
        except (
            OSError,
            KeyError,
            ValueError,
            RuntimeError,
            zipfile.BadZipFile,
        ) as problem:
            raise self._unreadable("checkpoint", CHECKPOINT, problem) from (
                problem
            )
        return epochs

    def _unreadable(self, kind, name, problem):
        return InputError(
            f"The {kind} {self.file(name)} cannot be read ({problem}). To "
            f"start this run again, remove the folder {self.path}."
        )

    def _read_json(self, name):
        try:
            with open(self.file(name)) as file:
                content = json.load(file)
            if not isinstance(content, dict):
                raise ValueError("it holds no JSON object")
        except ValueError as problem:
            raise self._unreadable("file", name, problem) from problem
        return content

    def _write_json(self, name, content):
        self._write_text(name, json.dumps(content, indent=2) + "\n")

    def _write_text(self, name, text):
        def write(path):
            with open(path, "w", newline="") as file:
                file.write(text)

        self.write(name, write)

    def _remove(self, path):
        if os.path.exists(path):
            os.remove(path)


def _states(callbacks):
    states: dict[str, np.ndarray] = {}
    for callback in callbacks:
        own: dict[str, np.ndarray] = {}
        callback.save_own_variables(own)
        name = type(callback).__name__
        states |= {f"{name}/{key}": value for key, value in own.items()}
    return states


class Recorder(keras.callbacks.Callback):
    """Writes the history and the checkpoint after each epoch.

    A NaN or infinite loss stops the run before the last good checkpoint is
    overwritten.

    Args:
        folder: The run's folder. If this process does not write, only the
            loss is checked.
        epochs: The number of epochs to keep from the history of an earlier
            try.
        callbacks: The callbacks with state to save.
        checkpoints: Whether to write the checkpoint, not only the history.
    """

    def __init__(
        self,
        folder: RunFolder,
        epochs: int,
        callbacks: list,
        checkpoints: bool = True,
    ):
        super().__init__()
        self.folder = folder
        # The last row may be of an epoch without a checkpoint.
        self._rows = folder.history()[:epochs]
        self._callbacks = callbacks
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch, logs=None):
        """Writes the files, or stops the run.

        Raises:
            RunError: If a loss is not finite, or if another process has taken
                the folder over.
        """
        self._require_finite(epoch, logs)
        if self.folder.writes:
            self.folder.require_locked()
            self._rows.append({"epoch": epoch} | logs)
            self.folder.write_history(self._rows)
        if self.folder.writes and self._checkpoints:
            self.folder.save_checkpoint(self.model, epoch + 1, self._callbacks)

    def _require_finite(self, epoch, logs):
        for name in ("loss", "val_loss"):
            if not np.isfinite(logs.get(name, 0.0)):
                kept = "There is no checkpoint yet."
                if epoch:
                    path = self.folder.file(CHECKPOINT)
                    kept = f"{path} has the model after epoch {epoch}."
                raise RunError(
                    f"The {name} became {logs[name]} in epoch {epoch + 1}, so "
                    f"the run was stopped. {kept} Try a smaller "
                    "learning_rate, or float32 if the precision was float16."
                )
