"""Small trainings with a target density, shared by test modules."""

import keras
import numpy as np
from helpers import to_numpy, two_layers

import keras_sgl0 as ks

# `two_layers` has 12 * 16 + 16 * 3 = 240 weights, 259 parameters.
SIZE = 240


def adam():
    return keras.optimizers.Adam(0.01)


def sgd():
    return keras.optimizers.SGD(0.1)


WAYS = {
    "group_lasso": (ks.GroupLasso(0.01), adam, lambda: []),
    "sparse_group_lasso_proximal": (
        ks.SparseGroupLasso(0.003),
        sgd,
        lambda: [ks.ProximalStep()],
    ),
    "sgl0_splitting": (
        ks.SGL0(1e-3),
        adam,
        lambda: [ks.VariableSplitting(0.025, every=2)],
    ),
    "sgl0_proximal": (ks.SGL0(0.002), sgd, lambda: [ks.ProximalStep()]),
}


def build(way, **compile_arguments):
    penalty, optimizer, _ = WAYS[way]
    return two_layers(penalty, optimizer(), **compile_arguments)


def train(model, images, target, *others, before=(), **arguments):
    """Returns the logs of 10 epochs of 4 steps."""
    options = {"epochs": 10, "batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(
        *images,
        callbacks=[*before, target, *others],
        **(options | arguments),
    ).history


def run(way, images, target, *others, **arguments):
    model = build(way)
    before = WAYS[way][2]()
    return model, train(
        model, images, target, *others, before=before, **arguments
    )


def kernels_of(model):
    return [to_numpy(layer.kernel) for layer in model.layers]


def density_of(model):
    return sum(np.count_nonzero(k) for k in kernels_of(model)) / SIZE


def state(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()])
