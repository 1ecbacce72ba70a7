"""Recipes: the papers' numbers, the schedules and every refused setting."""

import dataclasses
import json
import math
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sgl0.experiments.penalties import PENALTIES, all_trainings
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt, upgrade_settings
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.models import BY_NAME

pytestmark = pytest.mark.tensorflow

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "docs/results").rglob("result.json"))
TRAININGS = all_trainings()
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
        recipes = [
            r
            for r in RECIPES.values()
            if r.dataset == data
            and r.penalty != "l0_gates"
            and r.groups == "kernel"
            and not r.density
        ]
        found = {(r.penalty, r.training) for r in recipes}
        assert len(found) == len(recipes) == 10
        for way in ("subgradient", "splitting", "proximal"):
            assert ("sparse_group_lasso", way) in found
        assert {("sgl0", way) for way in TRAININGS["sgl0"]} <= found
        assert {("none", "subgradient"), ("cges", "subgradient")} <= found
        coupled = {
            (r.penalty, r.training)
            for r in RECIPES.values()
            if r.dataset == data and r.groups == "coupled"
        }
        assert coupled == {
            ("l0_gates", "subgradient"),
            ("group_lasso", "proximal"),
            ("sparse_group_lasso", "proximal"),
            ("sgl0", "splitting"),
        }


WIDE = ["cifar10_wrn_28_10", "cifar100_wrn_28_10", "cifar10_wrn_16_1"]


@pytest.mark.parametrize("name", WIDE)
def test_wide_resnets_have_the_papers_numbers(name):
    methods = ("plain", "cges", "group_lasso", "sparse_group_lasso", "sgl0")
    for method in methods:
        recipe = RECIPES[f"{name}_{method}"]
        dataset, _, depth, width = name.split("_")
        assert recipe.dataset == dataset
        assert (recipe.depth, recipe.width) == (int(depth), int(width))
        assert recipe.penalty == {"plain": "none"}.get(method, method)
        assert (recipe.factor, recipe.beta_ratio) == (0.1, 25)
        # It is the default where nothing is split.
        epochs = 20 if method == "sgl0" else 40
        assert (recipe.growth, recipe.epochs_between_growths) == (1.25, epochs)
        assert (recipe.optimizer, recipe.momentum) == ("sgd", 0.9)
        assert (recipe.batch_size, recipe.epochs) == (128, 200)
        assert (recipe.ema, recipe.augment) == (0.99, "crop_flip")
        rates = [recipe.learning_rate_at(e) for e in (0, 59, 60, 120, 160)]
        assert rates == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008])
    gated = RECIPES[f"{name}_l0_constrained"]
    assert gated.gate_learning_rate == 6
    assert gated.dual_learning_rate == 7e-4
    assert (gated.density, gated.scope) == ((0.7,), "layer")
    assert gated.learning_rate_at(199) == pytest.approx(0.0008)


def test_resnet_20_has_its_papers_schedule():
    base = RECIPES["cifar10_resnet_20_plain"]
    for method in (
        "plain",
        "cges",
        "group_lasso",
        "sparse_group_lasso",
        "sgl0",
    ):
        recipe = RECIPES[f"cifar10_resnet_20_{method}"]
        assert (recipe.dataset, recipe.model) == ("cifar10", "resnet")
        assert (recipe.depth, recipe.width) == (20, 0)
        assert recipe.penalty == {"plain": "none"}.get(method, method)
        assert (recipe.factor, recipe.training) == (
            0.1,
            TRAININGS[recipe.penalty][0],
        )
        assert (recipe.optimizer, recipe.momentum) == ("sgd", 0.9)
        assert (recipe.batch_size, recipe.epochs) == (128, 164)
        assert (recipe.ema, recipe.augment) == (0, "crop_flip")
        # The network's own weight decay, 1e-4.
        assert recipe.model_weight_decay is None
        rates = [recipe.learning_rate_at(e) for e in (81, 82, 122, 123, 163)]
        assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])
    narrower = adapt(base, width=0.7)
    assert narrower.model_settings == {"depth": 20, "width": 0.7}


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_every_way_to_close_the_papers_gates_has_a_recipe(data):
    names = {
        f"{data}_{model}_l0{way}"
        for model in ("mlp", "lenet")
        for way in ("", "_constrained", "_constrained_layers")
    }
    coupled = f"{data}_lenet_l0_coupled_macs"
    names.add(coupled)
    assert RECIPES[coupled].groups == "coupled"
    assert (RECIPES[coupled].density, RECIPES[coupled].density_of) == (
        (0.1,),
        "macs",
    )
    gated = {k for k, r in RECIPES.items() if r.penalty == "l0_gates"}
    assert {k for k in gated if k.startswith(data)} == names
    density = RECIPES[f"{data}_sgl0_density"]
    assert (density.penalty, density.density) == ("sgl0", (0.1,))


