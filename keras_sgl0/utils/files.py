"""Files that are written as a whole or not at all."""

import os
from collections.abc import Callable
from typing import BinaryIO


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
