"""What penalties say about themselves, and that it is true."""

import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy, two_layers
from keras import ops
from test_regularizers import every_penalty

import keras_sgl0 as ks
from keras_sgl0.groups import group_norms
from keras_sgl0.regularizers import trainings

W = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
GUIDE = pathlib.Path(__file__).parents[2] / "docs/guides/penalties.md"


class Norms(ks.GroupPenalty):
    """A user's own: l2 norms of groups, without `sqrt(|g|)`."""

    def __call__(self, w):
        return self.factor * ops.sum(group_norms(w, self.axis))

    def prox(self, w, step):
        norms = ops.expand_dims(group_norms(w, self.axis), 0)
        scale = ops.maximum(1 - step * self.factor / norms, 0)
        return w * ops.where(norms > 0, scale, 0.0)


class HeavyGroups(ks.GroupLasso):
    """A user's own: a group lasso with another weight."""

    def weight(self, shape):
        return 2 * super().weight(shape)


class OtherNorm(ks.GroupLasso):
    """A user's own: no group lasso any more."""

    def __call__(self, w):
        return 0.5 * super().__call__(w)

    def prox(self, w, step):
        return super().prox(w, 0.5 * step)


class ScaledL1(ks.L1):
    """A user's own: an l1 norm by another name."""


class Own(ks.SparseGroup):
    """A user's own sum."""

    def __init__(self, factor=5e-3):
        super().__init__(HeavyGroups(factor), ScaledL1(factor))

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@every_penalty
def test_a_penalty_is_what_it_says(penalty, reference):
    assert isinstance(penalty, ks.Penalty)
    assert (penalty.axis is None) == (penalty.group is None)
    parts = [p for p in (penalty.group, penalty.element) if p is not None]
    total = sum(to_numpy(part(W)) for part in parts)
    np.testing.assert_allclose(to_numpy(penalty(W)), total, rtol=1e-5)
    # Plus nothing, since l0 alone has no gradient at all.
    slope = gradient(lambda w: penalty(w) + 0 * ops.sum(w), W)
    if not penalty.has_subgradient:
        rest = np.zeros_like(W)
        if penalty.group is not None:
            rest = gradient(penalty.group, W)
        np.testing.assert_array_equal(slope, rest)
    else:
        assert np.any(slope)
    if penalty.has_prox:
        assert penalty.prox(W, 0.1).shape == W.shape
    else:
        with pytest.raises(ValueError, match="not known"):
            penalty.prox(W, 0.1)


LETTERS = {"subgradient": "g", "splitting": "s", "proximal": "p"}


def made(name):
    """Returns an instance of each class that a row of the table is about."""
    kind = getattr(ks, name)
    return kind(0.1)


