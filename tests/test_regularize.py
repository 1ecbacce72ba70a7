import json

import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy, two_layers
from keras import layers

import keras_sgl0 as ks
from keras_sgl0.regularize import regularize


@keras.saving.register_keras_serializable("tests")
class Mix(layers.Layer):
    """A layer of a type that nobody knows, with a known one in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="inner")

    def build(self, shape):
        self.mixer = self.add_weight(shape=(shape[-1],) * 2, name="mixer")
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x):
        return self.inner(x @ self.mixer)


@keras.saving.register_keras_serializable("tests")
class Keeper(Mix):
    """The same, with its part in its config."""

    def get_config(self):
        part = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": part}

    @classmethod
    def from_config(cls, config):
        part = keras.saving.deserialize_keras_object(config.pop("inner"))
        layer = cls(**config)
        layer.inner = part
        return layer


# layer, input shape, then per kernel the axes for -1 and for "auto"
KERNELS = {
    "Dense": (layers.Dense(3), (4,), [(-1, 0)]),
    "Conv1D": (layers.Conv1D(3, 2), (5, 4), [(-1, -1)]),
    "Conv2D": (layers.Conv2D(3, 2), (5, 5, 4), [(-1, -1)]),
    "Conv3D": (layers.Conv3D(3, 2), (3, 3, 3, 4), [(-1, -1)]),
    "Conv1DTranspose": (layers.Conv1DTranspose(3, 2), (5, 4), [(-2, -2)]),
    "Conv2DTranspose": (layers.Conv2DTranspose(3, 2), (5, 5, 4), [(-2, -2)]),
    "Conv3DTranspose": (
        layers.Conv3DTranspose(3, 2),
        (3, 3, 3, 4),
        [(-2, -2)],
    ),
    "DepthwiseConv1D": (
        layers.DepthwiseConv1D(2, depth_multiplier=3),
        (5, 4),
        [(-2, -2)],
    ),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(2), (5, 5, 4), [(-2, -2)]),
    "SeparableConv1D": (
        layers.SeparableConv1D(3, 2),
        (5, 4),
        [(-2, -2), (-1, -1)],
    ),
    "SeparableConv2D": (
        layers.SeparableConv2D(3, 2, depth_multiplier=2),
        (5, 5, 4),
        [(-2, -2), (-1, -1)],
    ),
    "Embedding": (layers.Embedding(9, 3), (4,), [(-1, -1)]),
    "EinsumDense": (
        layers.EinsumDense("...x,xy->...y", output_shape=3),
        (5, 4),
        [(-1, -2)],
    ),
    "EinsumDense, flipped": (
        layers.EinsumDense("abc,dc->abd", output_shape=(None, 3)),
        (5, 4),
        [(-2, -1)],
    ),
    "EinsumDense, no output axis": (
        layers.EinsumDense("ab,b->ab", output_shape=4),
        (4,),
        [(-1, -1)],
    ),
    "TimeDistributed": (
        layers.TimeDistributed(layers.Dense(3)),
        (5, 4),
        [(-1, 0)],
    ),
    "MultiHeadAttention": (
        layers.MultiHeadAttention(2, 3),
        (5, 4),
        4 * [(-1, -1)],
    ),
    "GroupQueryAttention": (
        layers.GroupQueryAttention(3, 4, 2),
        (5, 4),
        4 * [(-1, -1)],
    ),
    "a layer that keeps its part": (Keeper(), (4,), [(-1, 0)]),
}


def model_of(name):
    layer, shape, axes = KERNELS[name]
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input(shape)
    calls = (inputs, inputs) if "Attention" in name else (inputs,)
    return keras.Model(inputs, layer(*calls)), axes


def last_layer(model):
    """Returns the selection of the layer that makes a model's outputs."""
    return [model.layers[-1]]


