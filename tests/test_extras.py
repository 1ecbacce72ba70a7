"""A missing package is named in one line, with the extra that brings it."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_sgl0.utils.extras import MissingPackageError, name_extra
from keras_sgl0.utils.packages import EXTRAS
from keras_sgl0.utils.validation import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MODEL = ROOT / "tests" / "stored" / "penalties_and_gates.keras"
RUN = """
import runpy, sys
for package in {missing!r}:
    sys.modules[package] = None
sys.argv = {arguments!r}
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without(missing, folder, script, *arguments, backend="jax"):
    scripts = ROOT / "scripts"
    words = [str(scripts / script), *map(str, arguments)]
    packages = missing if isinstance(missing, list) else [missing]
    program = RUN.format(missing=packages, arguments=words, folder=str(scripts))
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
        (
            "tensorflow",
            "jax",
            ["shrink.py", f"--model={MODEL}", "--dataset=digits"],
        ),
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


def test_shrinking_needs_no_extra_without_a_data_set(tmp_path):
    pytest.importorskip("jax")
    without = ["tensorflow", "tensorflow_datasets", "sklearn", "tqdm"]
    arguments = [
        f"--model={MODEL}",
        f"--output={tmp_path}",
        "--format=keras",
        "--batch_size=1",
        "--rounds=1",
    ]
    done = run_without(without, tmp_path, "shrink.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "1 rounds, " in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "shrunk.keras",
        "shrink.json",
    }


def test_a_format_that_needs_tensorflow_says_so_in_one_line(tmp_path):
    pytest.importorskip("jax")
    arguments = [f"--model={MODEL}", f"--output={tmp_path}", "--format=litert"]
    done = run_without("tensorflow", tmp_path, "shrink.py", *arguments)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .split("\n")[-1]
        .startswith(
            "shrink.py: For format='litert' Keras needs what is not installed: "
            "tensorflow."
        )
    )
