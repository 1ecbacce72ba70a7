"""The error for a package of an extra that is not installed."""

import contextlib
from collections.abc import Iterator

from keras_sgl0.utils.packages import how_to_install, missing_package
from keras_sgl0.utils.validation import InputError


class MissingPackageError(InputError, ModuleNotFoundError):
    """A package is not installed; the message names the extra to install.

    Args:
        package: The name the package is imported by.
    """

    def __init__(self, package: str):
        super().__init__(how_to_install(package))
        self.name = package


@contextlib.contextmanager
def name_extra() -> Iterator[None]:
    """Makes a failing import within it name the extra that is missing.

    Raises:
        MissingPackageError: If a package of an extra is not installed. All
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
        package = missing_package(problem)
        if package is None:
            raise
        raise MissingPackageError(package) from problem