def penalised(model):
    """Returns the penalties of the kernels as training sees them."""
    return {
        v.path: (type(v.regularizer), v.regularizer.get_config())
        for v in model.trainable_variables
        if v.regularizer is not None
    }


def total(model):
    return float(to_numpy(sum(model.losses)))


def reload(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("axis", [-1, "auto"])
def test_every_layout(name, axis, tmp_path):
    model, expected = model_of(name)
    report = regularize(model, ks.SGL0(0.5, axis), last_layer(model))
    axes = [pair[axis == "auto"] for pair in expected]
    assert [entry.axis for entry in report.regularized] == axes
    found = penalised(model)
    assert [config["axis"] for _, config in found.values()] == axes
    assert total(model) > 0
    expected = list(found.values())
    loaded = reload(model, tmp_path)
    assert list(penalised(loaded).values()) == expected
    assert total(loaded) == pytest.approx(total(model))
    clone = keras.models.clone_model(model)
    assert list(penalised(clone).values()) == expected


@pytest.mark.parametrize(
    "name",
    ["Conv2D", "Conv2DTranspose", "DepthwiseConv1D", "EinsumDense, flipped"],
)
def test_a_group_is_what_makes_one_output_channel(name):
    """Zeros in the first group of each kernel silence the first channel."""
    model, _ = model_of(name)
    regularize(model, ks.GroupLasso(1.0), last_layer(model))
    (kernel,) = (v for v in model.trainable_variables if v.regularizer)
    w = np.moveaxis(to_numpy(kernel).copy(), kernel.regularizer.axis, 0)
    w[0] = 0
    kernel.assign(np.moveaxis(w, 0, kernel.regularizer.axis))
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    y = to_numpy(model(x.astype("float32")))
    silent = np.abs(y).max(axis=tuple(range(y.ndim - 1))) == 0
    multiplier = 3 if name == "DepthwiseConv1D" else 1
    assert list(np.flatnonzero(silent)) == list(range(multiplier))


def test_an_explicit_axis_is_used_as_it_is():
    model, _ = model_of("SeparableConv2D")
    report = regularize(model, ks.GroupLasso(1.0, axis=2))
    assert [entry.axis for entry in report.regularized] == [2, 2]


def test_penalties_of_two_parts():
    model, _ = model_of("Conv2DTranspose")
    penalty = ks.SparseGroup(ks.GroupLasso(0.25), ks.L1(0.5))
    (entry,) = regularize(model, penalty, last_layer(model)).regularized
    put = model.layers[1].kernel_regularizer
    assert type(put) is ks.SparseGroup
    assert (put.axis, put.group.factor, put.element.factor) == (-2, 0.25, 0.5)
    assert (
        entry.penalty == "SparseGroup(GroupLasso(factor=0.25), L1(factor=0.5))"
    )
    assert penalty.axis == -1


@pytest.mark.parametrize("penalty", [keras.regularizers.L2(0.1), ks.L0(0.1)])
def test_penalties_without_axis(penalty, tmp_path):
    model, _ = model_of("SeparableConv2D")
    report = regularize(model, penalty)
    assert [entry.axis for entry in report.regularized] == [None, None]
    assert model.layers[1].pointwise_regularizer is penalty
    loaded = reload(model, tmp_path)
    assert penalised(loaded).values()
    assert total(loaded) == pytest.approx(total(model))


def test_a_penalty_that_varies_with_depth(tmp_path):
    inputs = keras.Input((5, 4))
    x = layers.SeparableConv1D(4, 2, name="separable")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Dense(2, name="dense")(x)
    model = keras.Model(inputs, x)
    everything = ["separable", "attention", "dense"]
    regularize(model, lambda depth: ks.GroupLasso(1 + depth), everything)
    depths = [
        v.regularizer.factor - 1
        for v in model.trainable_variables
        if v.regularizer
    ]
    # All kernels of the attention layer have one depth.
    assert depths == [0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.75]
    loaded = penalised(reload(model, tmp_path))
    assert list(loaded.values()) == list(penalised(model).values())


def nested():
    """Returns a model with a model in it, and one of every case."""
    keras.utils.set_random_seed(0)
    features = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, kernel_regularizer="l2", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D(2, trainable=False, name="depthwise"),
            layers.Flatten(name="flat"),
        ],
        name="features",
    )
    head = layers.Dense(4, name="head")
    inputs = keras.Input((6, 6, 2), name="image")
    x = head(head(layers.Dense(4, name="neck")(features(inputs))))
    x = layers.Reshape((1, 3), name="shape")(Mix(name="mix")(x))
    return keras.Model(inputs, layers.LSTM(2, name="lstm")(x))


