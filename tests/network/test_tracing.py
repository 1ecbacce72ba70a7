"""Custom blocks and subclassed models are seen as the calls in them."""

import keras
import numpy as np
import pytest
from custom_blocks import (
    Branching,
    ByValue,
    Causal,
    Counting,
    DropPath,
    Excite,
    Nested,
    Noisy,
    Own,
    Pair,
    Patches,
    Penalised,
    Raw,
    Remembering,
    Residual,
    Scaled,
    Windows,
    WithLoss,
)
from helpers import assert_same_outputs, compile_quickly, cut_half, to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.network.tracing import is_unfolded, keep_whole
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.flat_copy import FlatCopy

IMAGE = (6, 6, 5)


def around(block, shape=IMAGE, units=5):
    """Returns a model of a block between two layers."""
    x = inputs = keras.Input(shape)
    x = layers.Dense(units, name="before")(x)
    y = keras.tree.flatten(block(x))[0]
    return keras.Model(inputs, layers.Dense(2, name="after")(y))


def paths(graph):
    return [node.path for node in graph.nodes]


def reasons(graph):
    return {node.path: node.reason for node in graph.nodes if node.reason}


def residual(name):
    inner = "first norm relu drop second add relu_1"
    return [f"{name}/{part}" for part in inner.split()]


def excite(name):
    return [f"{name}/{part}" for part in "pool down up multiply".split()]


