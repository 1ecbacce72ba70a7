import pathlib

import pytest
from processes import run_program

pytestmark = pytest.mark.tensorflow

PROGRAM = pathlib.Path(__file__).with_name("run_mirrored_compress.py")


@pytest.mark.parametrize(
    "method",
    [
        "importance",
        pytest.param("group_lasso", marks=pytest.mark.slow),
        pytest.param("gates", marks=pytest.mark.slow),
    ],
)
def test_a_model_of_two_devices_becomes_that_of_one(method):
    done = run_program(PROGRAM, method)
    assert done.stdout.split() == [method], done.stderr[-2000:]
