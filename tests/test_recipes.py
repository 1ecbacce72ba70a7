"""Recipes: the papers' numbers, the schedules and every refused setting."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sgl0.recipes import MODELS, PENALTIES, RECIPES, TRAININGS, Recipe

pytestmark = pytest.mark.tensorflow

FIELDS = dataclasses.fields(Recipe)
PAPER = {
    "mnist_plain": ("none", "subgradient"),
    "mnist_group_lasso": ("group_lasso", "subgradient"),
    "mnist_cges": ("cges", "subgradient"),
    "mnist_sparse_group_lasso": ("sparse_group_lasso", "subgradient"),
    "mnist_sgl0": ("sgl0", "splitting"),
}


def test_every_way_to_train_the_papers_penalties_has_a_recipe():
    for data in ("digits", "mnist"):
        recipes = [r for r in RECIPES.values() if r.dataset == data]
        found = {(r.penalty, r.training) for r in recipes}
        assert len(found) == len(recipes) == 10
        for way in ("subgradient", "splitting", "proximal"):
            assert ("sparse_group_lasso", way) in found
        assert {("sgl0", way) for way in TRAININGS["sgl0"]} <= found
        assert {("none", "subgradient"), ("cges", "subgradient")} <= found


@pytest.mark.parametrize("penalty", TRAININGS)
def test_what_does_not_go_together_is_refused_with_what_does(penalty):
    for training in ("subgradient", "splitting", "admm", "proximal"):
        if training in TRAININGS[penalty]:
            assert Recipe(penalty=penalty, training=training)
            continue
        with pytest.raises(ValueError, match="these go together") as caught:
            Recipe(penalty=penalty, training=training)
        for name, ways in TRAININGS.items():
            assert f"{name}: {', '.join(ways)}" in str(caught.value)


@pytest.mark.parametrize("name", PAPER)
def test_paper_recipe_has_the_papers_numbers(name):
    recipe = RECIPES[name]
    assert (recipe.penalty, recipe.training) == PAPER[name]
    assert (recipe.dataset, recipe.model) == ("mnist", "lenet5_caffe")
    assert recipe.axis == "auto"
    assert recipe.factor / 60000 == pytest.approx(0.1 / 60000)
    assert recipe.beta / 60000 == pytest.approx(2.5 / 60000)
    assert recipe.growth == 1.25
    assert recipe.epochs_between_growths == 40
    assert recipe.batch_size == 100
    assert recipe.epochs == 200
    assert recipe.tolerance == 1e-5


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 1e-3),
        (39, 1e-3),
        (40, 1e-4),
        (79, 1e-4),
        (80, 1e-5),
        (119, 1e-5),
        (120, 1e-6),
        (159, 1e-6),
        (160, 1e-7),
        (199, 1e-7),
    ],
)
def test_paper_learning_rate(name, epoch, rate):
    assert RECIPES[name].learning_rate_at(epoch) == pytest.approx(rate)


def test_digits_recipe_keeps_the_papers_ratio_of_beta_to_factor():
    digits, paper = RECIPES["digits"], RECIPES["mnist_sgl0"]
    assert digits.dataset == "digits"
    assert digits.penalty == "sgl0"
    assert digits.beta / digits.factor == pytest.approx(25)
    assert paper.beta / paper.factor == pytest.approx(25)


@given(epochs=st.integers(5, 500))
def test_shortened_run_keeps_all_four_drops(epochs):
    recipe = Recipe(epochs=epochs)
    rates = [recipe.learning_rate_at(epoch) for epoch in range(epochs)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-7)


@pytest.mark.parametrize("epochs", [5, 10, 60])
def test_shortened_run_keeps_the_share_of_each_rate(epochs):
    recipe = Recipe(epochs=epochs)
    rates = [recipe.learning_rate_at(epoch) for epoch in range(epochs)]
    assert [rates.count(rate) for rate in sorted(set(rates))] == [
        epochs // 5
    ] * 5


@given(
    milestones=st.lists(
        st.floats(0.01, 0.99), min_size=0, max_size=6, unique=True
    ),
    decay=st.floats(0.01, 1.0),
    epochs=st.integers(1, 300),
)
def test_learning_rate_falls_once_a_milestone(milestones, decay, epochs):
    milestones = tuple(sorted(milestones))
    recipe = Recipe(milestones=milestones, decay=decay, epochs=epochs)
    assert recipe.learning_rate_at(epochs) == pytest.approx(
        1e-3 * decay ** len(milestones)
    )
    for milestone in milestones:
        epoch = math.ceil(milestone * epochs - 1e-6)
        passed = sum(m * epochs - 1e-6 <= epoch for m in milestones)
        assert recipe.learning_rate_at(epoch) == pytest.approx(
            1e-3 * decay**passed
        )


@pytest.mark.parametrize(
    ("epochs", "share", "expected"),
    [(200, 0.2, 40), (60, 0.2, 12), (3, 0.2, 1), (1, 0.2, 1), (10, 1.0, 10)],
)
def test_epochs_between_growths(epochs, share, expected):
    recipe = Recipe(epochs=epochs, grow_every=share)
    assert recipe.epochs_between_growths == expected


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["digits"].epochs = 1


def test_replace_leaves_the_base_alone():
    changed = dataclasses.replace(RECIPES["digits"], seed=7)
    assert changed.seed == 7
    assert RECIPES["digits"].seed == 0


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name):
    settings = json.loads(json.dumps(RECIPES[name].to_dict()))
    assert list(settings) == [field.name for field in FIELDS]
    settings["milestones"] = tuple(settings["milestones"])
    assert Recipe(**settings) == RECIPES[name]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_is_explained(field):
    text = field.metadata["help"]
    assert text[0].isupper()
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("penalty", "training"),
    [(p, t) for p, trainings in TRAININGS.items() for t in trainings],
)
def test_every_allowed_training_is_accepted(penalty, training):
    recipe = Recipe(penalty=penalty, training=training)
    assert (recipe.penalty, recipe.training) == (penalty, training)


def test_every_penalty_and_model_can_be_named():
    assert set(TRAININGS) == set(PENALTIES)
    for name in MODELS:
        assert Recipe(model=name).model == name


@pytest.mark.parametrize("axis", ["auto", -1, 0, 3])
def test_known_axes(axis):
    assert Recipe(axis=axis).axis == axis


NOT_POSITIVE = [0, -0.1, float("nan"), float("inf"), "0.1", None, True]
REFUSED = [
    ("dataset", ["cifar10", "", None, 3], "one of 'digits', 'mnist'"),
    ("model", ["lenet", None], "one of 'lenet5_caffe'"),
    ("penalty", ["l0", None], "one of 'none', 'group_lasso'"),
    ("training", ["prox", None], "one of 'subgradient', 'splitting'"),
    ("refresh", ["epoch", None], "one of 'step', 'batch'"),
    ("factor", NOT_POSITIVE, "a finite number greater than 0"),
    ("beta", NOT_POSITIVE, "a finite number greater than 0"),
    ("grow_every", NOT_POSITIVE, "a finite number greater than 0"),
    ("learning_rate", NOT_POSITIVE, "a finite number greater than 0"),
    ("decay", NOT_POSITIVE, "a finite number greater than 0"),
    ("epsilon", NOT_POSITIVE, "a finite number greater than 0"),
    ("growth", [0.99, 0, -2, float("nan"), "2"], "number at least 1"),
    ("tolerance", [-1e-9, float("nan"), None], "number at least 0"),
    ("epochs", [0, -1, 1.5, "3", None, True], "an integer of at least 1"),
    ("batch_size", [0, -1, 1.5, "3", None], "an integer of at least 1"),
    ("seed", [-1, 0.5, "0", None], "an integer of at least 0"),
    ("axis", ["rows", "", 1.5, None, True], 'an integer or "auto"'),
    (
        "milestones",
        [(0.4, 0.2), (0.0, 0.5), (0.5, 1.0), (-0.1,), (2.0,)],
        "rising shares of the run, each between 0 and 1",
    ),
    ("milestones", [("0.2",), (None,), (float("nan"),)], "rising shares"),
]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [(field, v, text) for field, values, text in REFUSED for v in values],
)
def test_bad_value_is_refused_by_name(field, value, expected):
    with pytest.raises(ValueError) as error:
        Recipe(**{field: value})
    message = str(error.value)
    assert message.startswith(f"Invalid value for argument `{field}`.")
    assert expected in message
    assert f"Received: {field}=" in message


@pytest.mark.parametrize(
    ("penalty", "training"),
    [
        ("sgl0", "subgradient"),
        ("none", "splitting"),
        ("group_lasso", "splitting"),
    ],
)
def test_training_must_go_with_the_penalty(penalty, training):
    with pytest.raises(ValueError, match=f"for the penalty '{penalty}'"):
        Recipe(penalty=penalty, training=training)


def test_whole_message():
    with pytest.raises(ValueError) as error:
        Recipe(growth=0.5)
    assert str(error.value) == (
        "Invalid value for argument `growth`. Expected a finite number at "
        "least 1. Received: growth=0.5"
    )


def test_fields_have_no_positions():
    with pytest.raises(TypeError):
        Recipe("mnist")
