"""How a script ends when a package that it needs is not installed.

It does not import `keras_sgl0`, which fails without Keras or its backend.
"""

import contextlib
import pathlib
import runpy
import sys
from collections.abc import Iterator

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGES = runpy.run_path(str(_ROOT / "keras_sgl0" / "utils" / "packages.py"))


@contextlib.contextmanager
def name_extra() -> Iterator[None]:
    """Ends the script with one line if a package of an extra is missing.

    All other errors pass.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        package = _PACKAGES["missing_package"](problem)
        if package is None:
            raise
        script = pathlib.Path(sys.argv[0]).name
        sys.exit(f"{script}: {_PACKAGES['how_to_install'](package)}")
