"""The numbers behind a target density of weights, parameters or neurons."""

import keras
import numpy as np
import pytest
from helpers import to_numpy, two_layers
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.callbacks.density_measures import (
    COUNTED,
    MEASURES,
    fan_in,
    negligible,
)
from keras_sgl0.network.layer_table import layouts_of


def measured(name, target=0.5, penalty=None):
    model = two_layers(penalty or ks.L1(0.1))
    kernels = [layer.kernel for layer in model.layers]
    return MEASURES[name](target, model, kernels), kernels


@pytest.mark.parametrize(
    ("name", "sizes", "density"),
    [
        ("weights", [192, 48], 1 / 2),
        ("parameters", [192, 48], (120 + 19) / 259),
        ("neurons", [16, 3], 1),
    ],
)
def test_what_is_counted(name, sizes, density):
    measure, kernels = measured(name, 0.9, ks.GroupLasso(0.1))
    assert [measure.size(kernel) for kernel in kernels] == sizes
    for kernel in kernels:
        values = np.full(kernel.shape, -0.5)
        values[::2] = 0.25
        kernel.assign(values)
    assert [int(measure.alive(k, 0.6)) for k in kernels] == [0, 0]
    assert [int(measure.alive(k, 0.1)) for k in kernels] == sizes
    # A weight of the least size is dead.
    alive = np.array([int(measure.alive(k, 0.25)) for k in kernels])
    assert measure.density(alive) == pytest.approx(density)
    assert name in COUNTED


def test_nan_is_not_dead():
    measure, kernels = measured("weights")
    values = np.zeros((16, 3))
    values[0, 1] = np.nan
    kernels[1].assign(values)
    assert int(measure.alive(kernels[1], 0.1)) == 1


def test_a_target_below_what_has_no_penalty_is_refused():
    model = two_layers(None)
    first = model.layers[0]
    first.kernel.regularizer = ks.L1(0.1)
    with pytest.raises(ValueError) as caught:
        MEASURES["weights"](0.2, model, [first.kernel])
    assert str(caught.value) == (
        "Invalid value for argument `density`. Expected more than 0.2000, the "
        "share of the weights without a penalty. Received: density=0.2"
    )
    MEASURES["weights"](0.21, model, [first.kernel])
    with pytest.raises(ValueError, match=r"the neurons of .*bias"):
        MEASURES["neurons"](0.5, model, [first.bias])


def test_of_equal_weights_whole_kernels_are_kept():
    measure, kernels = measured("weights", 192 / 240)
    for kernel in kernels:
        kernel.assign(np.ones(kernel.shape))
    first, second = measure.supports([0.0, 0.0])
    assert first.all() and not second.any()
    measure.target = 191 / 240
    assert not any(kept.any() for kept in measure.supports([0.0, 0.0]))
    measure.target = 1.0
    assert all(kept.all() for kept in measure.supports([0.0, 0.0]))


@pytest.mark.parametrize(
    ("penalty", "score"),
    [
        (ks.L1(0.1), lambda size, means: size),
        (ks.GroupLasso(0.1), lambda size, means: means + 0 * size),
        (ks.SGL0(0.1), lambda size, means: (size * means) ** 0.5),
    ],
)
def test_what_a_penalty_ranks_by(penalty, score):
    measure, kernels = measured("weights", 0.5, penalty)
    scores = []
    for kernel in kernels:
        size = abs(to_numpy(kernel))
        own = score(size, size.mean(axis=0, keepdims=True))
        scores.append(own / own.max())
    supports = measure.supports([0.0, 0.0])
    kept, rest = [], []
    for support, own in zip(supports, scores, strict=True):
        kept.extend(own[support])
        rest.extend(own[~support])
    assert min(kept) > max(rest)
    assert 120 - 16 <= len(kept) <= 120


def test_neurons_are_ranked_by_their_means_and_small_weights_go():
    measure, kernels = measured("neurons", 5 / 19, ks.GroupLasso(0.1))
    kernels[0].assign(np.arange(1, 193).reshape(12, 16) / 192)
    kernels[1].assign(np.ones((16, 3)) * [1e-3, 2e-3, 3e-3])
    first, second = measure.supports([0.99, 0.0])
    # Relative to the largest of the kernel: 3 of 3, then columns of the first.
    assert second.all(axis=0).tolist() == [False, False, True]
    assert second.any(axis=0).tolist() == [False, False, True]
    assert first.any(axis=0).tolist() == [False] * 14 + [True] * 2
    assert first.sum() == 2


def test_the_fan_in_of_a_kernel():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(100, 8, name="table"),
            layers.Conv1D(4, 3, name="conv"),
        ]
    )
    known = layouts_of(model)
    table, conv = (model.get_layer(n) for n in ("table", "conv"))
    assert fan_in(table.embeddings, known[id(table.embeddings)]) == 100
    assert fan_in(conv.kernel, known[id(conv.kernel)]) == 24
    assert fan_in(keras.Variable(np.ones((3, 3, 4, 5))), None) == 36
    assert negligible(50) == pytest.approx(0.004)