def rows():
    text = GUIDE.read_text()
    table = text[text.index("| class | penalty | ways |") :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        names = re.findall(r"`(\w+)", cells[0])
        for name in names:
            if name != "SparseGroup":
                yield name, cells[2]


@pytest.mark.parametrize(("name", "ways"), list(rows()))
def test_the_guide_lists_the_ways_to_train(name, ways):
    expected = {LETTERS[t] for t in trainings(made(name)) if t in LETTERS}
    listed = re.findall(r"\b([gsp])\b(?: \((.*?)\))?", ways)
    exceptions = {letter for letter, note in listed if f"`{name}`" in note}
    assert {letter for letter, _ in listed} - exceptions == expected


def test_admm_goes_with_splitting():
    for name in ks.regularizers.__all__:
        kind = getattr(ks.regularizers, name)
        if isinstance(kind, type) and name not in (
            "ElementwisePenalty",
            "GroupPenalty",
            "Penalty",
            "SparseGroup",
        ):
            ways = trainings(kind(0.1))
            assert ("admm" in ways) == ("splitting" in ways)


def test_the_joint_operator_holds_for_subclasses_that_keep_the_norm():
    own = ks.SparseGroup(HeavyGroups(0.1), ScaledL1(0.2))
    assert own.has_prox
    expected = ks.GroupLasso(0.2).prox(ks.L1(0.2).prox(W, 0.5), 0.5)
    received = to_numpy(own.prox(W, 0.5))
    np.testing.assert_allclose(received, to_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("element", [ks.L1(0.1), ks.L0(0.1)])
def test_the_joint_operator_is_not_inherited_by_another_penalty(element):
    penalty = ks.SparseGroup(OtherNorm(0.1), element)
    assert not penalty.has_prox
    with pytest.raises(ValueError, match=r"OtherNorm and L\d is not known"):
        penalty.prox(W, 0.1)


def test_a_penalty_without_operator_says_how_to_train_it():
    class OnlyValue(ks.GroupPenalty):
        def __call__(self, w):
            return self.factor * ops.sum(ops.square(w))

    assert trainings(OnlyValue(0.1)) == ("subgradient",)
    model = two_layers(OnlyValue(0.1))
    with pytest.raises(ValueError, match="operator of OnlyValue is not known"):
        model.fit(
            np.zeros((4, 12)),
            np.zeros(4),
            callbacks=[ks.ProximalStep()],
            verbose=0,
        )


CALLBACKS = {
    "subgradient": list,
    "splitting": lambda: [ks.VariableSplitting(0.1)],
    "admm": lambda: [ks.ADMM(0.1)],
    "proximal": lambda: [ks.ProximalStep()],
}


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize(
    ("penalty", "training"),
    [
        *((Norms(5e-2), way) for way in ("subgradient", "proximal")),
        *((Own(), way) for way in CALLBACKS),
    ],
)
def test_a_penalty_of_the_users_trains(images, penalty, training, target):
    assert training in trainings(penalty)
    model = two_layers(penalty, keras.optimizers.SGD(0.1))
    callbacks = CALLBACKS[training]()
    if target:
        callbacks.append(ks.TargetDensity(0.4))
    model.fit(*images, epochs=4, callbacks=callbacks, verbose=0)
    report = ks.sparsity_report(model, 0.0)
    if target:
        assert 1 - report.weight_sparsity_kernels <= 0.4
        if training == "subgradient" and isinstance(penalty, Norms):
            # Cut by whole groups: no group has both zeros and others.
            for kernel in report.kernels:
                size = kernel.weights // kernel.groups
                assert kernel.weights_alive == kernel.groups_alive * size


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("L0", {}),
        ("L1", {}),
        ("TransformedL1", {"a": 1.0}),
        ("LHalf", {}),
        ("SCAD", {"a": 3.7}),
        ("MCP", {"gamma": 3.0}),
        ("L1MinusL2", {"alpha": 1.0}),
        ("GroupLasso", {"axis": -1}),
        ("ExclusiveLasso", {"axis": -1}),
        ("CGES", {"mu": 0.5, "axis": -1}),
        ("SparseGroupLasso", {"axis": -1}),
        ("SGL0", {"axis": -1}),
        ("SparseGroupTransformedL1", {"axis": -1, "a": 1.0}),
        ("SparseGroupLHalf", {"axis": -1}),
        ("SparseGroupL1MinusL2", {"axis": -1, "alpha": 1.0}),
        ("IntegratedTransformedL1", {"mu": 0.5, "a": 1.0, "axis": -1}),
    ],
)
def test_defaults_and_the_name_in_a_file(name, arguments):
    kind = getattr(ks, name)
    assert kind(2).get_config() == {"factor": 2.0} | arguments
    # What a saved model calls it: another name would not load it.
    assert keras.saving.get_registered_name(kind) == f"keras_sgl0>{name}"


def test_the_name_of_a_sum_in_a_file():
    name = keras.saving.get_registered_name(ks.SparseGroup)
    assert name == "keras_sgl0>SparseGroup"


@pytest.mark.parametrize(
    ("names", "ranks_by"),
    [
        (("L0", "L1", "TransformedL1", "LHalf", "SCAD", "MCP"), "weight"),
        (("L1MinusL2", "ExclusiveLasso", "CGES"), "weight"),
        (("GroupLasso", "GroupPenalty"), "group"),
        (("SparseGroup", "SGL0", "SparseGroupLasso"), "both"),
    ],
)
def test_what_says_which_weights_matter_least(names, ranks_by):
    assert {getattr(ks, name).ranks_by for name in names} == {ranks_by}


def test_cges_takes_its_depth_as_mu():
    assert ks.CGES.depth_argument == "mu"
    assert ks.GroupLasso.depth_argument is None


def test_the_factor_of_a_sum_is_that_of_both_parts():
    assert ks.SparseGroup(ks.GroupLasso(0.1), ks.L1(0.1)).factor == 0.1
    assert ks.SparseGroup(ks.GroupLasso(0.1), ks.L1(0.2)).factor is None
    assert ks.IntegratedTransformedL1(0.3, mu=0.2).factor == 0.3


def test_which_penalties_go_before_groups_and_rank_in_them():
    elements = [ks.L0(1), ks.L1(1), ks.MCP(1), ScaledL1(1)]
    assert [e.precedes_groups for e in elements] == [False, True, False, True]
    assert [e.ranks_with_groups for e in elements] == [
        True,
        False,
        False,
        False,
    ]
    assert ks.MCP(1).joint_prox(ks.GroupLasso(1)) is None
    with pytest.raises(NotImplementedError):
        ks.L1(1).smallest_kept(W, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("changed", ["__call__", "prox"])
def test_one_other_method_makes_another_penalty(changed):
    def of(base):
        return type("Own", (base,), {changed: lambda self, *x: None})(1.0)

    assert not of(ks.GroupLasso).is_norm
    assert not of(ks.L1).precedes_groups
    assert not of(ks.L0).ranks_with_groups


@pytest.mark.parametrize(
    "penalty", [ks.L0(1), ks.SCAD(1, a=3), ks.MCP(1, gamma=2)]
)
def test_a_step_in_the_domain_is_returned(penalty):
    assert penalty.validate_step(1.9) == 1.9
    tensor = ops.convert_to_tensor(99.0)  # not known before it is run
    assert penalty.validate_step(tensor) is tensor