# What they share; then network, droprates, targets and what those are for.
GATED_PAPER = {
    "mnist_mlp_l0": ("mlp", (0.2, 0.5, 0.5), (), "model"),
    "mnist_mlp_l0_constrained": ("mlp", (0.2, 0.5, 0.5), (0.33,), "model"),
    "mnist_mlp_l0_constrained_layers": (
        "mlp",
        (0.2, 0.5, 0.5),
        (0.3,),
        "layer",
    ),
    "mnist_lenet_l0": ("lenet5_caffe", (0.5,), (), "model"),
    "mnist_lenet_l0_constrained": ("lenet5_caffe", (0.5,), (0.1,), "model"),
    "mnist_lenet_l0_constrained_layers": (
        "lenet5_caffe",
        (0.5,),
        (0.5, 0.3, 0.7, 0.1),
        "layer",
    ),
}


@pytest.mark.parametrize("name", GATED_PAPER)
def test_gated_paper_recipe_has_the_papers_numbers(name):
    recipe = RECIPES[name]
    assert (
        recipe.model,
        recipe.droprate,
        recipe.density,
        recipe.scope,
    ) == GATED_PAPER[name]
    assert (recipe.dataset, recipe.penalty) == ("mnist", "l0_gates")
    assert (recipe.optimizer, recipe.training) == ("adam", "subgradient")
    assert recipe.factor / 60000 == pytest.approx(0.1 / 60000)
    assert (recipe.batch_size, recipe.epochs) == (128, 200)
    rates = {recipe.learning_rate_at(epoch) for epoch in range(200)}
    assert rates == {7e-4}
    assert recipe.gate_learning_rate == 0  # that of the weights
    assert recipe.dual_learning_rate == 1e-4
    assert recipe.weight_decay == 0
    assert recipe.normalize
    assert recipe.test_gate == "median"


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
    assert recipe.beta_ratio * recipe.factor == pytest.approx(2.5)
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
    assert digits.beta_ratio == paper.beta_ratio == 25


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
    decay = decay if milestones else 0.1
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
    for field in ("milestones", "density", "droprate"):
        settings[field] = tuple(settings[field])
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
    for name in BY_NAME:
        assert Recipe(model=name).model == name


@pytest.mark.parametrize("axis", ["auto", -1, 0, 3])
def test_known_axes(axis):
    assert Recipe(axis=axis).axis == axis


