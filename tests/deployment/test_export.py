import functools
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, scramble, to_numpy
from keras import layers
from networks import Subclassed, mlp, wide_resnet
from processes import run_code

import keras_sgl0 as ks
from keras_sgl0.deployment.runtimes import SUFFIXES

tensorflow = pytest.mark.tensorflow
FORMATS = [
    pytest.param(name, marks=() if name == "keras" else tensorflow)
    for name in SUFFIXES
]


def separable():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.SeparableConv2D(12, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4)(x))


def transformer(activation="relu"):
    x = inputs = keras.Input((10, 8))
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(y, y)])
    y = layers.Dense(32, activation)(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(8)(y)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def dictionaries():
    """Inputs and outputs whose order is not that of their names."""
    x = keras.Input((4,), name="b")
    i = keras.Input((4,), name="a", dtype="int32")
    y = layers.Flatten()(layers.Embedding(3, 2)(i))
    outputs = {"output_c": layers.Dense(2)(x), "output_by": layers.Dense(2)(y)}
    return keras.Model({"u": x, "v": i}, outputs)


def many_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(2)(x) for _ in range(11)])


MODELS = {
    "lenet": ks.models.LeNet5Caffe,
    "mlp": mlp,
    "residual": wide_resnet,
    "separable": separable,
    "transformer": transformer,
    "dictionaries": dictionaries,
    "many outputs": many_outputs,
}
MOBILENET = functools.partial(
    keras.applications.MobileNetV2,
    weights=None,
    input_shape=(32, 32, 3),
    alpha=0.35,
    classes=10,
    classifier_activation=None,
)
# What takes JAX long to compile.
SLOW = {"residual", "separable", "transformer"}


@functools.cache
def shrunk(name):
    build = MOBILENET if name == "mobilenet" else MODELS[name]
    return ks.shrink(scramble(build()), 0)[0]


def need_packages(format):
    if format == "onnx":
        for package in ("onnx", "tf2onnx", "onnxruntime"):
            pytest.importorskip(package)


def come_back_the_same(tmp_path, name, format):
    need_packages(format)
    path = tmp_path / "new" / f"model{SUFFIXES[format]}"
    report = ks.export(shrunk(name), path)
    assert (report.path, report.format) == (str(path), format)
    assert (report.quantize, report.unchecked) == (None, "")
    assert report.relative_difference < 1e-4
    files = [path] if path.is_file() else path.rglob("*")
    assert report.bytes == sum(f.stat().st_size for f in files if f.is_file())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=tensorflow if name in SLOW else ())
        for name in MODELS
    ],
)
def test_shrunk_models_come_back_the_same(tmp_path, name, format):
    come_back_the_same(tmp_path, name, format)


# Its kinds of layers are in "separable" and "residual" as well, and LiteRT goes
# by way of a SavedModel.
@pytest.mark.slow
@tensorflow
@pytest.mark.parametrize("format", ["keras", "litert", "onnx"])
def test_a_shrunk_mobilenet_comes_back_the_same(tmp_path, format):
    come_back_the_same(tmp_path, "mobilenet", format)


@tensorflow
def test_litert_files_run_without_this_package(tmp_path):
    import tensorflow as tf

    model = shrunk("lenet")
    ks.export(model, tmp_path / "small.tflite", verify=False)
    interpreter = tf.lite.Interpreter(str(tmp_path / "small.tflite"))
    x = np.random.default_rng(1).normal(size=(3, 28, 28, 1)).astype("float32")
    (y,) = interpreter.get_signature_runner()(**{model.input.name: x}).values()
    np.testing.assert_allclose(y, to_numpy(model(x)), atol=1e-4)


@tensorflow
def test_onnx_files_run_without_this_package(tmp_path):
    need_packages("onnx")
    import onnxruntime

    model = shrunk("lenet")
    ks.export(model, tmp_path / "small.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    x = np.random.default_rng(1).normal(size=(3, 28, 28, 1)).astype("float32")
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(y, to_numpy(model(x)), atol=1e-4)


def test_keras_files_load_without_this_package(tmp_path):
    model = ks.models.LeNet5Caffe(kernel_regularizer=ks.SGL0(1e-3))
    small, _ = ks.shrink(scramble(model), 0)
    report = ks.export(small, tmp_path / "small.keras")
    assert report.difference == 0
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model('small.keras')\n"
        "y = model.predict(np.ones((1, 28, 28, 1)), verbose=0)\n"
        "assert 'keras_sgl0' not in sys.modules\n"
        "np.save('outputs.npy', y)\n"
    )
    run_code(code, cwd=tmp_path, check=True)
    y = to_numpy(model(np.ones((1, 28, 28, 1), "float32")))
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), y, atol=1e-4)


