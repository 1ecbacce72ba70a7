"""The scripts, each run as a user runs it."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from keras_sgl0.recipes import RECIPES, Recipe

pytestmark = pytest.mark.tensorflow

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A value for every field that differs from the recipe's own.
OVERRIDES = {
    "dataset": "digits",
    "model": "lenet5_caffe",
    "penalty": "sparse_group_lasso",
    "factor": 0.2,
    "axis": -1,
    "training": "splitting",
    "beta": 5.5,
    "growth": 1.5,
    "grow_every": 0.5,
    "refresh": "batch",
    "share_of_max": 0.01,
    "optimizer": "sgd",
    "momentum": 0.5,
    "learning_rate": 0.002,
    "decay": 0.5,
    "milestones": [0.25, 0.75],
    "epsilon": 1e-7,
    "epochs": 2,
    "batch_size": 500,
    "seed": 3,
    "tolerance": 0.0001,
}
BASE = "mnist_group_lasso"


def run_script(folder, *arguments, **environment):
    environment = os.environ | environment
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / arguments[0]), *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def as_flags(settings):
    for name, value in settings.items():
        if isinstance(value, list):
            value = ",".join(map(str, value))
        yield f"--{name}={value}"


def refuse(folder, *arguments, **environment):
    """Runs train.py, which must refuse, and returns what it says."""
    process = run_script(folder, "train.py", *arguments, **environment)
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert "%|" not in process.stderr
    trained = {"history.csv", "model.keras", "result.json"}
    assert trained.isdisjoint(path.name for path in folder.rglob("*"))
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, run_script(folder, "train.py", "--epochs=1")


def test_train_needs_no_arguments_but_fewer_epochs(digits):
    folder, process = digits
    assert process.returncode == 0, process.stderr
    workdir = folder / "runs" / "digits-0"
    assert {path.name for path in workdir.iterdir()} == {
        "recipe.json",
        "checkpoint.keras",
        "history.csv",
        "model.keras",
        "result.json",
    }
    settings = json.loads((workdir / "recipe.json").read_text())
    assert settings == RECIPES["digits"].to_dict() | {"epochs": 1}


def test_train_ends_with_the_table_and_both_errors(digits):
    folder, process = digits
    output = process.stdout
    for kernel in ("conv1", "conv2", "fc1", "fc2"):
        assert f"{kernel}/kernel" in output
    path = folder / "runs" / "digits-0" / "result.json"
    result = json.loads(path.read_text())
    alive = f"{sum(result['neurons_alive']):,} / 1,370"
    assert alive in output
    assert f"weight sparsity {result['weight_sparsity']:.2f}%" in output
    assert f"neuron sparsity {result['neuron_sparsity']:.2f}%" in output
    assert f"test error {result['test_error']:.2f}% thresholded" in output
    assert f"{result['test_error_unthresholded']:.2f}% not" in output
    assert "files in runs/digits-0" in output.replace(os.sep, "/")


def test_train_shows_progress(digits):
    _, process = digits
    assert "1/1" in process.stderr
    for name in (
        "loss",
        "error",
        "val_error",
        "weight_sparsity",
        "neuron_sparsity",
        "threshold",
    ):
        assert re.search(rf"\b{name}=[\d.e-]+", process.stderr)


def test_every_flag_overrides_its_field(tmp_path):
    base = RECIPES[BASE].to_dict()
    assert set(OVERRIDES) == set(base)
    same = {name for name in base if base[name] == OVERRIDES[name]}
    assert same == {"model"}
    process = run_script(
        tmp_path,
        "train.py",
        f"--recipe={BASE}",
        "--workdir=here",
        *as_flags(OVERRIDES),
    )
    assert process.returncode == 0, process.stderr
    workdir = tmp_path / "here"
    assert json.loads((workdir / "recipe.json").read_text()) == OVERRIDES
    result = json.loads((workdir / "result.json").read_text())
    assert result["recipe"] == OVERRIDES
    assert (result["seed"], result["epochs"]) == (3, 2)


def test_help_explains_every_field(tmp_path):
    output = " ".join(run_script(tmp_path, "train.py", "--help").stdout.split())
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name}:" in output
        assert field.metadata["help"] in output
    for flag in ("--recipe:", "--workdir:", "--data_dir:", "--[no]download:"):
        assert flag in output
    for name in RECIPES:
        assert name in output


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--recipe=cifar"], ["--recipe=cifar", "mnist_sgl0"]),
        (["--dataset=cifar"], ["--dataset=cifar", "<digits|mnist"]),
        (["--beta=-1"], ["`beta`", "greater than 0", "beta=-1.0"]),
        (["--axis=7"], ["`axis`", "(5, 5, 1, 20)", "axis=7"]),
        (["digits"], ["Unexpected arguments: ['digits']"]),
        (
            ["--recipe=mnist_sgl0", "--data_dir=nowhere"],
            ["`data_dir`", "a folder that exists", "/nowhere'"],
        ),
        (["--axis=rows"], ["`axis`", 'an integer or "auto"']),
    ],
    ids=[
        "recipe",
        "dataset",
        "beta",
        "axis of no kernel",
        "positional",
        "data_dir",
        "axis",
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, messages):
    output = refuse(tmp_path, *arguments)
    for message in messages:
        assert message in output


def test_data_set_missing_from_the_default_folder(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    output = refuse(tmp_path, "--recipe=mnist_sgl0", TFDS_DATA_DIR=str(folder))
    assert f"tfds build mnist --data_dir={folder}" in output


def test_workdir_may_begin_with_a_tilde(tmp_path):
    process = run_script(
        tmp_path,
        "train.py",
        "--epochs=1",
        "--batch_size=500",
        "--workdir=~/run",
        HOME=str(tmp_path),
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run" / "result.json").exists()