NOT_POSITIVE = [0, -0.1, float("nan"), float("inf"), "0.1", None, True]
REFUSED = [
    ("dataset", ["cifar", "", None, 3], "one of 'digits', 'mnist'"),
    ("model", ["lenet", None], "one of 'lenet5_caffe'"),
    ("penalty", ["l0", None], "one of 'none', 'group_lasso'"),
    ("training", ["prox", None], "one of 'subgradient', 'splitting'"),
    ("refresh", ["epoch", None], "one of 'step', 'batch'"),
    ("augment", ["flip", None, True], "one of 'none', 'crop', 'crop_flip'"),
    ("depth", [-1, 28.0, "28", None], "an integer of at least 0"),
    ("width", [-1, "1", float("inf"), None], "a finite number at least 0"),
    ("depth", [10], "0 for the model 'lenet5_caffe', which has no depth"),
    ("width", [2], "0 for the model 'lenet5_caffe', which has no width"),
    ("factor", NOT_POSITIVE, "a finite number greater than 0"),
    ("beta_ratio", NOT_POSITIVE, "a finite number greater than 0"),
    ("grow_every", NOT_POSITIVE, "a finite number greater than 0"),
    ("learning_rate", NOT_POSITIVE, "a finite number greater than 0"),
    ("decay", NOT_POSITIVE, "a finite number greater than 0"),
    ("epsilon", NOT_POSITIVE, "a finite number greater than 0"),
    ("dual_learning_rate", NOT_POSITIVE, "a finite number greater than 0"),
    ("settle", [*NOT_POSITIVE, 1, 1.5], "greater than 0 and less than 1"),
    ("round_to", [0, 1.5, "8"], "an integer of at least 1"),
    ("density", [(0,), (1.1,), ("0.1",)], "greater than 0 and at most 1"),
    ("density", [0.1, "0.1", None], "a tuple of numbers"),
    ("density", [(0.1, 0.2)], "one number, unless for 'l0_gates' with scope"),
    ("droprate", [(0,), (0.009,), (0.5, 1)], "at least 0.01 and at most 0.99"),
    ("droprate", [0.5, None], "a tuple of numbers"),
    ("droprate", [()], "at least one number"),
    ("layer_factors", [(0.0,), (1, -1)], "a finite number greater than 0"),
    ("layer_factors", [2.0, None], "a tuple of numbers"),
    ("layer_factors", [()], "at least one number"),
    ("density_of", ["layers", None], "one of 'weights', 'parameters', 'macs'"),
    ("scope", ["global", None], "one of 'model', 'layer'"),
    ("test_gate", ["sample", None], "one of 'median', 'mean'"),
    ("normalize", ["true", 1, None], "True or False"),
    ("weight_decay", [-1, "0", None], "number at least 0"),
    ("gate_learning_rate", [-1, "0", None], "number at least 0"),
    ("share_of_max", [-1, "0", None], "number at least 0"),
    ("dropout", [-0.1, 1, "0.5"], "at least 0 and less than 1"),
    ("model_weight_decay", [-0.1, 1, "0"], "at least 0 and less than 1"),
    ("dense_fan", ["in", None], "one of 'fan_in', 'fan_out'"),
    ("growing", ["dense", None], "one of 'all', 'convolutions'"),
    ("validation", [-0.1, 1, "0.5", None], "at least 0 and less than 1"),
    ("momentum", [-0.1, 1, "0.5", None], "at least 0 and less than 1"),
    ("ema", [-0.1, 1, "0.5", None], "at least 0 and less than 1"),
    ("precision", ["float16", None], "one of 'float32', 'mixed_bfloat16'"),
    ("jit_compile", [True, None], "one of 'auto', 'on', 'off'"),
    ("steps_per_execution", [0, 1.5, None], "an integer of at least 1"),
    ("growth", [0.99, 0, -2, float("nan"), "2"], "number at least 1"),
    ("tolerance", [-1e-9, float("nan"), None], "number at least 0"),
    ("epochs", [0, -1, 1.5, "3", None, True], "an integer of at least 1"),
    ("batch_size", [0, -1, 1.5, "3", None], "an integer of at least 1"),
    ("seed", [-1, 0.5, "0", None], "an integer of at least 0"),
    ("shrink_every", [-1, 0.5, "0", None], "an integer of at least 0"),
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


GATES = {"penalty": "l0_gates", "training": "subgradient"}
COUPLED = {"groups": "coupled"}
NONE = {"penalty": "none", "training": "subgradient"}


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        (dict([pair]), pair[0], f"{default!r} with the penalty 'sgl0'")
        for pair, default in (
            (("scope", "layer"), "model"),
            (("dual_learning_rate", 1e-3), 1e-4),
            (("droprate", (0.2,)), (0.5,)),
            (("test_gate", "mean"), "median"),
            (("weight_decay", 0.1), 0.0),
            (("gate_learning_rate", 0.1), 0.0),
        )
    ]
    + [
        (GATES | dict([pair]), pair[0], f"{default!r} with the penalty 'l0_g")
        for pair, default in (
            (("share_of_max", 0.1), 0.0),
            (("settle", 0.5), 0.3),
            (("round_to", 8), 1),
            (("ema", 0.9), 0.0),
        )
    ]
    + [
        (NONE | {"density": (0.1,)}, "density", "() without a penalty"),
        (NONE | {"share_of_max": 0.1}, "share_of_max", "0.0 without a penalty"),
        (
            NONE | {"layer_factors": (2.0,)},
            "layer_factors",
            "(1.0,) without a penalty",
        ),
        (
            GATES | {"density": (0.1,), "layer_factors": (2.0,)},
            "layer_factors",
            "(1.0,) with a density",
        ),
        (GATES | {"scope": "layer"}, "scope", "'model' without a density"),
        (
            GATES | {"density": (0.1,), "weight_decay": 0.1},
            "weight_decay",
            "0.0 with a density",
        ),
        (
            GATES | {"density": (0.1, 0.2)},
            "density",
            "one number, unless for 'l0_gates' with scope='layer'",
        ),
        (
            GATES | {"density_of": "macs"},
            "density_of",
            "'weights' without a density",
        ),
        (
            GATES | {"density": (0.1,), "density_of": "channels"},
            "density_of",
            "one of ['weights', 'macs'] for 'l0_gates' with groups='kernel' "
            "and scope='model'",
        ),
        (
            GATES | {"density": (0.1,), "density_of": "macs", "scope": "layer"},
            "density_of",
            "one of ['weights'] for 'l0_gates' with groups='kernel' and "
            "scope='layer'",
        ),
        (
            GATES | {"density": (0.1,), "density_of": "weights"} | COUPLED,
            "density_of",
            "one of ['parameters', 'macs'] for 'l0_gates' with "
            "groups='coupled' and scope='model'",
        ),
    ],
)
def test_what_would_not_be_looked_at_is_refused(settings, name, expected):
    with pytest.raises(ValueError) as error:
        Recipe(**settings)
    message = str(error.value)
    assert message.startswith(
        f"Invalid value for argument `{name}`. Expected {expected}"
    )
    assert message.endswith(f"Received: {name}={settings[name]!r}")


