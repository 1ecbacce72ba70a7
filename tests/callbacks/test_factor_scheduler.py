import keras
import numpy as np
import pytest
from densities import state
from helpers import two_layers

import keras_sgl0 as ks

WAYS = {
    "subgradient": (ks.GroupLasso, list),
    "proximal": (ks.SparseGroupLasso, lambda: [ks.ProximalStep()]),
    "coupled": (
        None,
        lambda: [ks.CoupledGroups(ks.GroupLasso(0.02)), ks.ProximalStep()],
    ),
}


def trained(images, penalty, callbacks, epochs=3):
    model = two_layers(penalty, keras.optimizers.SGD(0.1))
    logs = model.fit(
        *images, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )
    return state(model), logs.history


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_schedule_is_another_factor(images, way):
    kind, before = WAYS[way]
    scheduled, logs = trained(
        images,
        kind and kind(0.02),
        [*before(), ks.FactorScheduler(lambda epoch: 2.0)],
    )
    if way == "coupled":
        callbacks = [ks.CoupledGroups(ks.GroupLasso(0.04)), ks.ProximalStep()]
    else:
        callbacks = before()
    expected, _ = trained(images, kind and kind(0.04), callbacks)
    np.testing.assert_allclose(scheduled, expected, atol=1e-6)
    assert logs["strength"] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("way", ["subgradient", "proximal"])
def test_the_factor_follows_the_epochs(images, way):
    kind, before = WAYS[way]
    numbers = [0.0, 0.5, 1.0]
    schedule = ks.FactorScheduler(numbers.__getitem__)
    first, logs = trained(images, kind(0.05), [*before(), schedule])
    assert logs["strength"] == numbers
    # Epoch by epoch, with another model each time.
    model = two_layers(None, keras.optimizers.SGD(0.1))
    for number in numbers:
        penalty = kind(0.05 * number) if number else None
        each = two_layers(penalty, keras.optimizers.SGD(0.1))
        each.set_weights(model.get_weights())
        each.fit(
            *images,
            shuffle=False,
            verbose=0,
            callbacks=before() if penalty else [],
        )
        model = each
    np.testing.assert_allclose(first, state(model), atol=1e-6)


def test_split_penalties_are_multiplied(images):
    splitting = [ks.VariableSplitting(0.1)]
    off = [*splitting, ks.FactorScheduler(lambda epoch: 0)]
    scheduled, _ = trained(images, ks.SGL0(0.01), off)
    plain, _ = trained(images, None, [])
    np.testing.assert_allclose(scheduled, plain, atol=1e-6)


@pytest.mark.parametrize("value", [-1.0, "1", None, float("nan")])
def test_what_is_no_multiplier_is_refused(images, value):
    model = two_layers(ks.GroupLasso(0.1))
    callback = ks.FactorScheduler(lambda epoch: value)
    with pytest.raises(ValueError, match="`schedule`"):
        model.fit(*images, verbose=0, callbacks=[callback])


def test_what_cannot_be_scheduled(images):
    with pytest.raises(ValueError, match=r"`schedule`. Expected a function"):
        ks.FactorScheduler(0.5)
    model = two_layers(None)
    callback = ks.FactorScheduler(lambda epoch: 1.0)
    assert (callback.strength, callback.model) == (None, None)
    with pytest.raises(ValueError, match="no trainable variable"):
        model.fit(*images, verbose=0, callbacks=[callback])
    model = two_layers(ks.GroupLasso(0.1))
    both = [callback, ks.TargetDensity(0.5)]
    with pytest.raises(ValueError, match="`FactorScheduler` and `TargetDen"):
        model.fit(*images, verbose=0, callbacks=both)
