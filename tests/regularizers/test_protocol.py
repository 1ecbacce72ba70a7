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
README = pathlib.Path(__file__).parents[2] / "README.md"


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
    text = README.read_text()
    table = text[text.index("| class | penalty | ways |") :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        names = re.findall(r"`(\w+)", cells[0])
        for name in names:
            if name != "SparseGroup":
                yield name, cells[2]


@pytest.mark.parametrize(("name", "ways"), list(rows()))
def test_the_readme_lists_the_ways_to_train(name, ways):
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
