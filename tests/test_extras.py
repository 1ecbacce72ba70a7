"""A missing package is named in one line, with the extra that brings it."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_sgl0.utils.extras import EXTRAS, MissingPackageError, name_extra
from keras_sgl0.utils.validation import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
RUN = """
import runpy, sys
sys.modules[{missing!r}] = None
sys.argv = {arguments!r}
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without(missing, folder, script, *arguments, backend="jax"):
    scripts = ROOT / "scripts"
    words = [str(scripts / script), *map(str, arguments)]
    program = RUN.format(missing=missing, arguments=words, folder=str(scripts))
    path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ
        | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_names_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught, name_extra():
        __import__(package)
    assert str(caught.value) == (
        f"{package} is not installed. Try: "
        f"pip install 'keras_sgl0[{EXTRAS[package]}]'"
    )
    assert caught.value.name == package
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, InputError)


def test_other_errors_pass():
    with pytest.raises(ModuleNotFoundError) as caught, name_extra():
        import keras_sgl0.not_there  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)
    with pytest.raises(ZeroDivisionError), name_extra():
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("missing", "backend", "arguments"),
    [
        ("tensorflow", "jax", ["train.py"]),
        ("tensorflow", "tensorflow", ["train.py"]),
        ("absl", "jax", ["train.py"]),
        ("tqdm", "jax", ["train.py"]),
        ("tensorflow", "jax", ["sweep.py"]),
        ("tensorflow", "jax", ["shrink.py", "--dataset=digits"]),
        ("tensorflow", "jax", ["benchmark.py", "pipeline"]),
    ],
)
def test_a_script_says_so_in_one_line(missing, backend, arguments, tmp_path):
    pytest.importorskip(backend)
    done = run_without(missing, tmp_path, *arguments, backend=backend)
    assert done.returncode == 1
    assert done.stderr.strip().split("\n")[-1] == (
        f"{arguments[0]}: {missing} is not installed. Try: "
        "pip install 'keras_sgl0[experiments]'"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("tables.py", ["--check"]),
        ("plot.py", ["pareto", RESULTS]),
    ],
)
def test_reading_results_needs_no_tensorflow(script, arguments, tmp_path):
    for package in ("jax", "absl", "matplotlib"):
        pytest.importorskip(package)
    done = run_without("tensorflow", tmp_path, script, *arguments)
    assert done.returncode == 0, done.stderr
