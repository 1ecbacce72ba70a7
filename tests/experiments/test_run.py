"""Running recipes: what a run leaves, and how it goes on after a kill."""

import csv
import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from keras import ops
from processes import FORK

import keras_sgl0 as ks
from keras_sgl0.experiments import datasets
from keras_sgl0.experiments import run as experiment
from keras_sgl0.experiments.building import build
from keras_sgl0.experiments.penalties import PENALTIES, all_trainings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run import run
from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.gates.lookup import gates
from keras_sgl0.groups import resolve_axis
from keras_sgl0.models.metrics import error_rate
from keras_sgl0.network.sparsity import neuron_axes

pytestmark = pytest.mark.tensorflow

TRAININGS = all_trainings()
# Three steps an epoch, rates that still move the weights in the last one, and
# a tolerance at which three epochs leave zeros already.
LENET = adapt(
    RECIPES["digits"],
    epochs=3,
    batch_size=500,
    decay=0.7,
    grow_every=0.33,
    tolerance=1e-3,
)
# It is quicker to compile and to train.
SMALL = adapt(LENET, model="mlp")
# The same for a network with constrained gates that learn at their own rate.
GATED = adapt(
    RECIPES["digits_mlp_l0_constrained"],
    epochs=3,
    batch_size=500,
    dual_learning_rate=1.0,
    gate_learning_rate=0.1,
)
FILES = {
    "recipe.json",
    "checkpoint.keras",
    "history.csv",
    "model.keras",
    "shrunk.keras",
    "result.json",
}
PERCENT = {
    "weight_sparsity",
    "weight_sparsity_kernels",
    "neuron_sparsity",
    "test_error",
    "test_error_unthresholded",
    "weight_sparsity_unthresholded",
    "neuron_sparsity_unthresholded",
    "best_test_error",
}


RESULT = {
    "parameters",
    "neurons_alive",
    "recipe",
    "seed",
    "epochs",
    "seconds",
    "versions",
    "shrunk",
    "report",
}


class StoppedError(Exception):
    pass


class Stop(keras.callbacks.Callback):
    """Ends a run after a batch, or between an epoch's line and checkpoint."""

    def __init__(self, epoch, batch=None, kill=False):
        super().__init__()
        self.when, self.kill = (epoch, batch), kill

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.stop_at(batch)

    def stop_at(self, batch):
        if (self.epoch, batch) == self.when and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.epoch, batch) == self.when:
            raise StoppedError


