"""What `import keras_sgl0` brings along."""

import subprocess
import sys

PROGRAM = """
import sys
import keras
before = set(sys.modules)
import keras_sgl0
print(*set(sys.modules) - before)
"""


def test_nothing_heavy_is_imported_with_the_package():
    """It takes 60 ms after Keras, all its own (docs/run_times.md)."""
    command = [sys.executable, "-c", PROGRAM]
    added = subprocess.check_output(command, text=True).split()
    packages = {name.partition(".")[0] for name in added}
    assert packages - sys.stdlib_module_names == {"keras_sgl0"}
    laboratory = "keras_sgl0.experiments"
    assert not [name for name in added if name.startswith(laboratory)]
