"""Running recipes: what a run leaves, and how it goes on after a kill."""

import csv
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal

import keras
import numpy as np
import pytest

import keras_sgl0 as ks
from keras_sgl0 import datasets
from keras_sgl0.experiment import build, error, run
from keras_sgl0.groups import resolve_axis
from keras_sgl0.recipes import PENALTIES, RECIPES, TRAININGS
from keras_sgl0.sparsity import neuron_axis

pytestmark = pytest.mark.tensorflow

# Three steps an epoch, rates that still move the weights in the last one, and
# a tolerance at which three epochs leave zeros already.
SMALL = dataclasses.replace(
    RECIPES["digits"],
    epochs=3,
    batch_size=500,
    decay=0.7,
    grow_every=0.33,
    tolerance=1e-3,
)
FILES = {
    "recipe.json",
    "checkpoint.keras",
    "history.csv",
    "model.keras",
    "result.json",
}
PERCENT = {
    "weight_sparsity",
    "weight_sparsity_kernels",
    "neuron_sparsity",
    "test_error",
    "test_error_unthresholded",
}


class StoppedError(Exception):
    pass


class Stop(keras.callbacks.Callback):
    """Ends a run after a batch of an epoch, or at the epoch's end."""

    def __init__(self, epoch, batch=None, kill=False):
        super().__init__()
        self.when, self.kill = (epoch, batch), kill

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.stop_at(self.epoch, batch)

    def on_epoch_end(self, epoch, logs=None):
        self.stop_at(epoch, None)

    def stop_at(self, *now):
        if now == self.when and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if now == self.when:
            raise StoppedError


