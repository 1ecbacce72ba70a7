"""How a script starts: quietly, or with one line on what is not installed.

It does not import `keras_sgl0`, which fails without Keras or its backend.
"""

import contextlib
import os
import pathlib
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGES = runpy.run_path(str(_ROOT / "keras_sgl0" / "utils" / "packages.py"))


@contextlib.contextmanager
def name_extra() -> Iterator[None]:
    """Ends the script with one line if a package of an extra is missing.

    All other errors pass. What TensorFlow prints for information is left out.
    """
    # TensorFlow's C++ code: warnings, but no information. The user's own wins.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if sys.stderr.isatty():
        sys.stderr.write(" loading TensorFlow ...\n")  # takes seconds
    try:
        with _without_information():
            yield
            tensorflow = sys.modules.get("tensorflow")
            if hasattr(tensorflow, "config"):
                tensorflow.config.list_physical_devices()  # reports on GPUs
    except ModuleNotFoundError as problem:
        package = _PACKAGES["missing_package"](problem)
        if package is None:
            raise
        script = pathlib.Path(sys.argv[0]).name
        sys.exit(f"{script}: {_PACKAGES['how_to_install'](package)}")


# As in "2026-01-31 12:00:00.1: I tensorflow/..." and "I0000 00:00:17...".
_INFORMATION = re.compile(
    r"I\d{4} |[-\d]{10} [:.\d]+: I |To enable the following instructions|"
    r"WARNING: All log messages before absl::InitializeLog|"
    r"E\d{4} .* failed call to cuInit: .*\(303\)"  # no driver: no GPU
)


@contextlib.contextmanager
def _without_information() -> Iterator[None]:
    """Leaves out what C++ code writes to the terminal for information.

    It does not pass `sys.stderr`, so the file descriptor is replaced.
    """
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            sys.stderr.writelines(
                line for line in caught if not _INFORMATION.match(line)
            )