def run_until(stop, workdir, recipe=SMALL):
    """Runs a recipe until `stop` ends it."""
    fit, save = keras.Model.fit, RunFolder.save_checkpoint

    def fit_and_stop(self, *args, callbacks, **kwargs):
        return fit(self, *args, callbacks=[*callbacks, stop], **kwargs)

    def stop_and_save(self, *arguments):
        stop.stop_at(None)
        save(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", fit_and_stop)
        patch.setattr(RunFolder, "save_checkpoint", stop_and_save)
        run(recipe, str(workdir), progress=False)


def die_in_second_epoch(workdir):
    run_until(Stop(epoch=1, batch=1, kill=True), workdir)


def history(workdir):
    if not (workdir / "history.csv").exists():
        return []
    with open(workdir / "history.csv") as file:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def final_state(workdir):
    """Returns all weights and optimizer variables of the checkpoint."""
    settings = json.loads((workdir / "recipe.json").read_text())
    tuples = {k: tuple(v) for k, v in settings.items() if isinstance(v, list)}
    model, _ = build(Recipe(**settings | tuples), datasets.load("digits"))
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


def test_a_run_that_shrinks_while_it_trains(tmp_path):
    """The files are those of any run, of the whole network, after a kill."""
    recipe = adapt(
        SMALL,
        penalty="group_lasso",
        groups="coupled",
        training="proximal",
        density=(0.4,),
        density_of="parameters",
        shrink_every=1,
        epochs=4,
    )
    with pytest.raises(StoppedError):
        run_until(Stop(epoch=3, batch=1), tmp_path, recipe)
    assert (tmp_path / "shrinking.npz").exists()
    result = run(recipe, str(tmp_path), progress=False)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == FILES | {"shrinking.npz"}
    assert [row["epoch"] for row in history(tmp_path)] == [0, 1, 2, 3]
    whole = keras.saving.load_model(tmp_path / "model.keras")
    small = keras.saving.load_model(tmp_path / "shrunk.keras")
    assert whole.count_params() == result.shrunk.parameters
    assert small.count_params() == result.shrunk.parameters_after
    assert result.shrunk.parameters_after <= 0.4 * result.shrunk.parameters
    assert result.shrunk.relative_difference < 1e-4
    last = history(tmp_path)[-1]
    assert result.test_error == pytest.approx(100 * last["val_error"], abs=0.1)
    assert result.weight_sparsity == pytest.approx(
        100 * last["weight_sparsity"], abs=0.1
    )


def test_run_leaves_its_files(uninterrupted):
    workdir, result = uninterrupted
    assert {path.name for path in workdir.iterdir()} == FILES
    assert json.loads((workdir / "result.json").read_text()) == result.to_dict()
    assert json.loads((workdir / "recipe.json").read_text()) == SMALL.to_dict()


def test_result_keys(uninterrupted):
    _, result = uninterrupted
    assert set(result.to_dict()) == PERCENT | RESULT
    assert result.recipe == SMALL.to_dict()
    assert (result.seed, result.epochs) == (0, 3)
    assert result.parameters == 266610
    assert result.versions["keras_sgl0"] == ks.__version__
    assert result.versions["keras"] == keras.__version__


def test_result_is_in_percent_and_that_of_the_saved_model(uninterrupted):
    workdir, result = uninterrupted
    model = keras.saving.load_model(workdir / "model.keras")
    report = ks.sparsity_report(model, tolerance=0, axis=SMALL.axis)
    assert 0.1 < result.weight_sparsity < 50
    for name in (
        "weight_sparsity",
        "weight_sparsity_kernels",
        "neuron_sparsity",
    ):
        assert getattr(result, name) == pytest.approx(
            100 * getattr(report, name), abs=1e-4
        )
    assert result.neurons_alive == list(report.neurons_alive)
    test = datasets.load("digits").test_batches()
    logs = model.evaluate(test, verbose=0, return_dict=True)
    assert 1 < result.test_error < 90
    assert result.test_error == pytest.approx(100 * logs["error"], abs=0.01)
    errors = [row["val_error"] for row in history(workdir)]
    assert result.test_error_unthresholded == pytest.approx(
        100 * errors[-1], abs=0.01
    )
    assert result.best_test_error == pytest.approx(100 * min(errors))


def test_result_has_the_exact_zeros_from_before_the_cut(uninterrupted):
    workdir, result = uninterrupted
    model = keras.saving.load_model(workdir / "checkpoint.keras")
    weights = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    zeros = sum(int((w == 0).sum()) for w in weights)
    total = sum(w.size for w in weights)
    assert result.weight_sparsity_unthresholded == pytest.approx(
        100 * zeros / total, abs=1e-4
    )
    assert zeros < 0.01 * result.weight_sparsity * total
    assert result.neuron_sparsity_unthresholded == 0


def test_the_shrunk_model_is_the_saved_one_without_its_zeros(uninterrupted):
    workdir, result = uninterrupted
    models = [
        keras.saving.load_model(workdir / name)
        for name in ("model.keras", "shrunk.keras")
    ]
    batches = datasets.load("digits").test_batches()
    outputs = [model.predict(batches, verbose=0) for model in models]
    largest = abs(outputs[0]).max()
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5 * largest)
    shrunk = result.shrunk
    assert shrunk.to_dict() == {
        "parameters": 266610,
        "parameters_after": models[1].count_params(),
        "macs": 266200,
        "macs_after": ks.count_macs(models[1]).macs,
        "relative_difference": shrunk.relative_difference,
        "test_error": result.test_error,
    }
    assert shrunk.relative_difference < 1e-5


