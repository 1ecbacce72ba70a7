import pathlib

import pytest
from processes import run_program

pytestmark = pytest.mark.tensorflow

PROGRAM = pathlib.Path(__file__).with_name("run_mirrored.py")


@pytest.mark.parametrize(
    "way", ["step", "batch", "admm", "proximal", "density", "gates", "coupled"]
)
def test_two_mirrored_devices_train_as_one(way):
    done = run_program(PROGRAM, way)
    assert done.stdout.split() == [way], done.stderr[-2000:]
