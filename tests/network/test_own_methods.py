"""Models that do more than one made of their layers does."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sgl0 as ks

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = X[:, :2]
MAKERS = {
    "shrink": ks.shrink,
    "prune": lambda m: ks.prune(m, macs=0.5, importance="l2"),
    "delete_channels": lambda m: ks.delete_channels(m, {"hidden": [0]}),
    "add_gates": ks.add_gates,
    "compress": lambda m: ks.compress(m, (X, Y), macs=0.5, epochs=0),
    "path": lambda m: ks.path(m, (X, Y), macs=[0.5], epochs=0),
    "fit_shrinking": lambda m: ks.fit_shrinking(m, X, Y, verbose=0),
}


class Pipeline(keras.Model):
    """Preprocesses its data in `fit` and the like, as KerasHub's models do."""

    def preprocess_samples(self, x, y=None, sample_weight=None):
        return 100 * x, y, sample_weight


class Task(Pipeline):
    preprocessor = layers.Rescaling(100)


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


def network(kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "relu", name="hidden")(inputs)
    model = kind(inputs, layers.Dense(2)(hidden))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("kind", [Pipeline, Task])
@pytest.mark.parametrize("name", MAKERS)
def test_one_that_preprocesses_is_refused(name, kind):
    with pytest.raises(ValueError, match=r"`model\.preprocessor = None`"):
        MAKERS[name](network(kind))


@pytest.mark.parametrize("name", MAKERS)
def test_one_whose_preprocessor_was_taken_away_is_taken(name):
    model = network(Task)
    model.preprocessor = None
    made = MAKERS[name](model)
    assert made is not None


def test_structures_are_shown_of_one_that_preprocesses():
    assert ks.structures(network(Task)).size == 6


@pytest.mark.parametrize("name", ["compress", "path", "fit_shrinking"])
def test_one_with_a_loss_of_its_own_is_not_trained_on(name):
    model = network(OwnLoss)
    with pytest.raises(ValueError, match="OwnLoss has its own compute_loss"):
        MAKERS[name](model)
    plain = keras.Model(model.inputs, model.outputs)
    plain.compile("sgd", "mse")
    assert MAKERS[name](plain)


@pytest.mark.parametrize("name", ["shrink", "prune", "delete_channels"])
def test_one_with_a_loss_of_its_own_is_cut(name):
    small, _ = MAKERS[name](network(OwnLoss))
    assert type(small).__name__ == "Functional"