@pytest.mark.parametrize("culprit", ["shrink", "save"])
def test_a_model_that_cannot_be_shrunk_costs_no_run(
    workdir, uninterrupted, monkeypatch, culprit
):
    def fail(*args, **kwargs):
        raise MemoryError("too large")

    (workdir / "result.json").unlink()
    (workdir / "shrunk.keras").unlink()
    if culprit == "shrink":
        monkeypatch.setattr(experiment, "shrink", fail)
    else:
        write = RunFolder.write
        monkeypatch.setattr(
            RunFolder,
            "write",
            lambda self, name, save: (fail if "shrunk" in name else write)(
                self, name, save
            ),
        )
    with pytest.warns(UserWarning) as warned:
        result = run(SMALL, str(workdir), progress=False)
    text = "MemoryError: too large"
    assert f"The model was not shrunk. {text}" in [
        str(warning.message) for warning in warned
    ]
    expected = uninterrupted[1].to_dict() | {"shrunk": {"problem": text}}
    assert result.to_dict() == expected
    assert json.loads((workdir / "result.json").read_text()) == expected
    assert {path.name for path in workdir.iterdir()} == FILES - {"shrunk.keras"}


def test_history_follows_the_recipe(uninterrupted):
    workdir, result = uninterrupted
    rows = history(workdir)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for epoch, row in enumerate(rows):
        beta = SMALL.beta_ratio * SMALL.factor * SMALL.growth**epoch
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
    assert result.seconds == pytest.approx(seconds, abs=0.06)


def test_growing_in_convolutions_only(tmp_path):
    recipe = adapt(LENET, growing="convolutions", epochs=2)
    run(recipe, str(tmp_path), progress=False)
    first, last = history(tmp_path)
    found = {
        name.split("/")[-2]: last[name] / first[name]
        for name in first
        if name.startswith("threshold/")
    }
    shrunk = SMALL.growth**-0.5
    expected = {"conv1": shrunk, "conv2": shrunk, "fc1": 1, "fc2": 1}
    assert found == pytest.approx(expected)


def test_killed_run_goes_on_from_its_last_finished_epoch(
    tmp_path, uninterrupted
):
    process = FORK.Process(target=die_in_second_epoch, args=(tmp_path,))
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


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("gated")
    return workdir, run(GATED, str(workdir), progress=False)


def test_stopped_gated_run_goes_on(tmp_path, gated):
    with pytest.raises(StoppedError):
        run_until(Stop(epoch=1, batch=1), tmp_path, GATED)
    assert len(history(tmp_path)) == 1
    again = run(GATED, str(tmp_path), progress=False)
    assert_same_run(tmp_path, gated[0])
    assert again.gates == gated[1].gates
    rows = history(tmp_path)
    assert 0 < rows[0]["multiplier"] < rows[2]["multiplier"]
    assert rows[0]["density"] > rows[2]["density"]


def test_result_of_gates(gated):
    workdir, result = gated
    found = result.gates
    assert set(result.to_dict()) == PERCENT | RESULT | {"gates"}
    assert [layer["name"] for layer in found.layers] == ["fc1", "fc2", "fc3"]
    assert found.parameters == 266200
    density = history(workdir)[-1]["density"]
    assert found.density == pytest.approx(density, rel=1e-5)
    assert found.median.test_error == result.test_error_unthresholded
    widths = [int(n) for n in found.architecture.split("-")]
    for width, most in zip(widths, (784, 300, 100), strict=True):
        assert 0 < width <= most
    for test_gate in ("median", "mean"):
        assert getattr(found, test_gate).architecture.count("-") == 2
    assert found.ungated.neuron_sparsity <= result.neuron_sparsity