PLAIN = {"penalty": "sparse_group_lasso", "training": "subgradient"}
CONSTRAINED = GATES | {"density": (0.3,)}
SGD = {"optimizer": "sgd"}
NO_DROPS = {"milestones": ()}
# Each field with a use: another value, recipes that use it, and recipes that
# refuse it with the reason.
USES = [
    ("depth", 10, [{"model": "wide_resnet"}], [({}, "has no depth")]),
    ("width", 2, [{"model": "mobilenet_v2"}], [({}, "has no width")]),
    ("dropout", 0.1, [{}], [({"model": "mlp"}, "has no dropout")]),
    (
        "dense_fan",
        "fan_out",
        [{}],
        [({"model": "mlp"}, "has no dense_fan")],
    ),
    (
        "model_weight_decay",
        0.1,
        [{"model": "wide_resnet"}],
        [({}, "has no weight_decay")],
    ),
    (
        "factor",
        0.2,
        [{}, PLAIN, GATES],
        [
            (NONE, "without a penalty"),
            (CONSTRAINED, "with a density"),
            ({"share_of_max": 0.1}, "with share_of_max"),
        ],
    ),
    (
        "layer_factors",
        (2.0,),
        [{}, GATES, {"share_of_max": 0.1}],
        [
            (NONE, "without a penalty"),
            (CONSTRAINED, "with a density"),
            (COUPLED, "with groups='coupled'"),
        ],
    ),
    (
        "share_of_max",
        0.1,
        [{}],
        [
            (NONE, "without a penalty"),
            (GATES, "with the penalty 'l0_gates'"),
            (COUPLED, "with groups='coupled'"),
        ],
    ),
    (
        "groups",
        "coupled",
        [{}, PLAIN, GATES],
        [(NONE, "without a penalty")],
    ),
    (
        "shrink_every",
        5,
        [{}, COUPLED, PLAIN],
        [
            (NONE, "without a penalty"),
            (GATES, "with the penalty 'l0_gates'"),
        ],
    ),
    (
        "group_weight",
        "macs",
        [COUPLED],
        [
            ({}, "with groups='kernel'"),
            (GATES | COUPLED, "with the penalty 'l0_gates'"),
        ],
    ),
    *(
        (
            name,
            value,
            [{}, {"training": "admm"}],
            [
                (PLAIN, "with the training 'subgradient'"),
                ({"training": "proximal"}, "with the training 'proximal'"),
                (NONE, "with the training 'subgradient'"),
            ],
        )
        for name, value in (
            ("beta_ratio", 5),
            ("growth", 2),
            ("grow_every", 0.1),
        )
    ),
    ("grow_every", 0.1, [{}], [({"growth": 1}, "with growth=1")]),
    (
        "growing",
        "convolutions",
        [{}],
        [
            ({"training": "admm"}, "with the training 'admm'"),
            (PLAIN, "with the training 'subgradient'"),
            ({"growth": 1}, "with growth=1"),
        ],
    ),
    (
        "refresh",
        "batch",
        [{}],
        [
            ({"training": "admm"}, "with the training 'admm'"),
            (PLAIN, "with the training 'subgradient'"),
        ],
    ),
    ("density", (0.2,), [{}, GATES], [(NONE, "without a penalty")]),
    (
        "density_of",
        "macs",
        [{"density": (0.2,)}, CONSTRAINED, CONSTRAINED | COUPLED],
        [({}, "without a density"), (NONE, "without a density")],
    ),
    (
        "settle",
        0.5,
        [{"density": (0.2,)}],
        [
            ({}, "without a density"),
            (NONE, "without a density"),
            (CONSTRAINED, "with the penalty 'l0_gates'"),
        ],
    ),
    (
        "round_to",
        8,
        [{"density": (0.2,), "density_of": "macs"}],
        [
            ({}, "without a density"),
            ({"density": (0.2,)}, "with a target of single weights"),
            (CONSTRAINED, "with the penalty 'l0_gates'"),
        ],
    ),
    *(
        (
            name,
            value,
            [CONSTRAINED],
            [
                (GATES, "without a density"),
                ({"density": (0.2,)}, "with the penalty 'sgl0'"),
            ],
        )
        for name, value in (("scope", "layer"), ("dual_learning_rate", 0.1))
    ),
    *(
        (name, value, [GATES, CONSTRAINED], [({}, "with the penalty 'sgl0'")])
        for name, value in (
            ("droprate", (0.2,)),
            ("test_gate", "mean"),
            ("gate_learning_rate", 0.1),
        )
    ),
    (
        "weight_decay",
        0.1,
        [GATES],
        [
            ({}, "with the penalty 'sgl0'"),
            (CONSTRAINED, "with a density"),
            (GATES | COUPLED, "with groups='coupled'"),
        ],
    ),
    ("momentum", 0.9, [SGD], [({}, "with the optimizer 'adam'")]),
    ("epsilon", 1e-7, [{}], [(SGD, "with the optimizer 'sgd'")]),
    ("decay", 0.5, [{}], [(NO_DROPS, "without milestones")]),
    ("ema", 0.9, [{}], [(GATES, "with the penalty 'l0_gates'")]),
]


