"""What is said when a package of an extra is not installed."""

import contextlib
from collections.abc import Iterator

from keras_sgl0.utils.validation import InputError

# The extra of setup.cfg that brings a package, by the name it is imported by.
EXTRAS = {
    "absl": "experiments",
    "matplotlib": "plot",
    "sklearn": "experiments",
    "tensorflow": "experiments",
    "tensorflow_datasets": "experiments",
    "tqdm": "experiments",
}


class MissingPackageError(InputError, ModuleNotFoundError):
    """A package is not installed; the message names the extra to install.

    Args:
        package: The name the package is imported by.
    """

    def __init__(self, package: str):
        super().__init__(
            f"{package} is not installed. Try: "
            f"pip install 'keras_sgl0[{EXTRAS[package]}]'"
        )
        self.name = package


@contextlib.contextmanager
def name_extra() -> Iterator[None]:
    """Makes a failing import within it name the extra that is missing.

    Raises:
        MissingPackageError: If a package in `EXTRAS` is not installed. All
            other errors pass.

    Example:
        >>> with name_extra():
        ...     import tensorflow as tf
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingPackageError(package) from problem