def run_until(stop, workdir):
    """Runs SMALL with `stop` between its CSV logger and its checkpoint."""
    fit = keras.Model.fit

    def fit_and_stop(self, *args, callbacks, **kwargs):
        callbacks = [*callbacks[:-1], stop, callbacks[-1]]
        return fit(self, *args, callbacks=callbacks, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", fit_and_stop)
        run(SMALL, str(workdir), progress=False)


def die_in_second_epoch(workdir):
    run_until(Stop(epoch=1, batch=1, kill=True), workdir)


def history(workdir):
    with open(workdir / "history.csv") as file:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def final_state(workdir):
    """Returns all weights and optimizer variables of the checkpoint."""
    model, _ = build(SMALL, datasets.load("digits"))
    model.optimizer.build(model.trainable_variables)
    model.load_weights(workdir / "checkpoint.keras")
    variables = model.weights + model.optimizer.variables
    return [keras.ops.convert_to_numpy(v) for v in variables]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_run(workdir, other):
    assert {path.name for path in workdir.iterdir()} == FILES
    for ours, theirs in zip(
        final_state(workdir), final_state(other), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    for ours, theirs in zip(history(workdir), history(other), strict=True):
        del ours["seconds"], theirs["seconds"]
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "made" / "if need be"
    result = run(SMALL, str(workdir), progress=False)
    return workdir, result


@pytest.fixture
def workdir(tmp_path, uninterrupted):
    """A finished run that may be spoilt."""
    return shutil.copytree(uninterrupted[0], tmp_path / "run")


def test_run_leaves_its_files(uninterrupted):
    workdir, result = uninterrupted
    assert {path.name for path in workdir.iterdir()} == FILES
    assert json.loads((workdir / "result.json").read_text()) == result
    assert json.loads((workdir / "recipe.json").read_text()) == SMALL.to_dict()


def test_result_keys(uninterrupted):
    _, result = uninterrupted
    assert set(result) == PERCENT | {
        "parameters",
        "neurons_alive",
        "recipe",
        "seed",
        "epochs",
        "seconds",
        "versions",
        "report",
    }
    assert result["recipe"] == SMALL.to_dict()
    assert (result["seed"], result["epochs"]) == (0, 3)
    assert result["parameters"] == 431080
    assert result["versions"]["keras_sgl0"] == ks.__version__
    assert result["versions"]["keras"] == keras.__version__


def test_result_is_in_percent_and_that_of_the_saved_model(uninterrupted):
    workdir, result = uninterrupted
    model = keras.saving.load_model(workdir / "model.keras")
    report = ks.sparsity_report(model, tolerance=0, axis=SMALL.axis)
    assert 0.1 < result["weight_sparsity"] < 50
    for name in (
        "weight_sparsity",
        "weight_sparsity_kernels",
        "neuron_sparsity",
    ):
        assert result[name] == pytest.approx(
            100 * getattr(report, name), abs=1e-4
        )
    assert result["neurons_alive"] == list(report.neurons_alive)
    test = datasets.load("digits").test_batches()
    logs = model.evaluate(test, verbose=0, return_dict=True)
    assert 1 < result["test_error"] < 90
    assert result["test_error"] == pytest.approx(100 * logs["error"], abs=0.01)
    assert result["test_error_unthresholded"] == pytest.approx(
        100 * history(workdir)[-1]["val_error"], abs=0.01
    )


def test_history_follows_the_recipe(uninterrupted):
    workdir, result = uninterrupted
    rows = history(workdir)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for epoch, row in enumerate(rows):
        beta = SMALL.beta * SMALL.growth**epoch
        assert row["beta"] == pytest.approx(beta / 1438)
        threshold = (2 * SMALL.factor / beta) ** 0.5
        assert row["threshold"] == pytest.approx(threshold, rel=1e-5)
        rate = SMALL.learning_rate_at(epoch)
        assert row["learning_rate"] == pytest.approx(rate)
        assert 0 < row["weight_sparsity"] < 0.5
        assert 0 <= row["neuron_sparsity"] < 0.5
        assert row["loss"] > 0
        assert 0 < row["error"] <= 1
    seconds = sum(row["seconds"] for row in rows)
    assert result["seconds"] == pytest.approx(seconds, abs=0.06)


def test_killed_run_goes_on_from_its_last_finished_epoch(
    tmp_path, uninterrupted
):
    process = multiprocessing.get_context("spawn").Process(
        target=die_in_second_epoch, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = history(tmp_path)
    assert len(before) == 1
    (tmp_path / "new.checkpoint.keras").write_bytes(b"half a file")
    run(SMALL, str(tmp_path), progress=False)
    assert history(tmp_path)[0] == before[0]
    assert_same_run(tmp_path, uninterrupted[0])


@pytest.mark.parametrize(
    ("stop", "logged", "kept"),
    [(Stop(epoch=0, batch=1), 0, 0), (Stop(epoch=1), 2, 1)],
    ids=["before the first checkpoint", "between the line and the checkpoint"],
)
def test_stopped_run_goes_on(tmp_path, uninterrupted, stop, logged, kept):
    with pytest.raises(StoppedError):
        run_until(stop, tmp_path)
    before = history(tmp_path)
    assert len(before) == logged
    run(SMALL, str(tmp_path), progress=False)
    assert history(tmp_path)[:kept] == before[:kept]
    assert_same_run(tmp_path, uninterrupted[0])


def test_run_killed_before_its_result_does_not_train_again(
    workdir, uninterrupted
):
    (workdir / "result.json").unlink()
    (workdir / "model.keras").unlink()
    result = run(SMALL, str(workdir), progress=False)
    assert result == uninterrupted[1]
    assert_same_run(workdir, uninterrupted[0])


def test_finished_run_returns_its_result(workdir):
    (workdir / "result.json").write_text('{"test_error": 12.5}')
    before = contents(workdir)
    result = run(SMALL, str(workdir), data_dir="/nowhere", progress=False)
    assert result == {"test_error": 12.5}
    assert contents(workdir) == before


def test_another_recipes_folder_is_left_alone(workdir):
    before = contents(workdir)
    other = dataclasses.replace(SMALL, seed=1, milestones=(0.5,))
    with pytest.raises(ValueError, match="one of the same recipe") as problem:
        run(other, str(workdir), progress=False)
    message = str(problem.value)
    assert str(workdir) in message
    assert "'seed': (0, 1)" in message
    assert "'milestones': ([0.2, 0.4, 0.6, 0.8], [0.5])" in message
    assert "factor" not in message
    assert contents(workdir) == before


@pytest.mark.parametrize("below", ["", "run", "run/deeper"])
def test_workdir_that_cannot_be_written(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("not a folder")
    workdir = str(file / below)
    with pytest.raises(ValueError) as problem:
        run(SMALL, workdir, progress=False)
    assert str(problem.value).startswith(
        "Invalid value for argument `workdir`. Expected a folder that can be "
        f"written. Received: workdir={workdir!r} ("
    )
    assert file.read_text() == "not a folder"


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(bytes(range(256)) * 20)


def damage_inside(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64 * [170])
    path.write_bytes(content)


def another_model(path):
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(path)


def no_optimizer(path):
    ks.models.LeNet5Caffe().save(path)


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        empty,
        garbage,
        another_model,
        damage_inside,
        no_optimizer,
    ],
)
@pytest.mark.filterwarnings("ignore:Skipping")
def test_spoilt_checkpoint(workdir, spoil):
    (workdir / "result.json").unlink()
    spoil(workdir / "checkpoint.keras")
    before = contents(workdir)
    with pytest.raises(ValueError) as problem:
        run(SMALL, str(workdir), progress=False)
    message = str(problem.value)
    assert f"checkpoint {workdir}/checkpoint.keras cannot be" in message
    assert message.endswith(
        f"To start this run afresh, remove the folder {workdir}."
    )
    assert contents(workdir) == before


@pytest.mark.parametrize("name", ["recipe.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"\xff\xfe\x00"])
def test_spoilt_json(workdir, name, content):
    (workdir / name).write_bytes(content)
    before = contents(workdir)
    with pytest.raises(ValueError) as problem:
        run(SMALL, str(workdir), progress=False)
    message = str(problem.value)
    assert message.startswith(f"The file {workdir}/{name} cannot be read (")
    assert message.endswith(
        f"To start this run afresh, remove the folder {workdir}."
    )
    assert contents(workdir) == before


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_recipe_file_that_is_no_object(workdir, content):
    (workdir / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.json"):
        run(SMALL, str(workdir), progress=False)


@pytest.mark.parametrize("settings", [{"dataset": "mnist"}, {"axis": 7}])
def test_run_that_cannot_begin_claims_no_folder(tmp_path, settings):
    recipe = dataclasses.replace(SMALL, **settings)
    with pytest.raises(ValueError, match=r"data_dir|axis"):
        run(recipe, str(tmp_path / "run"), data_dir="/nowhere")
    assert not list(tmp_path.rglob("*.json"))


def test_run_without_penalty(tmp_path):
    recipe = dataclasses.replace(
        RECIPES["mnist_plain"], dataset="digits", epochs=1, batch_size=500
    )
    result = run(recipe, str(tmp_path), progress=False)
    assert result["neurons_alive"] == [20, 50, 800, 500]
    assert {"beta", "threshold"}.isdisjoint(history(tmp_path)[0])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_build_gives_every_kernel_its_penalty(penalty):
    recipe = dataclasses.replace(
        SMALL, penalty=penalty, training=TRAININGS[penalty][0]
    )
    model, scale = build(recipe, datasets.load("digits"))
    assert scale == 1 / 1438
    assert model.optimizer.epsilon == recipe.epsilon
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert len(kernels) == 4
    for depth, kernel in enumerate(kernels):
        if penalty == "none":
            assert kernel.regularizer is None
            continue
        arguments = {"mu": depth / 4} if penalty == "cges" else {}
        expected = PENALTIES[penalty](
            recipe.factor / 1438, axis=recipe.axis, **arguments
        )
        assert type(kernel.regularizer) is type(expected)
        assert neuron_axis(kernel) == resolve_axis(kernel.shape, recipe.axis)
        values = [float(p(kernel)) for p in (kernel.regularizer, expected)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_factor_may_be_a_share_of_the_largest_useful_one():
    dataset = datasets.load("digits")
    recipe = dataclasses.replace(SMALL, share_of_max=0.1)
    model, scale = build(recipe, dataset)
    factor = model.layers[1].kernel_regularizer.factor
    assert factor == pytest.approx(recipe.factor * scale)
    ks.regularize(model, ks.GroupLasso(1.0, axis="auto"))
    most = ks.factor_max(model, dataset.sample(1000))
    assert factor == pytest.approx(0.1 * most, rel=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_the_digits(tmp_path, name):
    recipe = dataclasses.replace(
        RECIPES[name], dataset="digits", epochs=2, batch_size=360
    )
    result = run(recipe, str(tmp_path), progress=False)
    assert result["parameters"] == 431080
    assert result["test_error"] < 92
    columns = set(history(tmp_path)[0])
    held = {"beta", "threshold"} & columns
    assert bool(held) == (recipe.training in ("splitting", "admm"))


def test_proximal_training_needs_no_threshold(tmp_path):
    recipe = dataclasses.replace(
        RECIPES["digits_sgl0_proximal"], factor=10.0, epochs=6
    )
    result = run(recipe, str(tmp_path), progress=False)
    assert result["weight_sparsity"] > 30
    model = keras.saving.load_model(tmp_path / "checkpoint.keras")
    assert 100 * ks.weight_sparsity(model, tolerance=0) > 30
    images, _ = datasets.load("digits").sample(500)
    before = model.predict(images, verbose=0)
    after = ks.apply_threshold(model).predict(images, verbose=0)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_error_counts_wrong_labels(shape):
    labels = np.array([0, 1, 1]).reshape(shape)
    outputs = np.array([[2.0, 1.0], [0.0, -1.0], [-5.0, 3.0]])
    assert np.array(error(labels, outputs)).tolist() == [0, 1, 0]
