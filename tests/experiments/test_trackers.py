"""Callbacks that are named on the command line."""

import dataclasses
import json
import os

import keras
import pytest
from test_scripts import ROOT, run_script

from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run import run
from keras_sgl0.experiments.trackers import callback_factories

pytestmark = pytest.mark.tensorflow

TRACKER = """
import json, os, keras

def tensorboard(recipe, folder):
    return keras.callbacks.TensorBoard(os.path.join(folder, "logs"))

class Tracker(keras.callbacks.Callback):
    def __init__(self, recipe, folder):
        super().__init__()
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, "tracked")
        self.note({"factor": recipe.factor})

    def note(self, content):
        with open(self.path, "a") as file:
            file.write(json.dumps(content) + "\\n")

    def on_epoch_end(self, epoch, logs=None):
        self.note({"epoch": epoch, "sparsity": float(logs["weight_sparsity"])})

    def on_result(self, result):
        self.note({"error": result.test_error})
"""
RECIPE = dataclasses.replace(
    RECIPES["digits"], model="mlp", epochs=1, batch_size=500
)


def test_trackers_get_epochs_and_the_result(tmp_path, monkeypatch):
    (tmp_path / "my_trackers.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)  # PYTHONPATH is for its runs
    process = run_script(
        tmp_path,
        "sweep.py",
        "--set=model=mlp",
        "--set=epochs=2",
        "--set=batch_size=500",
        "--callbacks=my_trackers:Tracker,my_trackers:tensorboard",
        "--workdir=sweep",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert process.returncode == 0, process.stderr
    (folder,) = (tmp_path / "sweep").glob("digits-0*/")
    tracked = [
        json.loads(line)
        for line in (folder / "tracked").read_text().splitlines()
    ]
    result = json.loads((folder / "result.json").read_text())
    assert tracked[0] == {"factor": 0.3}
    assert [line["epoch"] for line in tracked[1:3]] == [0, 1]
    assert tracked[3] == {"error": result["test_error"]}
    assert list((folder / "logs").rglob("events*"))


def test_a_finished_run_is_not_tracked_again(tmp_path):
    made = []

    def make(recipe, folder):
        made.append((recipe, folder))
        return keras.callbacks.Callback()

    for _ in range(2):
        run(RECIPE, str(tmp_path), progress=False, callbacks=[make])
    assert made == [(RECIPE, str(tmp_path))]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tensorboard", ""),
        (":make", ""),
        ("nowhere:make", "No module named 'nowhere'"),
        ("keras:make", "no attribute 'make'"),
        ("keras:__name__", "a function"),
    ],
)
def test_bad_names(name, problem):
    message = f"`callbacks`. Expected package.module:function.*{problem}"
    with pytest.raises(ValueError, match=message):
        callback_factories([name])
