"""Classes and functions that a setting or a flag names."""

import importlib
from typing import Any

from keras_sgl0.utils.validation import invalid, require


def import_by_name(argument: str, name: Any, expected: str) -> Any:
    """Returns what `package.module:name` says.

    Args:
        argument: The argument that has the name, for the message.
        name: The name. Python must find the module, as with `PYTHONPATH=.`.
        expected: What is expected, for the message.

    Raises:
        ValueError: If the name has another form, the module cannot be
            imported, or there is no such thing in it.
    """
    parts: list[str] = name.split(":") if isinstance(name, str) else []
    require(len(parts) == 2 and all(parts), argument, expected, name)
    module, attribute = parts
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise invalid(argument, f"{expected} ({problem})", name) from problem