@tensorflow
def test_float16_halves_the_file(tmp_path):
    model = shrunk("lenet")
    plain = ks.export(model, tmp_path / "plain.tflite", verify=False)
    half = ks.export(model, tmp_path / "half.tflite", quantize="float16")
    assert 0.5 < half.bytes / plain.bytes < 0.55
    assert 0 < half.relative_difference < 0.01
    assert "(litert float16)" in str(half)


@tensorflow
@pytest.mark.parametrize("name", ["lenet", "dictionaries"])
def test_int8_is_calibrated_on_the_inputs(tmp_path, name):
    model, rng = shrunk(name), np.random.default_rng(0)
    x = rng.normal(size=(50, 28, 28, 1))
    if name == "dictionaries":
        x = {"u": rng.normal(size=(50, 4)), "v": rng.integers(0, 3, (50, 4))}
    plain = ks.export(model, tmp_path / "plain.tflite", verify=False)
    report = ks.export(model, tmp_path / "x.tflite", quantize="int8", inputs=x)
    assert 0 < report.relative_difference < 0.1
    if name == "lenet":
        assert 0.25 < report.bytes / plain.bytes < 0.3


@tensorflow
def test_given_inputs_are_compared_on(tmp_path):
    x = inputs = keras.Input((None,))
    x = layers.Reshape((3, 4))(layers.Embedding(5, 4)(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="argument `inputs`"):
        ks.export(model, tmp_path / "model.tflite")
    assert not os.listdir(tmp_path)
    tokens = np.array([[0, 1, 4], [2, 2, 3]])
    report = ks.export(model, tmp_path / "model.tflite", inputs=tokens)
    assert report.relative_difference < 1e-5


def test_reading_back_can_be_left_out(tmp_path):
    report = ks.export(shrunk("mlp"), tmp_path / "model.keras", verify=False)
    assert report.to_dict() == {
        "path": str(tmp_path / "model.keras"),
        "format": "keras",
        "quantize": None,
        "bytes": (tmp_path / "model.keras").stat().st_size,
        "difference": None,
        "relative_difference": None,
        "unchecked": "verify=False",
        "remark": "",
    }
    assert str(report) == (
        f"{report.path} (keras): {report.bytes:,} bytes, not read back: "
        "verify=False"
    )


@tensorflow
def test_a_missing_runtime_is_reported(tmp_path, monkeypatch):
    need_packages("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = ks.export(shrunk("mlp"), tmp_path / "model.onnx")
    assert report.unchecked == "onnxruntime is not installed"
    assert report.difference is None
    assert report.bytes > 100


@tensorflow
def test_litert_has_a_runtime_of_its_own(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.delattr(tf.lite, "Interpreter")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert", None)
        report = ks.export(shrunk("mlp"), tmp_path / "model.tflite")
        assert report.unchecked == "ai_edge_litert is not installed"
    pytest.importorskip("ai_edge_litert")
    report = ks.export(shrunk("mlp"), tmp_path / "model.tflite")
    assert report.relative_difference < 1e-4


@tensorflow
def test_missing_packages_are_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "tf2onnx" else find("sys"),
    )
    with pytest.raises(ValueError) as caught:
        ks.export(shrunk("mlp"), tmp_path / "model.onnx")
    assert str(caught.value) == (
        "For format='onnx' Keras needs what is not installed: tf2onnx. On "
        "TensorFlow, `pip install 'keras_sgl0[export]'` brings all it needs."
    )


@tensorflow
def test_a_file_that_cannot_be_run_is_an_error(tmp_path):
    need_packages("onnx")
    path = tmp_path / "model.onnx"
    model = transformer("gelu")
    with pytest.raises(ValueError) as caught:
        ks.export(model, path)
    message = str(caught.value)
    assert message.startswith(f"{path} was written, but cannot be run again (")
    assert message.endswith("). `export` with verify=False leaves it at that.")
    assert ks.export(model, path, verify=False).bytes > 1000


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        (
            "model.h5",
            {},
            "Invalid value for argument `path`. Expected a name with the "
            "suffix .keras, .tflite or .onnx, or without one for a "
            "SavedModel. Received: path='model.h5'",
        ),
        (
            "model.onnx",
            {"format": "litert"},
            "Invalid value for argument `path`. Expected a name with the "
            "suffix .tflite, as format='litert'. Received: path='model.onnx'",
        ),
        (
            "model.pb",
            {"format": "pb"},
            "Invalid value for argument `format`. Expected one of 'keras', "
            "'saved_model', 'litert', 'onnx'. Received: format='pb'",
        ),
        (
            "model.tflite",
            {"quantize": "int4"},
            "Invalid value for argument `quantize`. Expected one of "
            "'float16', 'int8'. Received: quantize='int4'",
        ),
        (
            "model.keras",
            {"quantize": "int8"},
            "Invalid value for argument `quantize`. Expected None, as "
            f"format='keras' on {BACKEND}: only LiteRT on TensorFlow "
            "quantizes. Received: quantize='int8'",
        ),
        pytest.param(
            "model.tflite",
            {"quantize": "int8"},
            "Invalid value for argument `inputs`. Expected examples of what "
            "the model will meet, to find the ranges of its activations, as "
            "quantize='int8'. Received: inputs=None",
            marks=tensorflow,
        ),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path, monkeypatch, path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        ks.export(shrunk("mlp"), path, **arguments)
    assert str(caught.value) == message
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "model", [None, keras.Sequential([layers.Dense(2)]), Subclassed()]
)
def test_models_that_show_no_inputs_are_refused(tmp_path, model):
    with pytest.raises(ValueError, match="argument `model`"):
        ks.export(model, tmp_path / "model.keras")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras imports it")
def test_the_package_alone_imports_no_tensorflow():
    code = "import sys, keras_sgl0; assert 'tensorflow' not in sys.modules"
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr


@tensorflow
def test_int8_of_a_recurrent_model_is_refused(tmp_path):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(3)(inputs)))
    path, data = tmp_path / "model.tflite", np.ones((4, 5, 3), "float32")
    with pytest.raises(ValueError, match=r"argument `quantize`.*recurrent"):
        ks.export(model, path, quantize="int8", inputs=data)
    assert not path.exists()