@pytest.mark.parametrize(
    ("name", "value", "using", "refusing"), USES, ids=[u[0] for u in USES]
)
def test_a_setting_is_refused_where_it_has_no_use(name, value, using, refusing):
    default = Recipe.__dataclass_fields__[name].default
    for settings in using:
        recipe = Recipe(**settings, **{name: value})
        assert getattr(recipe, name) == value != default
    for settings, reason in refusing:
        assert getattr(Recipe(**settings), name) == default
        with pytest.raises(ValueError) as error:
            Recipe(**settings, **{name: value})
        message = str(error.value)
        assert message.startswith(
            f"Invalid value for argument `{name}`. Expected {default!r} "
        )
        assert reason in message


def test_every_field_with_a_use_is_in_that_list():
    with_use = {f.name for f in FIELDS if f.metadata["used_by"]}
    assert with_use == {name for name, *_ in USES}
    always = {f.name for f in FIELDS} - with_use
    assert always == {
        "dataset",
        "validation",
        "model",
        "penalty",
        "axis",
        "training",
        "normalize",
        "augment",
        "optimizer",
        "learning_rate",
        "milestones",
        "precision",
        "jit_compile",
        "steps_per_execution",
        "epochs",
        "batch_size",
        "seed",
        "tolerance",
    }