MAKES_OUTPUTS = "makes the model's outputs: each group would be one of them"
MAY_MAKE_OUTPUTS = "may make the model's outputs: its calls are not known"


def notes(report):
    return {entry.layer: entry.note for entry in report.entries}


def test_the_report_names_every_layer_and_why():
    model = nested()
    report = regularize(model, ks.SGL0(0.1))
    found = notes(report)
    for name, note in {
        "image": "no kernel",
        "features": "no kernel of its own",
        "features/conv": "replaces L2(l2=0.01)",
        "features/norm": "no kernel",
        "features/depthwise": "frozen: Keras ignores the penalty",
        "head": "",
        "mix": "unknown layout: mixer",
        "mix/inner": "lost when saved: not in the config of `mix`",
        "lstm": "no kernel of its own",
        "lstm/lstm_cell": "not among the `weights`: kernel, recurrent_kernel",
    }.items():
        assert found[name] == note, name
    assert len(found) == len(report.entries)
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, layers.InputLayer):
            assert any(path.split("/")[-1] == layer.name for path in found)
    assert [e.layer for e in report.regularized] == [
        "features/conv",
        "features/depthwise",
        "neck",
        "head",
        "mix/inner",
    ]


def test_the_report_in_print_and_as_plain_values():
    report = regularize(nested(), ks.SGL0(0.1))
    text = str(report)
    rows = [line.split()[0] for line in text.splitlines()[2:-1]]
    hidden = [e for e in report.entries if e.note.startswith("no kernel")]
    assert rows == [e.layer for e in report.entries if e not in hidden]
    assert {"image", "features", "features/norm"} <= {e.layer for e in hidden}
    assert "kernel 3x3x2x4" in text
    alone = len(report.left_alone) - len(hidden)
    assert text.splitlines()[-1] == (
        f" 5 kernels with a penalty, {alone} others left alone, "
        f"{len(hidden)} layers without a kernel"
    )
    plain = json.loads(json.dumps(report.to_dict()))
    assert [row["layer"] for row in plain["layers"]] == [
        entry.layer for entry in report.entries
    ]
    assert plain["regularized"] == 5
    assert plain["regularized"] + plain["left_alone"] == len(plain["layers"])
    assert {
        "layer": "features/conv",
        "type": "Conv2D",
        "kernel": "kernel",
        "shape": [3, 3, 2, 4],
        "penalty": "SGL0(factor=0.1)",
        "axis": -1,
        "note": "replaces L2(l2=0.01)",
    } in plain["layers"]


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda model: ["head"], ["head"]),
        (lambda model: ["features/conv", "neck"], ["features/conv", "neck"]),
        (lambda model: ["features"], ["features/conv", "features/depthwise"]),
        (lambda model: (model.get_layer("neck"),), ["neck"]),
        (lambda model: {"conv"}, ["features/conv"]),
        (
            lambda model: lambda layer: isinstance(layer, layers.Dense),
            ["neck", "head", "mix/inner"],
        ),
    ],
)
def test_choosing_layers(choose, expected):
    model = nested()
    report = regularize(model, ks.SGL0(0.1), choose(model))
    assert [entry.layer for entry in report.regularized] == expected
    rest = {"features/conv", "neck", "head"} - set(expected)
    assert {notes(report)[name] for name in rest} == {"not selected"}


