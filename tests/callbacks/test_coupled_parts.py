"""What `CoupledGroups` lends to each variable, and to which."""

import keras
import numpy as np
import pytest
from helpers import QUICK, compile_quickly, to_numpy, two_layers
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.coupling import CoupledPart
from keras_sgl0.callbacks.joint_penalty import JointPenalty
from keras_sgl0.callbacks.lending import penalty_of
from keras_sgl0.structures.members import Members


class Lent(keras.callbacks.Callback):
    """Keeps what the variables have during the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.parts = [v.regularizer for v in self.model.trainable_variables]
        self.penalties = [penalty_of(v) for v in self.model.trainable_variables]


def lent(images, penalty, model=None, **arguments):
    """Returns what is lent to kernel, bias, kernel, bias, and the callback."""
    seen, coupled = Lent(), ks.CoupledGroups(penalty, **arguments)
    model = model or two_layers(None)
    model.fit(*images, verbose=0, callbacks=[coupled, seen])
    assert all(v.regularizer is None for v in model.trainable_variables)
    return seen.parts, model, coupled


def test_a_kernel_that_makes_no_channel_has_a_part_on_weights(images):
    parts, _, coupled = lent(images, ks.SGL0(0.01))
    kinds = [isinstance(part, CoupledPart) for part in parts]
    assert kinds == [True, True, True, False]
    assert [part.element is None for part in parts[:3]] == [False, True, False]
    assert coupled.structures.size == 16
    parts, *_ = lent(images, ks.GroupLasso(0.01))
    kinds = [isinstance(part, CoupledPart) for part in parts]
    assert kinds == [True, True, False, False]


def test_the_parts_add_up_to_the_penalty(images):
    factor = 0.01
    model = two_layers(None, keras.optimizers.SGD(0.0))
    model.layers[0].bias.assign(np.arange(16) / 16)
    parts, *_ = lent(images, ks.SGL0(factor), model)
    first, bias, second, _ = map(to_numpy, model.trainable_variables)
    norms = np.linalg.norm(np.vstack([first, bias]), axis=0)
    group = factor * 13**0.5 * norms.sum()
    variables = model.trainable_variables[:3]
    pairs = zip(parts[:3], variables, strict=True)
    values = [float(part.value(variable)) for part, variable in pairs]
    expected = [group + factor * first.size, 0, factor * second.size]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_what_a_part_says_of_itself(images):
    for penalty, has_prox in (
        (ks.GroupLasso(0.01), True),
        (ks.CGES(0.01), True),
    ):
        parts, *_ = lent(images, penalty)
        assert parts[0].has_prox is has_prox
        assert parts[0].factor == 0.01
        assert parts[0].ranks_by == penalty.ranks_by
        assert parts[0].has_subgradient
    unknown = ks.SparseGroup(ks.GroupLasso(0.01), ks.MCP(0.01))
    parts, *_ = lent(images, unknown)
    assert parts[0].has_prox is False
    parts, *_ = lent(images, ks.SGL0(0.01))
    assert not parts[0].has_subgradient


def test_a_layer_of_one_channel_and_one_variable(images):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(1, use_bias=False, activation="tanh"),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, "sgd", loss)
    parts, _, coupled = lent(images, ks.GroupLasso(0.01), model)
    assert coupled.structures.size == 1
    assert [part is not None for part in parts] == [True, False, False]


@pytest.mark.parametrize("weight", ["size", "macs", "parameters"])
def test_every_weight_is_taken(weight):
    assert ks.CoupledGroups(ks.GroupLasso(1.0), weight=weight).weight == weight
    assert ks.CoupledGroups(ks.GroupLasso(1.0)).model is None


def test_the_model_is_what_is_refused(images):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(3)])
    model.compile("sgd", "sparse_categorical_crossentropy", **QUICK)
    with pytest.raises(ValueError, match=r"`model`. .* that can be cut"):
        lent(images, ks.GroupLasso(0.01), model)
    model = two_layers(None)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match=r"`model`. .* can be trained"):
        lent(images, ks.GroupLasso(0.01), model)


def test_dead_channels_end_with_a_mean_of_zero(images):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(4, name="first"),
            layers.BatchNormalization(scale=False, name="norm"),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_quickly(model, keras.optimizers.SGD(0.0), loss)
    first, norm = model.layers[:2]
    alive = np.array([1, 0, 1, 0])
    first.kernel.assign(to_numpy(first.kernel) * alive)
    norm.moving_mean.assign(np.ones(4))
    lent(images, ks.GroupLasso(0.01), model)
    assert ((to_numpy(norm.moving_mean) != 0) == alive).all()


def test_a_structure_of_one_weight_is_an_absolute_value():
    model = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(2, use_bias=False),
            layers.Dense(3),
        ]
    )
    model.layers[0].kernel.assign([[0.5, -2.0]])
    found = ks.structures(model)
    joint = JointPenalty(
        model, Members(found), ks.GroupLasso(0.1), np.array([3.0])
    )
    assert float(joint.value()) == pytest.approx(0.1 * 3 * 2.5)


def test_the_weights_multiply_the_step():
    model = two_layers(None)
    found = ks.structures(model)
    first = model.layers[0]
    rows = np.vstack([to_numpy(first.kernel), to_numpy(first.bias)]).T
    for penalty in (ks.GroupLasso(0.1), ks.ExclusiveLasso(0.1)):
        joint = JointPenalty(model, Members(found), penalty, np.array([3.0]))
        kind = type(penalty)(0.3, axis=0)
        expected = to_numpy(kind.prox(ops.convert_to_tensor(rows), 0.5))
        assert (expected != 0).any()
        new = joint.prox(first.kernel, first.kernel, 0.5)
        np.testing.assert_allclose(
            to_numpy(new), expected[:, :12].T, rtol=1e-5, atol=1e-7
        )
