"""Random models, of which random structures die: nothing else may change."""

import math
import os

import keras
import numpy as np
import pytest
from helpers import BACKEND
from random_graphs import RandomGraph

import keras_sgl0 as ks
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.probing import outputs
from keras_sgl0.network.unfolding import trace
from keras_sgl0.shrinking.deletion import WithZeros

# Seeds that run in CI, and as many more as asked for by FUZZ=1000.
SEEDS = range({"tensorflow": 120, "torch": 40, "jax": 2}[BACKEND])
MORE = range(len(SEEDS), len(SEEDS) + int(os.environ.get("FUZZ", "0")))
# The policy, the dtype of the inputs and the tolerance.
DTYPES = {
    "float32": ("float32", "float32", 1e-5),
    "float64": ("float64", "float64", 1e-9),
    "mixed": ("mixed_bfloat16", "float32", 1e-1),
}
NAMES = ["float32", "float64", "float64", "mixed"]


@pytest.fixture
def kind(seed):
    """Sets the dtype and where channels are; returns dtype and tolerance."""
    name = NAMES[seed % 4]
    # JAX has no float64 by default, and Keras on PyTorch rounds to float32.
    if name == "float64" and BACKEND != "tensorflow":
        name = "float32"
    # TensorFlow has few layers for channels first on a CPU.
    first = seed % 3 == 2 and BACKEND == "torch"
    policy, dtype, tolerance = DTYPES[name]
    keras.config.set_dtype_policy(policy)
    if first:
        keras.config.set_image_data_format("channels_first")
    yield dtype, tolerance
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")


def assert_same(expected, received, tolerance):
    for a, b in zip(expected, received, strict=True):
        assert a.shape == b.shape
        a, b = a.astype("float64"), b.astype("float64")
        assert np.isfinite(a).all()
        assert abs(a - b).max() <= tolerance * max(abs(a).max(), 1e-3)


def gained_biases(model, small):
    """Returns how many biases layers without any got, to hold constants."""
    had = {x.name for x in all_layers(model) if biases_of(x)}
    # Weights of a block may be those of a layer, by other names.
    traced = [node.operation for node in trace(model).nodes]
    had |= {x.name for x in traced if getattr(x, "bias", None) is not None}
    return sum(
        math.prod(v.shape)
        for x in small.layers
        if x.name not in had
        for v in biases_of(x)
    )


def biases_of(layer):
    return [v for v in layer.weights if v.name == "bias"]


def check(seed, dtype, tolerance):
    graph = RandomGraph(seed, dtype)
    model = graph.model
    graph.fill()
    found = ks.structures(model)
    assert found.cost().parameters == model.count_params()
    assert found.cost().macs == ks.count_macs(model).macs
    dead = graph.rng.random(len(found)) < graph.rng.uniform(0.1, 0.7)
    for family in range(len(found.counts)):
        own = np.flatnonzero(found.families == family)
        dead[graph.rng.choice(own)] = False
    # The copy, of which `prune` cuts them, is a model like any other.
    start = WithZeros(found, dead).model if seed % 2 else model
    found.zero(dead)
    small, report = ks.shrink(start, 0, verify=False)
    before, after = (outputs(m, graph.inputs) for m in (model, small))
    assert_same(before, after, tolerance)
    cost = found.cost(~dead)
    gained = gained_biases(model, small)
    assert small.count_params() == cost.parameters + gained
    assert ks.count_macs(small).macs == cost.macs == report.macs_after
    # Now anything may be dead, and constant.
    graph.fill(dead=0.3)
    small, report = ks.shrink(model, 0, verify=False)
    before, after = (outputs(m, graph.inputs) for m in (model, small))
    assert_same(before, after, tolerance)
    assert small.count_params() == report.parameters_after
    assert small.output_names == model.output_names


@pytest.mark.parametrize("seed", SEEDS)
def test_fuzz(seed, kind):
    check(seed, *kind)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_fuzz_more(seed, kind):
    check(seed, *kind)
