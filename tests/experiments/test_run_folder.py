"""What a run leaves where the disk is full or the loss is no number."""

import errno
import json
import os

import keras
import numpy as np
import pytest
from processes import run_code

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments import run as experiment
from keras_sgl0.experiments.building import build
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run import run
from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.experiments.run_result import RunResult
from keras_sgl0.utils.validation import RunError

pytestmark = pytest.mark.tensorflow

SMALL = adapt(
    RECIPES["digits"], model="mlp", epochs=3, batch_size=500, tolerance=1e-3
)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, run(SMALL, str(workdir), progress=False)


def full(number):
    def write(path):
        with open(path, "w") as file:
            file.write("half a")
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_what_was_there(tmp_path, number):
    folder = RunFolder(str(tmp_path))
    folder.write_result(
        RunResult(
            weight_sparsity=90.0,
            neuron_sparsity=60.0,
            test_error=1.0,
            recipe={},
            seed=0,
        )
    )
    before = contents(tmp_path)
    with pytest.raises(RunError) as problem:
        folder.write("result.json", full(number))
    assert contents(tmp_path) == before
    assert str(problem.value) == (
        f"{tmp_path}/result.json could not be written ([Errno {number}] "
        f"{os.strerror(number)}). The old file is kept. Free some space and "
        "start the same command again: it resumes after the last saved epoch."
    )


def test_other_faults_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(PermissionError):
        RunFolder(str(tmp_path)).write("result.json", full(errno.EACCES))


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_run_folder import SMALL
from keras_sgl0.experiments.run import run
from keras_sgl0.utils.validation import RunError
limit = {limit}
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    run(SMALL, {workdir!r}, progress=False)
except RunError as problem:
    print(problem)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "limit", [300_000, pytest.param(1_000, marks=pytest.mark.slow)]
)
def test_a_run_whose_files_find_no_space_goes_on_later(
    tmp_path, uninterrupted, request, limit
):
    # With the larger limit the history fits and the checkpoint does not.
    program = LIMITED.format(
        tests=str(request.path.parent), limit=limit, workdir=str(tmp_path)
    )
    done = run_code(program)
    assert done.returncode == 3 if limit > 3000 else done.returncode
    assert "could not be written" in done.stdout + done.stderr
    assert not list(tmp_path.glob("new.*"))
    again = run(SMALL, str(tmp_path), progress=False)
    assert again.test_error == uninterrupted[1].test_error
    assert again.weight_sparsity == uninterrupted[1].weight_sparsity


def test_a_run_from_before_a_setting_goes_on(tmp_path):
    old = SMALL.to_dict()
    old["beta"] = old.pop("beta_ratio") * SMALL.factor
    del old["dense_fan"]
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    folder = RunFolder(str(tmp_path))
    folder.require_same_recipe(SMALL.to_dict())
    other = SMALL.to_dict() | {"dense_fan": "fan_out"}
    with pytest.raises(ValueError, match=r"`workdir`.*'dense_fan': .'fan_in'"):
        folder.require_same_recipe(other)


def test_a_run_with_settings_it_did_not_look_at_goes_on(tmp_path):
    """Version 0.1 accepted them, from a recipe or from the user."""
    recipe = adapt(SMALL, penalty="cges", training="subgradient")
    old = recipe.to_dict() | {"grow_every": 0.1, "momentum": 0.9, "settle": 0.5}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    RunFolder(str(tmp_path)).require_same_recipe(recipe.to_dict())


def test_settings_that_never_were_a_recipe_are_damaged(tmp_path):
    (tmp_path / "recipe.json").write_text('{"beta": 1.0}')
    with pytest.raises(ValueError, match=r"recipe\.json cannot be read"):
        RunFolder(str(tmp_path)).require_same_recipe(SMALL.to_dict())