def test_an_attention_layer_is_chosen_as_a_whole():
    model, _ = model_of("MultiHeadAttention")
    seen = []
    report = regularize(
        model, ks.L1(1.0), lambda layer: seen.append(layer) or 1
    )
    assert set(seen) == {model.layers[1]}
    assert len(report.regularized) == 4
    with pytest.raises(ValueError, match=r"Received: layers=.*query"):
        regularize(model, ks.L1(1.0), ["query"])


def test_a_shared_kernel_is_penalised_once():
    first = layers.Dense(3, name="first")

    class Tied(layers.Dense):
        def build(self, shape):
            self._kernel, self.bias = first.kernel, None

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Tied(3, name="tied")(first(inputs)))
    report = regularize(model, ks.L1(1.0))
    assert notes(report)["tied"] == "shares the kernel of `first`"


def test_an_adapted_kernel_is_left_alone():
    model = two_layers(None)
    model.layers[0].enable_lora(2)
    report = regularize(model, ks.L1(1.0))
    note = "its kernel is quantized or adapted (LoRA)"
    assert notes(report)["first"] == note


@pytest.mark.parametrize("traced", [True, False])
def test_a_subclassed_model(traced):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.unused = layers.Dense(2), layers.Dense(2)
            self.head = layers.Dense(2)

        def call(self, x):
            if not traced:
                self.add_loss(0.0 * keras.ops.sum(x))
            return self.head(self.dense(x))

    model = Own()
    model(np.ones((1, 3), "float32"))
    used, unused, head = regularize(model, ks.GroupLasso(1.0)).entries
    assert "lost when saved" in used.note
    assert (MAY_MAKE_OUTPUTS in used.note) is not traced
    assert (MAY_MAKE_OUTPUTS in head.note) is not traced
    assert (head.penalty == "") is traced
    assert unused.note == "not built"
    assert total(model) > 0


def test_a_compiled_model_sees_the_new_penalty(images):
    model = two_layers(None, keras.optimizers.SGD(1e-3))
    model.fit(*images, verbose=0)
    plain = model.evaluate(*images, verbose=0)
    regularize(model, ks.GroupLasso(1.0))
    before = total(model)
    with_it = model.evaluate(*images, verbose=0)
    assert with_it == pytest.approx(plain + before, rel=1e-5)
    model.fit(*images, verbose=0)
    assert total(model) < before
    again = regularize(model, ks.GroupLasso(2.0))
    assert notes(again)["first"] == "replaces GroupLasso(factor=1)"


def test_a_loaded_model_splits_what_was_put_on(images, tmp_path):
    model = two_layers(None)
    regularize(model, ks.SGL0(1e-3), ["first", "second"])
    model = reload(model, tmp_path)
    splitting = ks.VariableSplitting(beta=1.0)
    model.fit(*images, callbacks=[splitting], verbose=0)
    assert len(splitting.v) == 2


def test_what_is_refused_leaves_the_model_alone():
    model = nested()
    before = penalised(model)

    def none_at_the_end(depth):
        return ks.L1(1.0) if depth < 0.5 else None

    for penalty, selection, message in (
        (1.0, None, "`penalty`. Expected a regularizer, or a function"),
        ("l2", None, "`penalty`"),
        (ks.SGL0, None, "`penalty`"),
        (none_at_the_end, None, "Received: penalty=None"),
        (
            ks.GroupLasso(1.0, axis=2),
            None,
            "the kernel of `neck` has, of shape",
        ),
        (ks.L1(1.0), ["nobody"], "'features', 'features/conv', "),
        (ks.L1(1.0), ["norm"], "Received: layers=['norm']"),
        (ks.L1(1.0), [layers.Dense(2)], "layers with a kernel"),
        (ks.L1(1.0), "head", "a list of layers or of their names"),
        (ks.L1(1.0), model.layers[1], "a list of layers or of their names"),
        (ks.L1(1.0), [], "a selection of layers with a kernel"),
        (ks.L1(1.0), lambda layer: False, "a selection of layers"),
    ):
        with pytest.raises(ValueError) as error:
            regularize(model, penalty, selection)
        assert message in str(error.value)
        assert penalised(model) == before
    with pytest.raises(ValueError, match="a built model"):
        regularize(keras.Sequential([layers.Dense(2)]), ks.L1(1.0))


