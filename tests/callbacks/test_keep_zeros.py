import keras
import numpy as np
import pytest
from densities import sgd, state
from helpers import to_numpy, two_layers

import keras_sgl0 as ks


def pruned(**arguments):
    model = two_layers(ks.GroupLasso(0.05), **arguments)
    for layer in model.layers:
        kernel = to_numpy(layer.kernel)
        layer.kernel.assign(kernel * (abs(kernel) > 0.2))
    first = model.layers[0]
    first.kernel.assign(to_numpy(first.kernel) * (np.arange(16) % 2))
    first.bias.assign(np.arange(16) % 2 * 0.1)
    return model


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_zeros_stay_and_all_else_trains(images, optimizer):
    model = pruned(optimizer=optimizer)
    before = state(model)
    zeros = before == 0
    assert zeros.sum() > 50
    model.fit(*images, epochs=3, verbose=0, callbacks=[ks.KeepZeros()])
    after = state(model)
    new_bias = model.layers[1].bias.shape[0]
    # The second bias is zero as a whole: it is new, and is trained.
    assert (after[:-new_bias][zeros[:-new_bias]] == 0).all()
    assert (after[-new_bias:] != 0).all()
    assert (after[~zeros] != before[~zeros]).mean() > 0.9
    # The next fit is free again.
    model.fit(*images, verbose=0)
    assert (state(model)[zeros] != 0).any()


def test_the_zeros_of_a_bias_stay_if_it_has_others(images):
    model = two_layers(None)
    bias = model.layers[1].bias
    bias.assign([0.0, 0.1, 0.0])
    model.fit(*images, epochs=2, verbose=0, callbacks=[ks.KeepZeros()])
    assert (to_numpy(bias) != 0).tolist() == [False, True, False]


def test_after_a_proximal_step(images):
    model = pruned(optimizer=sgd())
    zeros = state(model) == 0
    callbacks = [ks.ProximalStep(), ks.KeepZeros()]
    model.fit(*images, epochs=2, verbose=0, callbacks=callbacks)
    assert (state(model)[zeros][:-3] == 0).all()


def test_a_kernel_that_is_zero_as_a_whole_stays(images):
    model = pruned()
    kernel = model.layers[0].kernel
    kernel.assign(np.zeros(kernel.shape))
    model.fit(*images, verbose=0, callbacks=[ks.KeepZeros()])
    assert (to_numpy(kernel) == 0).all()


def test_a_model_without_zeros_is_refused(images):
    model = two_layers(None)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 0.1))
    with pytest.raises(ValueError, match="found no zero in the trainable"):
        model.fit(*images, verbose=0, callbacks=[ks.KeepZeros()])


def test_a_constraint_of_the_layer_stays(images):
    model = pruned()
    kernel = model.layers[0].kernel
    zeros = to_numpy(kernel) == 0
    kernel.constraint = keras.constraints.MaxNorm(0.1, axis=0)
    model.fit(*images, verbose=0, callbacks=[ks.KeepZeros()])
    norms = np.linalg.norm(to_numpy(kernel), axis=0)
    assert norms.max() <= 0.1 + 1e-6
    assert (to_numpy(kernel)[zeros] == 0).all()
    assert isinstance(kernel.constraint, keras.constraints.MaxNorm)