BLOCKS = {
    "residual": (lambda: Residual(5, name="b"), IMAGE, residual("b")),
    "excite": (lambda: Excite(5, name="b"), IMAGE, excite("b")),
    "nested": (
        lambda: Nested(5, name="b"),
        IMAGE,
        [*residual("b/residual"), "b/plain/conv2d", *excite("b/excite")],
    ),
    "patches": (
        lambda: Patches(2, name="b"),
        IMAGE,
        ["b/reshape", "b/transpose", "b/reshape_1"],
    ),
    "windows": (
        lambda: Windows(3, name="b"),
        (6, 5),
        ["b/reshape", "b/dense", "b/reshape_1"],
    ),
    "causal": (
        lambda: Causal(4, name="b"),
        (6, 5),
        ["b/attention", "b/add", "b/dense"],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_seen_as_the_calls_in_it(name):
    make, shape, expected = BLOCKS[name]
    keras.backend.clear_session()
    model = around(make(), shape)
    graph = trace(model)
    found = [p.replace("conv2d_1", "conv2d") for p in paths(graph)]
    assert found == ["before", *expected, "after"]
    assert reasons(graph) == {}
    own = {id(v) for v in model.weights}
    for node in graph.nodes:
        for y in node.outputs:
            assert y.shape[0] is None
        assert {id(v) for v in getattr(node.operation, "weights", ())} <= own


@pytest.mark.parametrize("name", BLOCKS)
def test_a_flat_copy_has_the_same_outputs_and_is_saved(name, tmp_path):
    make, shape, _ = BLOCKS[name]
    model = around(make(), shape)
    copy = FlatCopy(trace(model), "copy").model
    assert_same_outputs(model, copy)
    names = [layer.name for layer in copy.operations]
    assert len(set(names)) == len(names)
    assert {type(x).__module__.partition(".")[0] for x in copy.layers} == {
        "keras"
    }
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    assert_same_outputs(model, loaded)


@pytest.mark.parametrize("name", ["residual", "excite", "nested"])
def test_structures_of_a_block_are_cut_exactly(name):
    make, shape, _ = BLOCKS[name]
    model = around(make(), shape)
    small, dead = cut_half(model)
    assert 0 < dead.sum()
    compile_quickly(small, "sgd", "mse")
    y = np.zeros((4, *small.output_shape[1:]))
    small.fit(np.ones((4, *shape)), y, verbose=0)


@pytest.mark.parametrize("name", [*BLOCKS, "raw", "value", "remembering"])
def test_a_trace_leaves_nothing_behind(name):
    others = {"raw": Raw, "value": ByValue, "remembering": Remembering}
    if name in others:
        make, shape = (lambda: others[name](5, name="b")), (5,)
    else:
        make, shape, _ = BLOCKS[name]
    model = around(make(), shape)
    model(np.ones((2, *shape), "float32"))
    every = list(model._flatten_layers())

    def state():
        return [
            {
                key: list(value) if isinstance(value, list) else value
                for key, value in vars(layer).items()
            }
            for layer in every
        ]

    before, weights = state(), model.get_weights()
    trace(model)
    for old, new in zip(before, state(), strict=True):
        assert old.keys() == new.keys()
        for key, value in old.items():
            assert new[key] is value or new[key] == value, key
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    first, second = layers.Dense(1), layers.Dense(1)
    trace(model)
    third = layers.Dense(1)
    numbers = [int(x.name.rpartition("_")[2]) for x in (second, third)]
    assert numbers[1] == numbers[0] + 1 and first.name != second.name


def test_losses_of_the_last_call_stay():
    model = around(Residual(5, name="b"))
    penalised = layers.ActivityRegularization(l2=1.0)
    block = Nested(5)
    block.blocks.append(penalised)
    x = np.ones((1, *IMAGE), "float32")
    block(x)
    assert len(block.losses) == 1
    y = layers.Dense(2)(block(inputs := keras.Input(IMAGE)))
    model = keras.Model(inputs, y)
    model(x)
    (before,) = model.losses
    trace(model)
    assert model.losses == [before]


WHOLE = {
    "loss": (WithLoss, "`add_loss()` can only be called"),
    "branching": (Branching, "what it does depends on `training`"),
    "value": (ByValue, "A symbolic KerasTensor cannot be used as a boolean"),
    "remembering": (Remembering, "its call sets `last`"),
    "counting": (Counting, "it uses its weight `b/calls` itself"),
    "penalised": (Penalised, "it has an activity regularizer"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_traced_stays_whole_and_says_why(name):
    kind, reason = WHOLE[name]
    model = around(kind(5, name="b"), (5,))
    graph = trace(model)
    assert paths(graph) == ["before", "b", "after"]
    assert reasons(graph)["b"].startswith(reason)
    small, report = ks.shrink(model)
    assert_same_outputs(model, small)
    (whole,) = report.whole
    assert reason in whole.note


def test_the_smallest_block_stays_whole():
    outer = keras.Sequential(
        [keras.Input((5,)), Counting(5, name="raw"), layers.Dense(3, name="d")],
        name="outer",
    )

    class Block(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.parts = [outer, layers.Dense(5, name="last")]

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    graph = trace(around(Block(), (5,)))
    expected = ["before", "b/outer/raw", "b/outer/d", "b/last", "after"]
    assert paths(graph) == expected
    assert set(reasons(graph)) == {"b/outer/raw"}


def test_a_leaf_is_seen_as_what_it_does_with_its_weight():
    graph = trace(around(Scaled(5, name="b")))
    found = [path for path in paths(graph) if path.startswith("b/scale")]
    assert len(found) > 1 and "b/scale" not in found
    assert not any(reasons(graph).values())


def test_random_numbers_of_a_leaf_stay_its_own():
    model = around(Noisy(name="b"), (5,))
    assert "seed_generator_state" in reasons(trace(model))["b"]


def test_noise_in_training_does_not_keep_channels():
    x = inputs = keras.Input(IMAGE)
    x = layers.Conv2D(6, 1, name="first")(x)
    y = layers.Conv2D(6, 1, name="second")(x)
    x = layers.Add()([x, DropPath(name="drop")(y)])
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert not any(reasons(trace(model)).values())
    small, _ = cut_half(model)
    drop = small.get_layer("drop")
    assert type(drop) is DropPath and drop.rate == 0.5
    data = np.ones((64, *IMAGE), "float32")
    outputs = to_numpy(small(data, training=True))
    # Some examples have the branch and some have not.
    assert len(np.unique(outputs[:, 0, 0, 0].round(4))) == 2


def test_noise_with_weights_or_another_inference_stays_whole():
    class Learned(DropPath):
        def build(self, shape):
            self.own = self.add_weight((1,))

    class Halving(DropPath):
        def call(self, x, training=None):
            return super().call(x, training) / 2

    for kind in (Learned, Halving):
        assert "it uses" in reasons(trace(around(kind(name="b"), (5,))))["b"]


def test_several_inputs_keywords_and_a_dictionary_of_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    y = Pair(5, name="pair")(a, other=b, scale=2.0)
    model = keras.Model({"a": a, "b": b}, {"y": y["sum"], "z": y["product"]})
    graph = trace(model)
    assert set(paths(graph)) == {
        f"pair/{name}" for name in ("one", "two", "multiply", "multiply_1")
    } | {"pair/add"}
    copy = FlatCopy(graph, "copy").model
    x = {"a": np.ones((2, 4), "float32"), "b": -np.ones((2, 3), "float32")}
    expected, received = model(x), copy(x)
    assert received.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(to_numpy(value), to_numpy(received[key]))


def test_the_mode_is_that_of_the_model():
    model = around(Residual(5, drop=0.5, name="b"))
    copy = FlatCopy(trace(model), "copy").model
    x = np.random.default_rng(0).normal(size=(8, *IMAGE)).astype("float32")
    first, second = (to_numpy(copy(x, training=True)) for _ in range(2))
    assert abs(first - second).max() > 0
    norm = copy.get_layer("norm")
    assert abs(to_numpy(norm.moving_mean)).max() > 0
    np.testing.assert_array_equal(to_numpy(copy(x)), to_numpy(copy(x)))


def test_training_is_the_same():
    model = around(Residual(5, name="b"))
    copy = FlatCopy(trace(model), "copy").model
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, *IMAGE)), rng.normal(size=(8, 6, 6, 2))
    for one in (model, copy):
        one.compile(keras.optimizers.SGD(0.1), "mse")
        one.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert_same_outputs(model, copy, 1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_a_fixed_mode_stays(training):
    inputs = keras.Input(IMAGE)
    y = Residual(5, name="b")(inputs, training=training)
    graph = trace(keras.Model(inputs, y))
    modes = {n.path: n.kwargs.get("training") for n in graph.nodes}
    assert modes["b/norm"] is modes["b/drop"] is training


def test_a_block_with_a_part_of_a_fixed_mode_stays_whole():
    class Frozen(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.norm = layers.BatchNormalization(name="norm")

        def call(self, x):
            return self.norm(x, training=False)

    graph = trace(around(Frozen(), (5,)))
    assert reasons(graph) == {"b": "`norm` in it has a fixed mode"}


def test_random_layers_in_a_block_that_stays_whole_are_called_at_test_time():
    class Dropping(WithLoss):
        def __init__(self):
            super().__init__(5, name="b")
            self.drop = layers.Dropout(0.9)

        def call(self, x):
            return self.drop(super().call(x))

    model = around(Dropping(), (5,))
    assert_same_outputs(model, ks.shrink(model)[0])
    assert ks.shrink(model)[1].difference < 1e-5


def test_a_layer_that_the_call_makes_is_part_of_the_block():
    class Making(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.dense = layers.Dense(5, name="dense")

        def call(self, x):
            return layers.Reshape((5, 1))(self.dense(x))[..., 0]

    graph = trace(around(Making(), (5,)))
    inner = ["b/dense", "b/reshape", "b/get_item"]
    assert paths(graph) == ["before", *inner, "after"]


def test_another_attention_than_that_of_keras():
    class Cached(layers.MultiHeadAttention):
        def call(self, query, value, cache=None):
            q, k = self._query_dense(query), self._key_dense(value)
            y, _ = self._compute_attention(q, k, self._value_dense(value))
            return self._output_dense(y) if cache is None else cache

    class Block(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.attention = Cached(2, 3, name="a", flash_attention=False)

        def build(self, shape):
            self.attention.build(shape, shape)

        def call(self, x):
            return x + self.attention(x, x, cache=None)

    model = around(Block(), (6, 5))
    graph = trace(model)
    assert {"b/a/query", "b/a/key", "b/a/value"} <= set(paths(graph))
    (query,) = [n for n in graph.nodes if n.path == "b/a/query"]
    assert query.outputs[0].shape == (None, 6, 2, 3)
    assert_same_outputs(model, FlatCopy(graph, "copy").model)


def test_mixed_precision_is_kept():
    x = inputs = keras.Input((5,))
    x = layers.Dense(5, name="before")(x)

    class Sum(layers.Layer):
        def __init__(self):
            super().__init__(name="b", dtype="mixed_bfloat16")
            self.dense = layers.Dense(5, name="d", dtype="mixed_bfloat16")

        def call(self, x):
            return x + self.dense(x)

    model = keras.Model(inputs, layers.Dense(2)(Sum()(x)))
    graph = trace(model)
    assert "b/cast" in paths(graph)
    dtypes = [node.outputs[0].spec.dtype for node in graph.nodes]
    assert dtypes == ["float32", *["bfloat16"] * 3, "float32"]
    assert_same_outputs(model, FlatCopy(graph, "copy").model)


def test_masks_reach_the_calls_in_a_block():
    class Text(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.rnn = layers.LSTM(3, name="rnn")
            self.dense = layers.Dense(3, name="dense")

        def call(self, x):
            return self.dense(self.rnn(x))

    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True, name="table")(inputs)
    model = keras.Model(inputs, Text()(x))
    graph = trace(model)
    (rnn,) = [node for node in graph.nodes if node.path == "b/rnn"]
    assert rnn.kwargs["mask"] is not None
    copy = FlatCopy(graph, "copy").model
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 1]])
    assert_same_outputs(model, copy, inputs=tokens)
    padded = np.concatenate([tokens[:, :3], np.zeros_like(tokens[:, 3:])], 1)
    np.testing.assert_allclose(
        to_numpy(copy(tokens))[0], to_numpy(copy(padded))[0], rtol=1e-5
    )


def test_a_block_that_is_called_twice_has_its_layers_called_twice():
    x = inputs = keras.Input(IMAGE)
    block = Residual(5, name="b")
    graph = trace(keras.Model(inputs, block(block(x))))
    calls = {node.path: node.calls for node in graph.nodes}
    assert calls["b/first"] == calls["b/second"] == 2
    assert len(calls) == 4 + 2 * 3  # operations have one path each


def test_layers_of_one_name_are_told_apart():
    class Twins(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.parts = [layers.Dense(5, name="d") for _ in range(2)]

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    model = around(Twins(), (5,))
    graph = trace(model)
    assert paths(graph) == ["before", "b/d", "b/d_1", "after"]
    assert_same_outputs(model, FlatCopy(graph, "copy").model)
    cut_half(around(Twins(), (5,)))


def test_layers_of_one_name_that_cannot_be_copied(tmp_path):
    class Twice(layers.Layer):
        def __init__(self):
            super().__init__(name="b")
            self.parts = [layers.Lambda(lambda x: x, name="f") for _ in "12"]
            self.dense = Raw(5, name="f")

        def call(self, x):
            return self.dense(self.parts[1](self.parts[0](x)))

    model = around(Twice(), (5,))
    small, _ = ks.shrink(model)
    assert_same_outputs(model, small)


def test_which_layers_are_unfolded():
    class Mine(layers.Dense):
        pass

    class Attention(layers.MultiHeadAttention):
        pass

    class Changed(layers.MultiHeadAttention):
        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

    class Kept(Residual):
        pass

    assert is_unfolded(Residual(3)) and is_unfolded(Patches(2))
    for layer in (Mine(3), Attention(2, 2), layers.LSTM(2), ks.HardConcrete()):
        assert not is_unfolded(layer)
    assert is_unfolded(Changed(2, 2))
    assert not is_unfolded(ops.add)
    assert is_unfolded(Kept(3))
    keep_whole(Kept)
    assert not is_unfolded(Kept(3)) and is_unfolded(Residual(3))


def test_an_input_that_may_be_left_out():
    class Maybe(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    a = keras.Input((4,), name="a")
    b = keras.Input((4,), name="b", optional=True)
    graph = trace(keras.Model([a, b], Maybe(name="maybe")(a, b)))
    assert "may be left out" in reasons(graph)["maybe"]


def tokens_and_bias(examples=3):
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(0, 9, (examples, 5)),
        "bias": rng.normal(size=(examples, 5, 4)).astype("float32"),
    }


def test_a_subclassed_model():
    model = Own()
    x = tokens_and_bias()
    model(x)
    graph = trace(model)
    assert paths(graph) == ["table", "add", "body", "norm", "drop", "head"]
    assert {k: v.spec.dtype for k, v in graph.inputs.items()} == {
        "tokens": "int32",
        "bias": "float32",
    }
    assert {k: v.shape for k, v in graph.inputs.items()} == {
        "tokens": (None, 5),
        "bias": (None, 5, 4),
    }
    number = len(model._inbound_nodes)
    assert trace(model).output_names == graph.output_names
    assert len(model._inbound_nodes) == number
    small, dead = cut_half(model, inputs=x)
    assert 0 < dead.sum()
    compile_quickly(small, "sgd", "mse")
    small.fit(x, {"logits": np.zeros((3, 5, 2))}, verbose=0)


def test_a_subclassed_model_trains_with_targets_on_its_structures():
    model = Own(6)
    x = tokens_and_bias() | {"bias": np.ones((3, 5, 6), "float32")}
    model(x)
    model.compile(keras.optimizers.SGD(0.1), {"logits": "mse"})
    y = {"logits": np.zeros((3, 5, 2))}
    coupled = ks.CoupledGroups(ks.GroupLasso(1e-3))
    target = ks.TargetDensity(0.5, of="macs")
    model.fit(x, y, epochs=3, callbacks=[coupled, target], verbose=0)
    pruned, _ = ks.prune(model, channels=0.8)
    assert pruned.count_params() < model.count_params()


def test_macs_of_a_block_count():
    model = around(Residual(5, name="b"))
    by_layer = {x.layer: x.macs for x in ks.count_macs(model).layers}
    assert by_layer["b/first"] == 36 * 9 * 5 * 6


def test_a_penalty_by_the_path_of_a_block():
    model = around(Residual(5, name="b"))
    ks.regularize(model, ks.GroupLasso(1.0), layers=["b/first"])
    assert isinstance(model.layers[2].first.kernel.regularizer, ks.GroupLasso)
    assert model.layers[2].second.kernel.regularizer is None


def test_gates_on_the_structures_of_a_block():
    model = around(Residual(5, name="b"))
    gated = ks.add_gates(model)
    small, _ = ks.shrink(gated)
    assert_same_outputs(gated, small)


def test_a_subclassed_model_is_built_again_from_its_file(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Small(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(3, name="dense")

        def call(self, x):
            return self.dense(x)

    model = Small()
    model(np.ones((2, 4), "float32"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    graph = trace(loaded)
    assert paths(graph) == ["dense"]
    assert graph.inputs.shape == (None, 4)


class Moved(keras.Model):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training, mask) - 3


@pytest.mark.parametrize("nested", [False, True])
def test_a_functional_model_with_a_call_of_its_own(nested):
    keras.utils.set_random_seed(0)
    x = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    hidden = layers.Concatenate()([layers.Dense(8)(x["a"]), x["b"]])
    hidden = layers.Dropout(0.5)(layers.Dense(6, "relu")(hidden))
    model = Moved(x, layers.Dense(2)(hidden))
    if nested:
        again = {k: keras.Input(v.shape[1:], name=k) for k, v in x.items()}
        model = keras.Model(again, model(again))
    assert ks.structures(model).size == 14
    small, dead = cut_half(model)
    assert dead.any()
    rng = np.random.default_rng(0)
    values = {k: rng.normal(size=(5, *v.shape[1:])) for k, v in x.items()}
    assert_same_outputs(model, small, inputs=values)


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [("int64", ""), ("float32", "other inputs than it was made for")],
)
def test_a_model_that_is_called_on_another_dtype(dtype, reason):
    tokens = keras.Input((4,), dtype="int32")
    table = layers.Embedding(9, 6)(tokens)
    inner = keras.Model(tokens, layers.Dense(2)(layers.Dense(5)(table)))
    inputs = keras.Input((4,), dtype=dtype)
    graph = trace(keras.Model(inputs, inner(inputs)))
    whole = [node.reason for node in graph.nodes if node.reason]
    assert len(whole) == bool(reason) and reason in "".join(whole)
    if not reason:
        model = keras.Model(inputs, inner(inputs))
        x = np.random.default_rng(0).integers(0, 9, (3, 4))
        _, dead = cut_half(model, inputs=x)
        assert dead.any()


@pytest.mark.parametrize("kind", ["several", "unbuilt", "loss"])
def test_subclassed_models_that_are_refused(kind):
    class Several(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, a, b):
            return self.dense(a) + self.dense(b)

    class Loss(Several):
        def call(self, a):
            self.add_loss(ops.sum(a))
            return self.dense(a)

    x = np.ones((2, 3), "float32")
    if kind == "several":
        model = Several()
        model(x, x)
        expected = "all of it in one argument"
    elif kind == "unbuilt":
        model, expected = Several(), "a built model"
    else:
        model = Loss()
        model(x)
        expected = "where `add_loss"
    with pytest.raises(ValueError, match=expected):
        ks.structures(model)