def test_model_of_a_gated_run_has_no_gates(gated):
    workdir, result = gated
    model = keras.saving.load_model(workdir / "model.keras")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {
        "keras"
    }
    test = datasets.load("digits").normalized().test_batches()
    logs = model.evaluate(test, verbose=0, return_dict=True)
    assert result.test_error == pytest.approx(100 * logs["error"], abs=0.01)
    assert result.parameters == model.count_params() == 266610


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"droprate": (0.2, 0.5)}, "droprate"),
        ({"density": (0.2, 0.5), "scope": "layer"}, "density"),
        ({"density": (), "layer_factors": (1.0, 2.0)}, "layer_factors"),
    ],
)
def test_numbers_for_other_gates_claim_no_folder(tmp_path, settings, name):
    recipe = adapt(GATED, **settings)
    with pytest.raises(ValueError) as problem:
        run(recipe, str(tmp_path / "run"), progress=False)
    assert str(problem.value) == (
        f"Invalid value for argument `{name}`. Expected one number, or one for "
        "each of the layers ['fc1', 'fc2', 'fc3']. Received: "
        f"{name}={settings[name]}"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["digits_mlp_l0", "digits_lenet_l0"])
def test_build_gives_every_gate_its_penalty(name):
    recipe = adapt(RECIPES[name], weight_decay=2.0)
    model, scale = build(recipe, datasets.load("digits"))
    sizes = {
        "mlp": (300, 100, 10),
        "lenet5_caffe": (26, 501, 500, 10),
    }[recipe.model]
    rates = recipe.droprate * (1 if recipe.model == "mlp" else 4)
    for gate, size, droprate in zip(gates(model), sizes, rates, strict=True):
        penalty = gate.regularizer
        assert penalty.group_size == size
        assert penalty.factor == pytest.approx(recipe.factor / 1438)
        assert penalty.weight_decay == pytest.approx(2 / 1438)
        assert (gate.droprate_init, gate.test_gate) == (droprate, "median")
    held = adapt(recipe, weight_decay=0.0, density=(0.5,))
    model, _ = build(held, datasets.load("digits"))
    assert {gate.regularizer for gate in gates(model)} == {None}
    assert scale == 1 / 1438


def test_target_density_of_a_run(tmp_path):
    recipe = adapt(
        RECIPES["digits_sgl0_density"],
        model="mlp",
        epochs=3,
        batch_size=500,
        density_of="parameters",
    )
    result = run(recipe, str(tmp_path), progress=False)
    rows = history(tmp_path)
    assert rows[-1]["density"] <= 0.1
    assert [row["strength"] > 0 for row in rows] == [False, False, False]
    # Zeros of biases are beyond the target.
    assert result.weight_sparsity >= 90


def test_run_killed_before_its_result_does_not_train_again(
    workdir, uninterrupted
):
    (workdir / "result.json").unlink()
    (workdir / "model.keras").unlink()
    result = run(SMALL, str(workdir), progress=False)
    assert result == uninterrupted[1]
    assert_same_run(workdir, uninterrupted[0])


def test_finished_run_returns_its_result(workdir):
    path = workdir / "result.json"
    values = json.loads(path.read_text()) | {"test_error": 12.5}
    path.write_text(json.dumps(values))
    before = contents(workdir)
    result = run(SMALL, str(workdir), data_dir="/nowhere", progress=False)
    assert result.to_dict() == values
    assert result.test_error == 12.5
    assert contents(workdir) == before


def test_another_recipes_folder_is_left_alone(workdir):
    before = contents(workdir)
    other = adapt(SMALL, seed=1, milestones=(0.5,))
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
        f"To start this run again, remove the folder {workdir}."
    )
    after = contents(workdir)
    assert after.pop("lock.0") == b"released"
    assert after == before


