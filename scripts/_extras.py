"""How a script ends when a package that it needs is not installed.

This stands apart from `keras_sgl0.utils.extras` because importing the package
fails already if the backend of Keras is not installed.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

_PACKAGES = {
    "absl",
    "keras",
    "numpy",
    "rich",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tqdm",
}


@contextlib.contextmanager
def name_extra() -> Iterator[None]:
    """Ends the script with one line if a package of `experiments` is missing.

    All other errors pass.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        sys.exit(
            f"{pathlib.Path(sys.argv[0]).name}: {package} is not installed. "
            "Try: pip install 'keras_sgl0[experiments]'"
        )