class Spoil(keras.callbacks.Callback):
    """Spoils a weight in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.spoilt = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.spoilt:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan))


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_whose_loss_is_no_number_keeps_the_last_good_model(
    tmp_path, epoch, monkeypatch, uninterrupted
):
    callbacks = experiment.callbacks_for
    monkeypatch.setattr(
        experiment,
        "callbacks_for",
        lambda *arguments: [Spoil(epoch), *callbacks(*arguments)],
    )
    with pytest.raises(RunError, match="The loss became nan in epoch") as error:
        run(SMALL, str(tmp_path), progress=False)
    folder = RunFolder(str(tmp_path))
    kept = f"{folder.file('checkpoint.keras')} has the model after epoch 2."
    none = "There is no checkpoint yet."
    assert (kept if epoch else none) in str(error.value)
    assert len(folder.history()) == epoch
    if epoch:
        model = keras.saving.load_model(folder.file("checkpoint.keras"))
        assert all(np.isfinite(w).all() for w in model.get_weights())
        monkeypatch.undo()
        result = run(SMALL, str(tmp_path), progress=False)
        assert result.test_error == uninterrupted[1].test_error


def test_admm_goes_on_with_its_dual_variable(tmp_path):
    recipe = adapt(
        SMALL, training="admm", growth=1.5, beta_ratio=1000.0, epochs=4
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(recipe, str(whole), progress=False)
    save = RunFolder.save_checkpoint

    def stop(self, model, epochs, callbacks):
        save(self, model, epochs, callbacks)
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, str(halves), progress=False)
    run(recipe, str(halves), progress=False)
    states = []
    for workdir in (whole, halves):
        model = keras.saving.load_model(workdir / "checkpoint.keras")
        states.append(model.get_weights())
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    losses = [RunFolder(str(d)).column("loss") for d in (whole, halves)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_less_precision_leaves_a_model_in_float32(tmp_path, precision):
    recipe = adapt(SMALL, precision=precision)
    result = run(recipe, str(tmp_path), progress=False)
    assert result.test_error < 60
    for name, expected in (
        ("checkpoint.keras", precision),
        ("model.keras", "float32"),
        ("shrunk.keras", "float32"),
    ):
        model = keras.saving.load_model(tmp_path / name, compile=False)
        assert model.layers[-1].dtype_policy.name == expected
    assert keras.config.dtype_policy().name == "float32"


def test_float16_skips_steps_and_still_knows_its_epoch(tmp_path):
    recipe = adapt(SMALL, precision="mixed_float16")
    digits = datasets.load("digits")
    model, _ = build(recipe, digits)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**40)  # gradients overflow
    model.fit(digits.train_batches(500, 1, 0), steps_per_epoch=3, verbose=0)
    assert int(model.optimizer.iterations) < 3
    folder = RunFolder(str(tmp_path))
    folder.save_checkpoint(model, 1, [])
    again, _ = build(recipe, digits)
    assert folder.load_checkpoint(again) == 1
    scales = [float(m.optimizer.dynamic_scale) for m in (model, again)]
    assert scales[0] == scales[1] < 2.0**40


def test_averaged_weights_have_the_zeros_of_the_others(tmp_path):
    recipe = adapt(SMALL, ema=0.9, tolerance=0.02, learning_rate=0.01)
    result = run(recipe, str(tmp_path), progress=False)
    model = keras.saving.load_model(tmp_path / "model.keras")
    raw = keras.saving.load_model(tmp_path / "checkpoint.keras")
    averages = [
        keras.ops.convert_to_numpy(v)
        for v in raw.optimizer.variables
        if "average" in v.path
    ]
    assert result.weight_sparsity > 5
    different = 0
    for w, trained, average in zip(
        model.get_weights(), raw.get_weights(), averages, strict=True
    ):
        zero = w == 0
        np.testing.assert_array_equal(w[~zero], average[~zero])
        if w.ndim == 2:
            assert (abs(trained[zero]) < 0.02).mean() > 0.8
            assert zero[abs(trained) < 0.02].all()
        different += (w != trained).sum()
    assert different > 1000
    # Validation sees the averages, and so does the last error.
    errors = RunFolder(str(tmp_path)).column("val_error")
    assert result.test_error_unthresholded == pytest.approx(
        100 * errors[-1], abs=0.3
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"jit_compile": "on"}, marks=pytest.mark.slow),
        {"steps_per_execution": 3},
    ],
)
def test_how_steps_are_compiled_changes_nothing(
    tmp_path, uninterrupted, settings
):
    recipe = adapt(SMALL, **settings)
    seen = []
    fit = keras.Model.fit

    def spy(self, *args, **kwargs):
        seen.append((self.jit_compile, self.steps_per_execution))
        return fit(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", spy)
        result = run(recipe, str(tmp_path), progress=False)
    assert seen == [
        (
            settings.get("jit_compile") == "on",
            settings.get("steps_per_execution", 1),
        )
    ]
    expected = uninterrupted[1]
    assert result.test_error == pytest.approx(expected.test_error, abs=1)