@pytest.mark.parametrize("name", ["recipe.json", "result.json"])
@pytest.mark.parametrize(
    "content", [b"", b'{"seed": 0', b"\xff\xfe\x00", b"[]"]
)
def test_spoilt_json(workdir, name, content):
    (workdir / name).write_bytes(content)
    before = contents(workdir)
    with pytest.raises(ValueError) as problem:
        run(SMALL, str(workdir), progress=False)
    message = str(problem.value)
    assert message.startswith(f"The file {workdir}/{name} cannot be read (")
    assert message.endswith(
        f"To start this run again, remove the folder {workdir}."
    )
    assert contents(workdir) == before


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_recipe_file_that_is_no_object(workdir, content):
    (workdir / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.json"):
        run(SMALL, str(workdir), progress=False)


@pytest.mark.parametrize("settings", [{"dataset": "mnist"}, {"axis": 7}])
def test_run_that_cannot_begin_claims_no_folder(tmp_path, settings):
    recipe = adapt(SMALL, **settings)
    with pytest.raises(ValueError, match=r"data_dir|axis"):
        run(recipe, str(tmp_path / "run"), data_dir="/nowhere")
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_on_held_out_images_never_sees_the_test_set(
    tmp_path, monkeypatch
):
    digits = datasets.load("digits")
    spoilt = dataclasses.replace(digits, test=None)
    monkeypatch.setattr(datasets, "load", lambda *_: spoilt)
    recipe = adapt(SMALL, validation=0.2, normalize=True)
    result = run(recipe, str(tmp_path), progress=False)
    wrong = result.test_error * 288 / 100
    assert 0 < wrong < 288
    assert wrong == pytest.approx(round(wrong), abs=1e-4)
    _, scale = build(recipe, digits.held_out(0.2))
    assert scale == 1 / 1150


def test_run_without_penalty(tmp_path):
    recipe = adapt(
        RECIPES["mnist_plain"],
        model="mlp",
        dataset="digits",
        epochs=1,
        batch_size=500,
    )
    result = run(recipe, str(tmp_path), progress=False)
    assert result.neurons_alive == [784, 300, 100]
    assert {"beta", "threshold"}.isdisjoint(history(tmp_path)[0])


@pytest.mark.parametrize("penalty", [p for p in PENALTIES if p != "l0_gates"])
def test_build_gives_every_kernel_its_penalty(penalty):
    recipe = adapt(LENET, penalty=penalty, training=TRAININGS[penalty][0])
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
        axis = resolve_axis(kernel.shape, recipe.axis)
        assert neuron_axes(model)[id(kernel)] == axis
        values = [float(p(kernel)) for p in (kernel.regularizer, expected)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("penalty", ["cges", "sgl0", "l0_gates"])
def test_a_factor_a_layer(penalty):
    factors = (0.5, 1.0, 2.0, 3.0)
    recipe = adapt(
        LENET,
        penalty=penalty,
        training=TRAININGS[penalty][0],
        layer_factors=factors,
    )
    model, scale = build(recipe, datasets.load("digits"))
    if penalty == "l0_gates":
        penalties = [gate.regularizer for gate in gates(model)]
    else:
        weights = model.trainable_variables
        penalties = [w.regularizer for w in weights if w.regularizer]
    found = [p.factor / (recipe.factor * scale) for p in penalties]
    assert found == pytest.approx(factors)
    if penalty == "cges":
        assert [p.mu for p in penalties] == [0, 0.25, 0.5, 0.75]


OWN = """
from keras_sgl0.regularizers import GroupLasso


class Mine(GroupLasso):
    pass


class Other:
    pass
"""


def test_a_penalty_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "own_penalty.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"penalty": "own_penalty:Mine", "training": "subgradient"}
    recipe = adapt(SMALL, epochs=1, **own)
    result = run(recipe, str(tmp_path / "run"), progress=False)
    assert result.recipe["penalty"] == "own_penalty:Mine"
    model, _ = build(recipe, datasets.load("digits"))
    kinds = {type(v.regularizer).__name__ for v in model.trainable_variables}
    assert kinds == {"Mine", "NoneType"}
    for name in ("own_penalty:Other", "own_penalty:No", "nowhere:Mine", "a:"):
        with pytest.raises(ValueError, match=r"argument `penalty`"):
            adapt(recipe, penalty=name)


def test_factors_of_other_layers():
    recipe = adapt(LENET, layer_factors=(1.0, 2.0))
    with pytest.raises(ValueError, match="'conv1', 'conv2', 'fc1', 'fc2'"):
        build(recipe, datasets.load("digits"))


def test_a_factor_may_be_a_share_of_the_largest_useful_one():
    dataset = datasets.load("digits")
    recipe = adapt(LENET, share_of_max=0.1)
    model, scale = build(recipe, dataset)
    factor = model.layers[1].kernel_regularizer.factor
    assert factor == pytest.approx(recipe.factor * scale)
    ks.regularize(model, ks.GroupLasso(1.0, axis="auto"))
    most = ks.factor_max(model, dataset.sample(1000))
    assert factor == pytest.approx(0.1 * most, rel=1e-4)


NETWORKS = {
    "wide_resnet": ({"depth": 10, "width": 0.25}, "_conv1", 3),
    "resnet": ({"depth": 8, "width": 0.25}, "_conv1", 3),
    "mobilenet_v2": ({"width": 0.1}, "_expand", 16),
}


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("penalty", ["none", "cges", "sgl0", "l0_gates"])
def test_build_leaves_it_to_the_network_what_is_penalised(model, penalty):
    size, ending, number = NETWORKS[model]
    training = TRAININGS[penalty][0]
    recipe = adapt(
        SMALL, model=model, penalty=penalty, training=training, **size
    )
    built, _ = build(recipe, datasets.load("digits"))
    chosen = [x for x in built.layers if x.name.endswith(ending)]
    assert len(chosen) == number
    found = [layer.kernel_regularizer for layer in chosen]
    kinds = {"none": keras.regularizers.L2, "l0_gates": type(None)}
    kind = kinds.get(penalty, PENALTIES[penalty])
    assert {type(r) for r in found} == {kind}
    if penalty == "cges":
        assert [r.mu for r in found] == [k / number for k in range(number)]
    gates = [x for x in built.layers if isinstance(x, ks.HardConcrete)]
    assert len(gates) == number * (penalty == "l0_gates")
    own = (ks.SGL0, ks.CGES, ks.GroupLasso)
    others = [w for w in built.weights if isinstance(w.regularizer, own)]
    assert len(others) == number * (penalty in ("cges", "sgl0"))


@pytest.mark.parametrize("penalty", ["none", "l0_gates"])
def test_a_share_of_the_largest_factor_needs_a_group_penalty(penalty):
    with pytest.raises(ValueError, match="argument `share_of_max`"):
        adapt(SMALL, penalty=penalty, training="subgradient", share_of_max=0.1)


@pytest.mark.parametrize("depth", [8, 27])
def test_a_depth_that_no_network_has_claims_no_folder(tmp_path, depth):
    recipe = adapt(SMALL, model="wide_resnet", depth=depth)
    with pytest.raises(ValueError, match="argument `depth`"):
        run(recipe, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_wide_resnet_on_cropped_images(tmp_path):
    recipe = adapt(
        SMALL,
        model="wide_resnet",
        depth=10,
        width=0.25,
        optimizer="sgd",
        learning_rate=0.05,
        epochs=1,
        augment="crop",
        normalize=True,
    )
    fed = []
    train_batches = datasets.Dataset.train_batches

    def spy(self, *arguments, augment):
        fed.append((*arguments, augment))
        return train_batches(self, *arguments, augment=augment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.Dataset, "train_batches", spy)
        result = run(recipe, str(tmp_path), progress=False)
    assert fed == [(500, 1, 0, 0, "crop")]
    assert len(result.neurons_alive) == 1 + 3 + 6 + 1
    assert result.recipe["augment"] == "crop"
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.input_shape == (None, 28, 28, 1)


# Those of MNIST are the same with other numbers.
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RECIPES if "digits" in n])
def test_every_recipe_trains_on_the_digits(tmp_path, name):
    recipe = adapt(RECIPES[name], epochs=2, batch_size=360)
    if recipe.penalty != "l0_gates":
        recipe = adapt(recipe, model="mlp")  # quicker to compile
    result = run(recipe, str(tmp_path), progress=False)
    parameters = {"lenet5_caffe": 431080, "mlp": 266610}
    assert result.parameters == parameters[recipe.model]
    # Neither what gates close nor what a density cuts heals in two epochs.
    if not (recipe.penalty == "l0_gates" or recipe.density):
        assert result.test_error < 92
    assert (result.gates is not None) == (recipe.penalty == "l0_gates")
    columns = set(history(tmp_path)[0])
    held = {"beta", "threshold"} & columns
    assert bool(held) == (recipe.training in ("splitting", "admm"))


@pytest.mark.parametrize(
    "name",
    ["group_lasso_coupled", "sgl0_coupled"],
    ids=["proximal", "splitting"],
)
def test_coupled_groups_leave_the_work_that_is_asked_for(tmp_path, name):
    settings = {"density": (0.4,), "density_of": "macs", "epochs": 4}
    recipe = adapt(
        RECIPES[f"digits_{name}"],
        model="mlp",
        optimizer="sgd",
        ema=0.9,
        **settings,
    )
    with pytest.raises(StoppedError):
        run_until(Stop(epoch=1), tmp_path / "stopped", recipe)
    result = run(recipe, str(tmp_path / "stopped"), progress=False)
    shrunk = result.shrunk
    assert 0.396 <= shrunk.macs_after / shrunk.macs <= 0.4
    assert shrunk.test_error == result.test_error
    assert shrunk.relative_difference < 1e-5
    whole = run(recipe, str(tmp_path / "whole"), progress=False)
    assert whole.test_error == result.test_error
    assert whole.report == result.report


def test_coupled_gates_are_on_structures(tmp_path):
    recipe = adapt(
        RECIPES["digits_lenet_l0_coupled_macs"], model="mlp", epochs=2
    )
    with pytest.raises(StoppedError):
        run_until(Stop(epoch=1), tmp_path / "stopped", recipe)
    result = run(recipe, str(tmp_path / "stopped"), progress=False)
    names = [layer["name"] for layer in result.gates.layers]
    assert names == ["fc1_gates", "fc2_gates"]
    assert result.gates.macs == 266_200
    density = history(tmp_path / "stopped")[-1]["density"]
    assert result.gates.macs_density == pytest.approx(density, rel=1e-5)
    assert result.parameters == 266_610
    assert result.shrunk.relative_difference < 1e-5
    whole = run(recipe, str(tmp_path / "whole"), progress=False)
    assert whole.gates == result.gates
    assert whole.report == result.report


def test_coupled_gates_have_their_penalty_or_their_densities():
    data = datasets.load("digits")
    recipe = adapt(RECIPES["digits_mlp_l0"], groups="coupled", droprate=(0.2,))
    model, scale = build(recipe, data)
    first, second = gates(model)
    sizes = [gate.regularizer.group_size for gate in (first, second)]
    assert sizes == [784 + 1 + 100, 300 + 1 + 10]
    assert first.regularizer.factor == pytest.approx(recipe.factor * scale)
    assert first.droprate_init == 0.2
    each = {"scope": "layer", "density_of": "parameters"}
    held = adapt(recipe, density=(0.5, 0.2), **each)
    model, _ = build(held, data)
    assert {gate.regularizer for gate in gates(model)} == {None}
    with pytest.raises(ValueError, match=r"the layers \['fc1_gates', 'fc2"):
        build(adapt(recipe, density=(0.5, 0.2, 0.1), **each), data)
    with pytest.raises(ValueError, match="argument `droprate`"):
        build(adapt(recipe, droprate=(0.2, 0.5)), data)


def test_proximal_training_needs_no_threshold(tmp_path):
    recipe = adapt(
        RECIPES["digits_sgl0_proximal"], model="mlp", factor=10.0, epochs=6
    )
    result = run(recipe, str(tmp_path), progress=False)
    assert result.weight_sparsity > 30
    shrunk = result.shrunk
    assert shrunk.parameters_after < 0.8 * shrunk.parameters
    assert shrunk.macs_after < shrunk.macs
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
    assert np.array(error_rate(labels, outputs)).tolist() == [0, 1, 0]
