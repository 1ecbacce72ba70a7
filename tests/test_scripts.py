"""The scripts, each run in a process of its own as a user runs it."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from processes import run_program

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import upgrade_settings
from keras_sgl0.experiments.recipes import RECIPES

pytestmark = pytest.mark.tensorflow

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Values that differ from the recipe's own: together, every field there is.
OVERRIDES = {
    "mnist_group_lasso": {
        "dataset": "digits",
        "penalty": "sparse_group_lasso",
        "axis": -1,
        "training": "splitting",
        "beta_ratio": 5.5,
        "growth": 1.5,
        "grow_every": 0.5,
        "refresh": "batch",
        "growing": "convolutions",
        "dense_fan": "fan_out",
        "share_of_max": 0.01,
        "layer_factors": [0.5, 1.0, 2.0, 1.0],
        "density": [0.3],
        "density_of": "macs",
        "settle": 0.5,
        "round_to": 2,
        "normalize": True,
        "augment": "crop",
        "optimizer": "sgd",
        "momentum": 0.5,
        "learning_rate": 0.002,
        "decay": 0.5,
        "milestones": [0.25, 0.75],
        "epochs": 1,
        "batch_size": 500,
        "seed": 3,
        "tolerance": 0.0001,
    },
    "mnist_lenet_l0_constrained": {
        "dataset": "digits",
        "model": "mlp",
        "density": [0.5, 0.3, 0.7],
        "scope": "layer",
        "dual_learning_rate": 0.001,
        "droprate": [0.2, 0.3, 0.4],
        "test_gate": "mean",
        "gate_learning_rate": 0.01,
        "normalize": False,
        "epochs": 1,
        "batch_size": 500,
    },
    "digits_mlp_l0_constrained": {
        "density": [],
        "weight_decay": 0.5,
        "gate_learning_rate": 0.0,
        "milestones": [0.5],
        "epochs": 1,
        "batch_size": 500,
    },
    "digits": {
        "factor": 0.2,
        "groups": "coupled",
        "group_weight": "macs",
        "shrink_every": 1,
        "epsilon": 1e-7,
        "model": "wide_resnet",
        "depth": 10,
        "width": 0.25,
        "dropout": 0.1,
        "model_weight_decay": 0.001,
        "ema": 0.9,
        "precision": "mixed_bfloat16",
        "jit_compile": "off",
        "steps_per_execution": 2,
        "validation": 0.2,
        "epochs": 1,
        "batch_size": 500,
    },
}


def environment_with(**changes):
    path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)} | changes


def run_script(folder, script, *arguments, **environment):
    return run_program(
        ROOT / "scripts" / script,
        *arguments,
        cwd=folder,
        env=environment_with(**environment),
    )


def as_flags(settings):
    for name, value in settings.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no{name}"
            continue
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
    """The one training whose process imports everything itself."""
    folder = tmp_path_factory.mktemp("digits")
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--epochs=1"],
        cwd=folder,
        env=environment_with(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return folder, process


def test_train_needs_no_arguments_but_fewer_epochs(digits):
    folder, process = digits
    assert process.returncode == 0, process.stderr
    workdir = folder / "runs" / "digits-0-epochs=1"
    assert "1 epoch of digits; files in runs/digits-0-ep" in process.stderr
    assert {path.name for path in workdir.iterdir()} == {
        "recipe.json",
        "checkpoint.keras",
        "history.csv",
        "model.keras",
        "shrunk.keras",
        "result.json",
    }
    settings = json.loads((workdir / "recipe.json").read_text())
    assert settings == RECIPES["digits"].to_dict() | {"epochs": 1}


def test_train_ends_with_the_table_and_both_errors(digits):
    folder, process = digits
    output = process.stdout
    for kernel in ("conv1", "conv2", "fc1", "fc2"):
        assert f"{kernel}/kernel" in output
    path = folder / "runs" / "digits-0-epochs=1" / "result.json"
    result = json.loads(path.read_text())
    alive = f"{sum(result['neurons_alive']):,} / 1,370"
    assert alive in output
    assert f"weight sparsity {result['weight_sparsity']:.2f}%" in output
    assert f"neuron sparsity {result['neuron_sparsity']:.2f}%" in output
    assert f"test error {result['test_error']:.2f}% thresholded" in output
    assert f"{result['test_error_unthresholded']:.2f}% not" in output
    shrunk = result["shrunk"]
    assert (
        f" shrunk from 431,080 -> {shrunk['parameters_after']:,} parameters "
        f"and 2,293,000 -> {shrunk['macs_after']:,} MACs, test error "
        f"{shrunk['test_error']:.2f}%\n"
    ) in output
    assert "files in runs/digits-0-epochs=1" in output.replace(os.sep, "/")


def test_train_shows_progress(digits):
    _, process = digits
    assert "1/1" in process.stderr
    for name in ("weights", "neurons", "error"):
        assert re.search(rf"\b{name}=[\d.]+%", process.stderr)
    # They change with the penalty, and cannot be compared between epochs.
    assert "loss=" not in process.stderr


def test_every_field_is_overridden():
    names = {name for settings in OVERRIDES.values() for name in settings}
    assert names == {field.name for field in dataclasses.fields(Recipe)}
    for recipe, settings in OVERRIDES.items():
        own = RECIPES[recipe].to_dict()
        assert not [name for name in settings if settings[name] == own[name]]


@pytest.mark.parametrize("base", OVERRIDES)
def test_every_flag_overrides_its_field(tmp_path, base):
    # What the changed recipe does not look at has its default.
    expected = upgrade_settings(RECIPES[base].to_dict() | OVERRIDES[base])
    assert expected == expected | OVERRIDES[base]
    process = run_script(
        tmp_path,
        "train.py",
        f"--recipe={base}",
        "--workdir=here",
        *as_flags(OVERRIDES[base]),
    )
    assert process.returncode == 0, process.stderr
    workdir = tmp_path / "here"
    assert json.loads((workdir / "recipe.json").read_text()) == expected
    result = json.loads((workdir / "result.json").read_text())
    assert result["recipe"] == expected
    assert (result["seed"], result["epochs"]) == (
        expected["seed"],
        expected["epochs"],
    )


def test_help_explains_every_field(tmp_path):
    output = " ".join(run_script(tmp_path, "train.py", "--help").stdout.split())
    for field in dataclasses.fields(Recipe):
        switch = "[no]" * isinstance(field.default, bool)
        assert f"--{switch}{field.name}:" in output
        assert field.metadata["help"] in output
    for flag in ("--recipe:", "--workdir:", "--data_dir:", "--[no]download:"):
        assert flag in output
    for name in RECIPES:
        assert name in output


@pytest.mark.parametrize("script", ["train.py", "search.py"])
def test_the_recipes_are_listed(tmp_path, script):
    process = run_script(tmp_path, script, "--recipe=list")
    assert process.returncode == 0, process.stderr
    rows = [line.split() for line in process.stdout.splitlines()]
    rows = {row[0]: row[1:] for row in rows if row and row[0] in RECIPES}
    assert rows.keys() == RECIPES.keys()
    assert rows["mnist_sgl0"] == (
        ["mnist", "lenet5_caffe", "sgl0", "splitting", "200", "29"]
    )
    assert rows["cifar10_wrn_16_1_plain"] == (
        ["cifar10", "wide_resnet", "16-1", "none", "200"]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--recipe=cifar"], ["recipe='cifar'", "'mnist_sgl0'"]),
        (["--recipe=digit"], ["Expected 'digits' or another. Received"]),
        (["--factr=1"], ["train.py: Unknown command line flag 'factr'. Did"]),
        (["--beta_ratio=-1"], ["`beta_ratio`", "beta_ratio=-1.0"]),
        (["--strategy=multi_worker"], ["variable TF_CONFIG", "TF_CONFIG=''"]),
        (["digits"], ["Unexpected arguments: ['digits']"]),
        (
            ["--recipe=mnist_sgl0", "--data_dir=nowhere"],
            ["`data_dir`", "a folder that exists", "/nowhere'"],
        ),
        (["--density=a"], ["`density`", "at most 1", "density='a'"]),
        (
            ["--momentum=.9"],
            ["`momentum`. Expected 0.0 with the optimizer 'adam'"],
        ),
    ],
    ids=[
        "recipe",
        "nearly",
        "flag",
        "beta",
        "strategy",
        "positional",
        "data_dir",
        "density",
        "unused",
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


def test_the_folder_is_named_after_what_is_set(tmp_path):
    process = run_script(
        tmp_path,
        "train.py",
        "--seed=3",
        "--model=mlp",
        "--epochs=1",
        "--batch_size=500",
        "--milestones=.25,.5",
    )
    assert process.returncode == 0, process.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    name = "digits-3-model=mlp-milestones=0.25+0.5-epochs=1-batch_size=500"
    assert folder.name == name


def test_workdir_may_begin_with_a_tilde(tmp_path):
    process = run_script(
        tmp_path,
        "train.py",
        "--model=mlp",
        "--epochs=1",
        "--batch_size=500",
        "--workdir=~/run",
        HOME=str(tmp_path),
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run" / "result.json").exists()


@pytest.fixture(scope="module")
def shrunk(digits):
    folder, _ = digits
    return run_script(
        folder,
        "shrink.py",
        "--model=runs/digits-0-epochs=1/model.keras",
        "--output=small",
        "--dataset=digits",
        "--rounds=2",
    )


def test_shrink_leaves_its_files(digits, shrunk):
    assert shrunk.returncode == 0, shrunk.stderr
    files = {"shrunk.keras", "shrunk.tflite", "shrink.json"}
    folder = digits[0] / "small"
    assert {path.name for path in folder.iterdir()} == files
    content = json.loads((folder / "shrink.json").read_text())
    assert [file["path"] for file in content["files"]] == [
        "shrunk.keras",
        "shrunk.tflite",
    ]
    assert str(digits[0]) not in json.dumps(content)
    assert content["rounds"] == 2
    assert content["versions"]["backend"] == "tensorflow"
    for file in content["files"]:
        assert file["bytes"] == (folder / file["path"]).stat().st_size
        assert file["relative_difference"] < 1e-4


def test_shrink_prints_one_table(digits, shrunk):
    path = digits[0] / "small" / "shrink.json"
    changes = json.loads(path.read_text())["changes"]
    assert [change["name"] for change in changes] == [
        "parameters",
        "multiply-adds",
        "test error",
        "keras file",
        "litert file",
        "tensorflow, batch 1",
        "litert, batch 1",
        "tensorflow, batch 128",
        "litert, batch 128",
    ]
    result = json.loads(
        (digits[0] / "runs" / "digits-0-epochs=1" / "result.json").read_text()
    )
    assert changes[0]["after"] == result["shrunk"]["parameters_after"]
    assert changes[1]["after"] == result["shrunk"]["macs_after"]
    errors = [changes[2][key] for key in ("before", "after")]
    assert errors == [result["test_error"], result["shrunk"]["test_error"]]
    lines = shrunk.stdout.splitlines()[2:]
    for line, change in zip(lines, changes, strict=False):
        places = {"ms": 3, "%": 2}.get(change["unit"], 0)
        assert change["name"] in line
        assert f"{change['before']:,.{places}f}" in line
        assert f"{change['after']:,.{places}f}" in line
    assert "small/shrunk.tflite (litert): " in shrunk.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model=nowhere.keras"],
            "shrink.py: Invalid value for argument `model`. Expected a .keras "
            "file that exists. Received: model='nowhere.keras'",
        ),
        (["--model=x", "y"], "Unexpected arguments: ['y']"),
        ([], "shrink.py: --model is missing"),
    ],
    ids=["file", "positional", "missing"],
)
def test_shrink_refuses(tmp_path, arguments, message):
    process = run_script(tmp_path, "shrink.py", *arguments)
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert message in process.stdout + process.stderr
    assert not list(tmp_path.iterdir())


def test_compress_meets_its_budget(digits):
    folder, _ = digits
    process = run_script(
        folder,
        "compress.py",
        "--model=runs/digits-0-epochs=1/model.keras",
        "--dataset=digits",
        "--macs=.3",
        "--epochs=1",
        "--importance=l2",
        "--output=compressed",
    )
    assert process.returncode == 0, process.stderr
    files = {"model.keras", "report.json", "state.npz", "compress.json"}
    output = folder / "compressed"
    assert {path.name for path in output.iterdir()} == files
    content = json.loads((output / "compress.json").read_text())
    report = content["report"]
    assert report["macs_after"] <= 0.3 * report["macs"]
    assert report["settings"]["importance"] == "l2"
    assert content["dataset"] == "digits"
    assert content["pixels"] == "unit"
    after = f"{content['test_error_after']:.2f} % after"
    assert after in process.stdout


def test_compress_refuses_pixels_that_a_model_cannot_have_seen(tmp_path):
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(10)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), layer]
    )
    kernel = np.zeros((784, 10), "float32")
    layer.set_weights([kernel, np.arange(10.0)])  # always a nine
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    process = run_script(
        tmp_path,
        "compress.py",
        "--model=model.keras",
        "--dataset=digits",
        "--macs=.5",
        "--pixels=bytes",
    )
    assert process.returncode != 0
    assert "argument `pixels`" in process.stderr
    assert "no better than always the most frequent class" in process.stderr
    assert not (tmp_path / "compressed").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--macs=.5"], "expected a .keras file that exists"),
        (["--macs=.5", "y"], "unexpected arguments: ['y']"),
    ],
    ids=["file", "positional"],
)
def test_compress_refuses(tmp_path, arguments, message):
    process = run_script(
        tmp_path, "compress.py", "--model=x", "--dataset=digits", *arguments
    )
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert message in (process.stdout + process.stderr).lower()
    assert not list(tmp_path.iterdir())
