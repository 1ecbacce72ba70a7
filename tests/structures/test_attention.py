"""Attention layers without some heads, dimensions, outputs and inputs."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_same_outputs, cut_half, to_numpy
from keras import layers

import keras_sgl0 as ks


def randomize(model, seed=0):
    """Gives all variables of a model random values, biases included."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if keras.backend.is_float_dtype(v.dtype):
            fan_in = max(1, np.prod(v.shape) // v.shape[-1])
            v.assign(rng.normal(size=v.shape) * (2 / fan_in) ** 0.5)
    return model


def self_attention(layer, shape=(5, 6), width=8, **call):
    """Returns a model of one attention of a tensor to itself."""
    x = inputs = keras.Input(shape)
    x = layers.Dense(width, name="before")(x)
    x = layer(x, x, **call)
    return keras.Model(inputs, layers.Dense(3, name="after")(x))


def cross_attention(layer, keys=True, **call):
    """Returns a model of one attention to other tensors."""
    inputs = [keras.Input((5, 6)), keras.Input((7, 4))]
    query, value, key = (
        layers.Dense(8, name=name)(x)
        for name, x in zip(
            ("query", "value", "key"), (*inputs, inputs[1]), strict=True
        )
    )
    if keys:
        call["key"] = key
    x = layer(value=value, query=query, **call)
    return keras.Model(inputs, layers.Dense(3, name="after")(x))


# JAX's own attention has as many dimensions of keys as of values.
VALUES = 6 if BACKEND == "jax" else 5
KINDS = {
    "heads": lambda **o: layers.MultiHeadAttention(4, 6, name="mha", **o),
    "values": lambda **o: layers.MultiHeadAttention(
        4, 6, value_dim=VALUES, output_shape=7, name="mha", **o
    ),
    "groups": lambda **o: layers.GroupQueryAttention(6, 8, 4, name="mha", **o),
    "one key": lambda **o: layers.GroupQueryAttention(6, 5, 1, name="mha", **o),
    "all keys": lambda **o: layers.GroupQueryAttention(
        6, 4, 4, name="mha", **o
    ),
}
OPTIONS = {
    "plain": {},
    "no bias": {"use_bias": False},
    "gate": {"use_gate": True},
    "dropout": {"dropout": 0.5},
    "window": {"sliding_window": 2, "use_bias": False},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_to_itself(kind, options):
    model = self_attention(KINDS[kind](**OPTIONS[options]))
    cut_half(model)
    found = ks.structures(model)
    assert {"before", "mha"} == {x for i in range(3) for x in found.made_by(i)}
    rows = [family.made_by for family in found.report().families]
    assert ("mha: heads",) in rows
    assert len(set(rows)) == len(rows)
    # The layer before, the heads, the dimensions, and the outputs.
    number = 5 if kind in ("heads", "values") else 3
    # JAX wants as many key dimensions as value dimensions.
    one = BACKEND == "jax" and number == 5 and options != "dropout"
    assert len(found.counts) == number - one


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_to_others(kind, keys):
    model = cross_attention(KINDS[kind](), keys)
    cut_half(model)
    # Grouped queries want as many channels of the query as of the value.
    several = kind in ("heads", "values")
    number = (6 if several else 3) + keys
    one = BACKEND == "jax" and several
    assert len(ks.structures(model).counts) == number - one


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_mask(kind, dropout):
    model = self_attention(KINDS[kind](dropout=dropout), use_causal_mask=True)
    cut_half(model)


def damage(model, seed):
    """Sets random slices of kernels to zero, along random axes."""
    rng = np.random.default_rng(seed)
    for v in randomize(model, seed).weights:
        if keras.backend.is_float_dtype(v.dtype):
            w = to_numpy(v)
            for axis in range(w.ndim):
                dead = rng.random(w.shape[axis]) < rng.choice([0, 0, 0, 0.5])
                others = [i for i in range(w.ndim) if i != axis]
                w = w * np.expand_dims(~dead, others)
            v.assign(w)
    return model


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_random_zeros(kind, options):
    model = self_attention(KINDS[kind](**OPTIONS[options]))
    other = cross_attention(KINDS[kind](**OPTIONS[options]))
    if options == "window":
        other = model  # Keras has no window for tensors of two lengths
    saved = 0
    for seed, every in enumerate((model, other, other)):
        damage(every, seed)
        small, report = ks.shrink(every, 0, verify=False)
        assert_same_outputs(every, small)
        assert small.count_params() == report.parameters_after
        saved += every.count_params() - small.count_params()
    assert saved > 0


def set_values(variable, places, value):
    w = to_numpy(variable).copy()
    w[places] = value
    variable.assign(w)


def test_a_constant_value_is_folded_and_a_head_with_it():
    model = randomize(self_attention(KINDS["values"]()))
    mha = model.get_layer("mha")
    set_values(mha.value_dense.kernel, np.s_[:, 1], 0)
    set_values(mha.value_dense.kernel, np.s_[:, :, 3], 0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("mha").num_heads == 3
    assert small.get_layer("mha").value_dim == (6 if BACKEND == "jax" else 4)
    assert_same_outputs(model, small)
    # A gate makes it depend on the input.
    model = randomize(self_attention(KINDS["values"](use_gate=True)))
    mha = model.get_layer("mha")
    set_values(mha.value_dense.kernel, np.s_[:, 1], 0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("mha").num_heads == 4
    set_values(mha.value_dense.bias, 1, 0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("mha").num_heads == 3


def test_a_key_dimension_is_dead_on_either_side():
    model = randomize(self_attention(KINDS["heads"]()))
    mha = model.get_layer("mha")
    if BACKEND == "jax":  # there the value goes with it
        set_values(mha.value_dense.kernel, np.s_[:, :, 2], 0)
    # In half of the heads the query is zero, in the others the key constant.
    set_values(mha.query_dense.kernel, np.s_[:, :2, 2], 0)
    set_values(mha.query_dense.bias, np.s_[:2, 2], 0)
    set_values(mha.key_dense.kernel, np.s_[:, 2:, 2], 0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("mha").key_dim == 5
    assert_same_outputs(model, small)
    # A constant query meets keys that differ.
    set_values(mha.query_dense.bias, np.s_[:2, 2], 1)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("mha").key_dim == 6
    # But not where the head is dead.
    set_values(mha.output_dense.kernel, np.s_[:2], 0)
    small, _ = ks.shrink(model, 0)
    assert (small.get_layer("mha").key_dim, small.layers[2].num_heads) == (5, 2)
    assert_same_outputs(model, small)


def test_a_constant_input_gives_the_layer_biases():
    x = inputs = keras.Input((5, 6))
    x = layers.Dense(8, "sigmoid", name="before")(x)
    x = layers.MultiHeadAttention(2, 3, use_bias=False, name="mha")(x, x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    before = model.get_layer("before")
    set_values(before.kernel, np.s_[:, 2:5], 0)
    small, _ = ks.shrink(model, 0)
    assert small.get_layer("before").units == 5
    assert small.get_layer("mha").get_config()["use_bias"]
    assert_same_outputs(model, small)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (1, 5, 7)])
def test_a_mask_stays_and_only_zero_is_constant(dropout, shape):
    inputs = [keras.Input((5, 6)), keras.Input((7, 6))]
    mask = keras.Input(shape, dtype="bool")
    layer = layers.MultiHeadAttention(4, 6, dropout=dropout, name="mha")
    x, y = (layers.Dense(8)(x) for x in inputs)
    x = layer(x, y, attention_mask=mask)
    model = keras.Model([*inputs, mask], layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(2, *x.shape[1:])) for x in inputs]
    flags = rng.random((2, *shape)) < 0.5
    flags[0] = False
    given.append(flags)
    found = ks.structures(model)
    dead = np.arange(len(found)) % 2 == 0
    found.zero(dead)
    small, _ = ks.shrink(randomize_alive(model, found, dead), 0, inputs=given)
    assert small.get_layer("mha").num_heads == 2
    assert_same_outputs(model, small, inputs=given)
    # All keys masked: the sum of the weights is not 1.
    set_values(layer.value_dense.bias, np.s_[:], 1)
    small, _ = ks.shrink(model, 0, inputs=given)
    assert_same_outputs(model, small, inputs=given)
    assert small.get_layer("mha").num_heads == 4


def randomize_alive(model, found, dead):
    randomize(model)
    found.zero(dead)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_tokens_goes_on(kind):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(inputs)
    x = KINDS[kind]()(x, x)
    x = layers.GlobalAveragePooling1D()(layers.Dense(4)(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    tokens = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    found = ks.structures(model)
    dead = np.arange(len(found)) % 2 == 0
    found.zero(dead)
    small, report = ks.shrink(model, 0, inputs=tokens)
    assert_same_outputs(model, small, inputs=tokens)
    assert "mha" not in [entry.layer for entry in report.whole]
    assert small.count_params() == found.cost(~dead).parameters


@pytest.mark.parametrize("axes", [None, (2,), (1,), (1, 2)])
def test_positions_over_several_axes(axes):
    layer = layers.MultiHeadAttention(4, 6, attention_axes=axes)
    cut_half(self_attention(layer, shape=(3, 4, 6)))


def test_sizes_that_are_not_known():
    model = self_attention(KINDS["heads"](), shape=(None, 6))
    randomize(model)
    found = ks.structures(model)
    found.zero(np.arange(len(found)) % 2 == 0)
    inputs = np.random.default_rng(0).normal(size=(2, 5, 6))
    small, _ = ks.shrink(model, 0, inputs=inputs)
    assert small.get_layer("mha").num_heads == 2
    assert_same_outputs(model, small, inputs=inputs)


def test_float64_is_exact():
    keras.config.set_dtype_policy("float64")
    try:
        model = self_attention(KINDS["groups"]())
    finally:
        keras.config.set_dtype_policy("float32")
    cut_half(
        model,
        tolerance=1e-9 if keras.backend.backend() == "tensorflow" else 1e-5,
    )


def whole(model):
    """Returns why layers of a model stay whole."""
    _, report = ks.shrink(randomize(model), 0, verify=False)
    return " ".join(entry.note for entry in report.whole)


def test_what_is_not_covered():
    inputs = keras.Input((5, 6))
    layer = layers.MultiHeadAttention(2, 3)
    results = layer(inputs, inputs, return_attention_scores=True)
    assert "attention scores" in whole(keras.Model(inputs, results))
    layer = layers.MultiHeadAttention(2, 3, output_shape=(2, 3))
    model = keras.Model(inputs, layer(inputs, inputs))
    assert "several channel axes" in whole(model)
    layer = layers.MultiHeadAttention(2, 3)
    model = keras.Model(inputs, layer(inputs, np.ones((1, 5, 6), "float32")))
    assert "is an array" in whole(model)
    model = self_attention(KINDS["heads"]())
    model.get_layer("mha").query_dense.enable_lora(2)
    assert "LoRA" in whole(model)
    x = layers.Dense(8)(inputs)
    flags = keras.Input((4, 5, 5), dtype="bool")
    x = KINDS["heads"]()(x, x, attention_mask=flags)
    model = keras.Model([inputs, flags], x)
    assert "for each head" in whole(model)


def test_a_layer_keeps_one_of_everything():
    model = randomize(self_attention(KINDS["heads"]()))
    layer = model.get_layer("mha")
    layer.value_dense.kernel.assign(np.zeros(layer.value_dense.kernel.shape))
    small, report = ks.shrink(model, 0)
    own = small.get_layer("mha").get_config()
    assert [own[k] for k in ("num_heads", "key_dim", "value_dim")] == [1, 1, 1]
    assert "mha" in report.dead_branches
    assert_same_outputs(model, small)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_called_twice(kind):
    inputs = [keras.Input((5, 6)), keras.Input((5, 6))]
    # Of different constants, each of them the same for every example.
    x, y = (
        layers.Dense(8, "sigmoid", name=n)(z)
        for n, z in zip("xy", inputs, strict=True)
    )
    twice = KINDS[kind]()
    x = layers.Concatenate()([twice(x, x), twice(y, y)])
    model = keras.Model(inputs, layers.Dense(3)(x))
    for seed in range(3):
        damage(model, seed)
        for name in "xy":
            layer = model.get_layer(name)
            set_values(layer.kernel, np.s_[:, :4], 0)
        small, _ = ks.shrink(model, 0)
        assert_same_outputs(model, small)
    randomize(model)
    found = ks.structures(model)
    found.zero(np.arange(len(found)) % 2 == 0)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.get_layer("mha").count_params() < twice.count_params() / 2