def classifier(*more):
    """Returns a dense classifier of 12 numbers, compiled."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dense(3, name="head"),
            *more,
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not more)
    model.compile(keras.optimizers.SGD(0.1), loss, **QUICK)
    return model


GROUPED = [
    ks.GroupLasso(0.5),
    ks.SGL0(0.5),
    ks.SparseGroup(ks.GroupLasso(0.25), ks.L1(0.5)),
    ks.GroupLasso(0.5, axis=1),
    lambda depth: ks.CGES(0.5, mu=depth),
]


@pytest.mark.parametrize("penalty", GROUPED)
@pytest.mark.parametrize("more", [(), (layers.Softmax(),)])
def test_what_makes_the_outputs_is_left_alone(penalty, more):
    model = classifier(*more)
    head = model.get_layer("head")
    head.kernel_regularizer = head.kernel.regularizer = keras.regularizers.L2()
    report = regularize(model, penalty)
    assert [entry.layer for entry in report.regularized] == ["hidden"]
    assert notes(report)["head"] == MAKES_OUTPUTS
    assert MAKES_OUTPUTS.split(":")[0] in str(report)
    # What was there stays.
    assert isinstance(head.kernel.regularizer, keras.regularizers.L2)
    assert head.kernel.regularizer is head.kernel_regularizer


@pytest.mark.parametrize(
    "penalty",
    [
        ks.GroupLasso(0.5, axis="auto"),
        ks.SGL0(0.5, axis=0),
        ks.L1(0.5),
        keras.regularizers.L2(0.5),
    ],
)
def test_without_groups_of_outputs_it_is_penalised(penalty):
    report = regularize(classifier(), penalty)
    assert [entry.layer for entry in report.regularized] == ["hidden", "head"]
    assert [entry.note for entry in report.regularized] == ["", ""]


def test_a_named_layer_is_penalised_even_if_it_makes_the_outputs():
    for choose in (
        lambda model: ["hidden", "head"],
        lambda model: model.layers,
        lambda model: (model.get_layer("head"),),
    ):
        model = classifier()
        report = regularize(model, ks.GroupLasso(0.5), choose(model))
        assert report.regularized[-1].layer == "head"
        assert model.get_layer("head").kernel.regularizer.axis == -1
    report = regularize(
        classifier(), ks.SGL0(0.5), lambda layer: "h" in layer.name
    )
    assert notes(report)["head"] == MAKES_OUTPUTS


def test_what_makes_the_outputs_counts_in_the_depth():
    model = classifier()
    regularize(model, lambda depth: ks.CGES(0.5, mu=depth))
    regularize(model, lambda depth: ks.CGES(0.5, mu=depth, axis="auto"))
    assert [x.kernel.regularizer.mu for x in model.layers] == [0, 0.5]


def test_nothing_left_to_penalise_is_an_error():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    for selection in (None, lambda layer: True):
        with pytest.raises(ValueError) as error:
            regularize(model, ks.SGL0(0.5), selection)
        message = str(error.value)
        assert message.startswith("Invalid value for argument `penalty`.")
        assert "no whole outputs of the model" in message
        assert "by `layers`. Received: penalty=" in message
    assert penalised(model) == {}


def test_no_class_dies_by_default(images):
    """As strong a penalty as this kills all the groups that carry it."""
    model = classifier()
    regularize(model, ks.GroupLasso(10.0))
    model.fit(*images, epochs=5, verbose=0, callbacks=[ks.ProximalStep()])
    hidden, head = (to_numpy(layer.kernel) for layer in model.layers)
    assert not hidden.any()
    assert head.any(axis=0).all()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("VGG16", 13),
        ("MobileNetV2", 52),
        # Plain convolutions, like VGG16.
        pytest.param("ResNet50V2", 53, marks=pytest.mark.slow),
        ("EfficientNetV2B0", 91),
        ("ConvNeXtTiny", 58),
    ],
)
def test_keras_applications(name, kernels, tmp_path):
    keras.utils.set_random_seed(0)
    backbone = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    outputs = layers.Dense(2, name="head")(backbone.output)
    model = keras.Model(backbone.input, outputs)
    # The loss weighs next to nothing, as its gradients are huge at the start.
    model.compile(
        keras.optimizers.SGD(1e-4),
        "mse",
        loss_weights=[1e-12],
        run_eagerly=True,
    )
    report = regularize(model, ks.SparseGroupLasso(0.5))
    assert len(report.regularized) == kernels
    assert all(entry.note == "" for entry in report.regularized)
    assert notes(report)["head"] == MAKES_OUTPUTS
    listed = {entry.layer for entry in report.entries}
    # Keras itself hides the input of a Sequential model.
    everything = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if not isinstance(layer, layers.InputLayer)
    ]
    names = {path.split("/")[-1] for path in listed}
    assert {layer.name for layer in everything} <= names
    for layer in everything:
        if isinstance(layer, layers.DepthwiseConv2D):
            assert layer.kernel.regularizer.axis == -2
    before = total(model)
    x = np.random.default_rng(0).random((2, 32, 32, 3), "float32")
    model.train_on_batch(x, np.zeros((2, model.output_shape[-1])))
    assert total(model) < before
    loaded = reload(model, tmp_path)
    put = list(penalised(model).values())
    assert list(penalised(loaded).values()) == put
    assert len(put) == kernels
    assert total(loaded) == pytest.approx(total(model))


def test_none_removes_penalties(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, kernel_regularizer=ks.SGL0(0.1), name="first"),
            layers.Dense(3, kernel_regularizer="l2", name="second"),
            layers.Dense(2, name="third"),
        ]
    )
    model.compile("sgd", "mse")
    x, y = np.ones((8, 4)), np.ones((8, 2))
    before = model.evaluate(x, y, verbose=0)
    report = ks.regularize(model, None, layers=["first", "third"])
    notes = {e.layer: e.note for e in report.left_alone}
    assert notes["first"].startswith("removes SGL0(")
    assert notes["third"] == "had no penalty"
    assert notes["second"] == "not selected"
    assert not report.regularized
    penalty = float(ks.SGL0(0.1)(model.get_layer("first").kernel))
    after = model.evaluate(x, y, verbose=0)
    assert after == pytest.approx(before - penalty, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("first").kernel_regularizer is None
    assert loaded.get_layer("second").kernel_regularizer is not None


class Silent(layers.Dense):
    """A layer that gives no config."""

    def get_config(self):
        raise RuntimeError("no config here")


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError])
def test_a_layer_without_config_is_named(error, monkeypatch):
    def get_config(self):
        raise error

    monkeypatch.setattr(Silent, "get_config", get_config)
    x = inputs = keras.Input((6,))
    x = Silent(4, name="silent")(layers.Dense(5, name="first")(x))
    inner = keras.Model(inputs, x, name="inner")
    outputs = layers.Dense(2, name="last")(inner(inputs))
    model = keras.Model(inputs, outputs)
    report = regularize(model, ks.SGL0(1e-3))
    lost = "cannot be saved: `silent` gives no config"
    assert notes(report)["inner/first"] == notes(report)["inner/silent"] == lost
    assert model.get_layer("inner").get_layer("first").kernel.regularizer
    assert len(report.regularized) == 2