def test_help_says_when_a_field_is_used():
    helps = {field.name: field.metadata["help"] for field in FIELDS}
    for name, ending in (
        ("momentum", "; for sgd."),
        ("epsilon", "; for adam."),
        ("growth", "; for splitting and admm."),
        ("settle", "; not for l0_gates, with a density."),
        ("depth", "; for wide_resnet and resnet."),
        ("width", "; for wide_resnet, resnet and mobilenet_v2."),
    ):
        assert helps[name].endswith(ending)


def test_a_new_penalty_resets_what_it_does_not_look_at():
    base = Recipe(density=(0.2,), settle=0.5, growth=2, factor=0.3)
    assert adapt(base, **NONE) == Recipe(**NONE)
    assert adapt(base, factor=0.5) == Recipe(
        density=(0.2,), settle=0.5, growth=2, factor=0.5
    )
    with pytest.raises(ValueError, match="`growth`"):
        adapt(base, **NONE, growth=2)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_recipes_of_committed_results_construct(path):
    old = json.loads(path.read_text())["recipe"]
    now = upgrade_settings(old)
    assert Recipe(**now).to_dict() == now
    assert upgrade_settings(now) == now
    given = [name for name in old if name in now and now[name] != old[name]]
    for name in given:
        with pytest.raises(ValueError, match=f"`{name}`"):
            Recipe(**now | {name: old[name]})


def test_settings_that_an_old_run_did_not_look_at_are_upgraded():
    old = Recipe(**PLAIN).to_dict() | {"growth": 2, "momentum": 0.9}
    del old["precision"]
    assert upgrade_settings(old) == Recipe(**PLAIN).to_dict()


def test_targets_and_droprates_may_be_lists():
    layers = {"density": [0.1, 1], "scope": "layer", "droprate": [0.5]}
    recipe = Recipe(**GATES, **layers)
    assert (recipe.density, recipe.droprate) == ((0.1, 1.0), (0.5,))


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


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("wide_resnet", {}),
        ("wide_resnet", {"depth": 16, "width": 2, "dropout": 0.0}),
        ("resnet", {"depth": 20, "width": 0.7}),
        ("mobilenet_v2", {"width": 0.5}),
        ("lenet5_caffe", {"dropout": 0.5, "dense_fan": "fan_out"}),
    ],
)
def test_settings_of_the_model(model, settings):
    recipe = Recipe(model=model, **settings)
    assert recipe.model_settings == settings


def test_the_weight_decay_of_the_model():
    for model in ("wide_resnet", "resnet", "mobilenet_v2"):
        recipe = Recipe(model=model, model_weight_decay=0.0)
        assert recipe.model_settings == {"weight_decay": 0}


def test_the_size_is_refused_where_there_is_none():
    for model, name in (
        ("mlp", "width"),
        ("mobilenet_v2", "depth"),
        ("resnet", "dropout"),
        ("mlp", "dropout"),
        ("lenet5_caffe", "model_weight_decay"),
    ):
        without = f"{model}', which has no {name.removeprefix('model_')}"
        with pytest.raises(ValueError, match=without):
            Recipe(model=model, **{name: 3 if name in "depth width" else 0.5})
    with pytest.raises(ValueError, match="'wide_resnet', which has no dense"):
        Recipe(model="wide_resnet", dense_fan="fan_out")
