"""Which weights `TargetDensity` cuts, and when."""

import numpy as np
import pytest
from densities import run, train
from helpers import to_numpy, two_layers
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.weight_cut import WeightCut


@pytest.fixture
def half():
    """Returns a model of which 120 of 240 weights are small, others zero."""
    model = two_layers(ks.L1(0.1))
    kernels = [layer.kernel for layer in model.layers]
    for kernel in kernels:
        values = np.full(kernel.shape, 0.5)
        values[::2] = 0
        kernel.assign(values)
    return model, kernels


@pytest.mark.parametrize(
    ("target", "resumed", "is_cut"),
    [(0.5, True, True), (0.5, False, False), (0.49, True, False)],
)
def test_a_resumed_run_that_was_cut_goes_on_cut(half, target, resumed, is_cut):
    model, kernels = half
    cut = WeightCut(target, "weights", model, kernels)
    assert cut.density() == 0.5
    assert cut.begin_epoch(resumed) is is_cut
    for kernel in kernels:
        ones = ops.ones(kernel.shape)
        expected = to_numpy(kernel) != 0 if is_cut else to_numpy(ones)
        masked = cut.masked(kernel, ones)
        np.testing.assert_array_equal(to_numpy(masked), expected)


def test_a_target_of_one_is_not_cut(half):
    model, kernels = half
    assert WeightCut(1.0, "weights", model, kernels).begin_epoch(True) is False


def test_the_largest_weights_of_each_kernel_stay(half):
    model, kernels = half
    values = [np.arange(1, 193.0) / 192, np.arange(1, 49.0)]
    for kernel, v in zip(kernels, values, strict=True):
        kernel.assign(v.reshape(kernel.shape))
    cut = WeightCut(0.25, "weights", model, kernels)
    cut.finish()
    assert cut.density() == 0.25
    # Sizes count relative to the largest one in the kernel.
    for kernel, v in zip(kernels, values, strict=True):
        kept = v.reshape(kernel.shape) > 0.75 * v.max()
        np.testing.assert_array_equal(to_numpy(kernel) != 0, kept)
        ones = cut.masked(kernel, ops.ones(kernel.shape))
        np.testing.assert_array_equal(to_numpy(ones), kept)


def test_small_weights_are_dead_before_the_cut_and_count_after_it(half):
    model, kernels = half
    # 0.02 * sqrt(2 / fan_in): 0.0082 and 0.0071.
    kernels[0].assign(np.full((12, 16), 0.008))
    kernels[1].assign(np.full((16, 3), 0.0072))
    cut = WeightCut(0.5, "weights", model, kernels)
    assert cut.density() == 48 / 240
    kernels[0].assign(np.arange(1, 193.0).reshape(12, 16))
    cut.finish()
    kept = to_numpy(kernels[0]) != 0
    assert kept.sum() == 192 - 120
    kernels[0].assign(1e-6 * kept)
    assert cut.density() == (kept.sum() + 48) / 240


def test_nothing_else_is_cut_and_nothing_costs_more(half):
    model, kernels = half
    cut = WeightCut(0.5, "weights", model, kernels)
    assert not any(cut.has(v) for v in model.trainable_variables)
    assert cut.prices(kernels).tolist() == [1, 1]


def test_only_the_first_epoch_of_a_resumed_run_is_one(images, monkeypatch):
    seen = []
    monkeypatch.setattr(
        WeightCut, "begin_epoch", lambda self, resumed: seen.append(resumed)
    )
    model = two_layers(ks.GroupLasso(0.01))
    target = ks.TargetDensity(0.2)
    train(model, images, target, epochs=3)
    train(model, images, target, epochs=3, initial_epoch=1)
    assert seen == [False, False, False, True, False]


def test_what_was_lent_is_given_back(images):
    # Alone, as another callback would do it too.
    model, _ = run("group_lasso", images, ks.TargetDensity(0.4), epochs=2)
    for layer in model.layers:
        assert isinstance(layer.kernel.regularizer, ks.GroupLasso)
        assert layer.kernel.constraint is None


def test_coupled_groups_have_no_neurons(images):
    callbacks = [
        ks.CoupledGroups(ks.GroupLasso(0.1)),
        ks.TargetDensity(0.5, of="neurons"),
    ]
    with pytest.raises(ValueError, match=r"argument `of`. .*`CoupledGroups`"):
        two_layers(None).fit(*images, verbose=0, callbacks=callbacks)


def test_an_epoch_ends_with_the_strength_that_is_due(images):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(images).batch(16)
    batches = batches.filter(lambda x, y: True)  # hides how many
    model = two_layers(ks.GroupLasso(0.01))
    target = ks.TargetDensity(0.2)
    logs = model.fit(batches, epochs=5, verbose=0, callbacks=[target]).history
    for epoch in range(2):
        path = 0.2 + 0.8 * (1 - (epoch + 1) / 5 / 0.6) ** 3
        expected = min((logs["density"][epoch] / path) ** 5, 100)
        assert logs["strength"][epoch] == pytest.approx(expected, rel=1e-5)