@tensorflow
def test_a_fault_of_eager_calls_is_told_in_the_report(tmp_path):
    x = inputs = keras.Input((3, 8, 8))
    options = {"data_format": "channels_first", "padding": "same"}
    x = layers.Conv2D(8, 3, **options, name="first")(x)
    x = layers.Conv2D(4, 3, **options, name="second")(x)
    model = scramble(keras.Model(inputs, x), dead=0)
    first = model.get_layer("first")
    kernel = to_numpy(first.kernel).copy()
    kernel[..., ::2] = 0
    first.kernel.assign(kernel)
    first.bias.assign(np.arange(8) % 2 * np.arange(8.0))
    small, report = ks.shrink(model, 0)
    assert small.get_layer("first").filters == 4
    assert report.relative_difference < 1e-6
    assert "Called eagerly" in report.remark
    assert report.remark in str(report)
    assert report.to_dict()["remark"] == report.remark
    written = ks.export(model, tmp_path / "model")
    assert written.relative_difference < 1e-6
    assert "Called eagerly" in str(written)


def test_a_difference_that_stays_is_the_largest_of_two_batches():
    model = scramble(mlp(), dead=0)
    small, report = ks.shrink(model, 0.3)
    assert report.relative_difference > 0.01
    assert report.remark == ""
    seen = []
    for seed, examples in ((0, 2), (1, 3)):
        x = np.random.default_rng(seed).normal(size=(examples, 12))
        a, b = (to_numpy(m(x.astype("float32"))) for m in (model, small))
        seen.append(abs(a - b).max())
    np.testing.assert_allclose(report.difference, max(seen), rtol=1e-4)
