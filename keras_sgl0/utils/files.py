"""Files that are written as a whole or not at all."""

import json
import os
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from keras import ops

from keras_sgl0.utils.validation import InputError


def write(path: str, content: Callable[[BinaryIO], object]):
    """Writes a file as a whole or not at all.

    Args:
        path: The file.
        content: Writes to an open file.
    """
    unfinished = f"{path}.tmp"
    with open(unfinished, "wb") as file:
        content(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def write_text(path: str | os.PathLike, text: str):
    """Writes a text that several processes may write at once, the last wins.

    Args:
        path: The file.
        text: The text.
    """
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f"new.{os.getpid()}.{name}")
    with open(unfinished, "w") as file:
        file.write(text)
    os.replace(unfinished, path)


def array_of(variable) -> np.ndarray:
    """Returns the value of a variable as an array for `write_state`.

    Args:
        variable: A variable.
    """
    value = np.asarray(ops.convert_to_numpy(variable))
    # NumPy's files have no bfloat16; float32 holds it exactly.
    return value.astype("float32") if value.dtype.kind == "V" else value


def write_state(path: str, facts: dict[str, Any], arrays: dict[str, Any]):
    """Writes the state of a training as a whole or not at all.

    Args:
        path: The file.
        facts: What is written as JSON.
        arrays: Arrays by name.
    """
    text = np.array(json.dumps(facts, default=float))
    write(path, lambda file: np.savez(file, json=text, **arrays))


def read_state(path: str, take: Callable[[dict, dict], object]):
    """Reads what `write_state` has written.

    Args:
        path: The file.
        take: Takes the facts and the arrays. Any error in it means that the
            file is damaged.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        take(json.loads(str(arrays.pop("json"))), arrays)
    except Exception as problem:  # NumPy and zipfile raise many kinds
        raise InputError(
            f"The file {path} is damaged ({problem}). Remove it to start again."
        ) from problem
