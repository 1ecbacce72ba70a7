"""Every example runs, and ends with the accuracy of a working network."""

import pathlib
import re

import pytest
from processes import run_program
from test_scripts import environment_with

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[a-z]*.py"))
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    process = run_program(script, cwd=tmp_path, env=environment_with())
    if "This example needs" in process.stderr:
        pytest.skip(process.stderr)
    assert process.returncode == 0, process.stderr
    found = re.findall(r"test accuracy (?:\S+ -> )?(\S+)", process.stdout)
    assert found and all(float(accuracy) > 0.7 for accuracy in found)
