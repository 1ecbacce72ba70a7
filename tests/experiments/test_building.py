"""From a recipe to a compiled network: its metric and its penalties."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_sgl0 as ks
from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.building import (
    build,
    callbacks_for,
    compile_classifier,
)
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.models import MLP
from keras_sgl0.models.metrics import error_rate

pytestmark = pytest.mark.tensorflow


def test_error_rate_is_one_for_each_wrong_label():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]])
    for labels in ([1, 1, 0], [[1], [1], [0]]):
        wrong = error_rate(np.array(labels), outputs)
        assert np.asarray(wrong).tolist() == [0, 1, 0]


def _compiled():
    model = MLP((4,), 3, widths=())
    compile_classifier(model)
    return model


def _evaluated(model):
    return model.evaluate(
        np.ones((2, 4)), np.zeros(2), verbose=0, return_dict=True
    )


def test_its_mean_is_shown_as_error(tmp_path):
    model = _compiled()
    assert "error" in _evaluated(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert _evaluated(loaded) == _evaluated(model)


def test_models_of_version_0_1_load(tmp_path):
    """There the function itself was the metric, and was called `error`."""
    model = _compiled()
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for entry in new.namelist():
            content = new.read(entry)
            if entry == "config.json":
                config = json.loads(content)
                config["compile_config"]["metrics"] = [
                    {
                        "module": "builtins",
                        "class_name": "function",
                        "config": "keras_sgl0>error",
                        "registered_name": "function",
                    }
                ]
                content = json.dumps(config)
            old.writestr(entry, content)
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert _evaluated(loaded) == {
        "error_rate": _evaluated(model)["error"],
        "loss": _evaluated(model)["loss"],
    }


@pytest.mark.parametrize("axis", ["auto", -1])
def test_a_recipe_penalises_what_makes_the_outputs_too(axis):
    """The paper has all four layers of LeNet penalised."""
    recipe = adapt(RECIPES["digits"], axis=axis)
    model, scale = build(recipe, datasets.load("digits"))
    put = [layer.kernel.regularizer for layer in model.layers if layer.weights]
    assert [penalty.axis for penalty in put] == [
        -1,
        -1,
        *([0, 0] if axis == "auto" else [-1, -1]),
    ]
    factors = {penalty.factor for penalty in put}
    assert factors == {recipe.factor * scale}


def test_the_target_is_what_the_recipe_says():
    recipe = adapt(
        RECIPES["digits_group_lasso_coupled"],
        density=(0.3,),
        density_of="macs",
        settle=0.5,
        round_to=8,
    )
    (target,) = (
        callback
        for callback in callbacks_for(recipe, 0.5)
        if isinstance(callback, ks.TargetDensity)
    )
    settings = target.density, target.of, target.settle, target.round_to
    assert settings == (0.3, "macs", 0.5, 8)


def test_structures_count_what_the_recipe_says():
    recipe = adapt(RECIPES["digits_group_lasso_coupled"], group_weight="macs")
    coupled, *_ = callbacks_for(recipe, 0.5)
    assert coupled.weight == "macs"
    assert coupled.penalty.factor == 0.5 * recipe.factor
