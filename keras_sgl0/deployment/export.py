"""Writing a model to a file, and reading it back to see that it is the same."""

import importlib.util
import os

import keras

from keras_sgl0.deployment.report import ExportReport
from keras_sgl0.deployment.runtimes import (
    SUFFIXES,
    NotRunError,
    named_inputs,
    running_file,
    size_of,
    told_as_not_run,
)
from keras_sgl0.network.probing import (
    Difference,
    checked_difference,
    outputs,
    probe,
)
from keras_sgl0.network.unfolding import functional
from keras_sgl0.utils.validation import (
    InputError,
    boolean,
    choice,
    file_path,
    require,
)

# What Keras needs for a format on a backend, beyond this package's own needs.
_PACKAGES = {
    ("onnx", "tensorflow"): ("onnx", "tf2onnx"),
    ("onnx", "jax"): ("jax2onnx",),
    ("onnx", "torch"): ("onnx", "onnxscript"),
    ("litert", "torch"): ("litert_torch",),
    ("litert", "jax"): ("tensorflow",),
    ("saved_model", "jax"): ("tensorflow",),
}


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str | None = None,
    quantize: str | None = None,
    inputs: object = None,
    verify: bool = True,
) -> ExportReport:
    """Writes a model to a file, for inference elsewhere.

    `.keras` is written by `model.save`, the others by `model.export`. The file
    is read back by the runtime of its format, where that is installed, and its
    outputs are compared with the model's.

    Args:
        model: A built model.
        path: The file, or the folder of a SavedModel. What is there is
            replaced; folders above it are made.
        format: `"keras"`, `"saved_model"` (a folder), `"litert"` (also known
            as TFLite) or `"onnx"`. `None` takes it from the suffix: `.keras`,
            none, `.tflite` or `.onnx`.
        quantize: For LiteRT on TensorFlow: `"float16"` halves the file;
            `"int8"` computes in integers where it can, with float inputs and
            outputs, and needs `inputs` to find the ranges. Both change the
            outputs, and the report says by how much.
        inputs: Inputs to compare on, structured as the model wants them;
            `None` for two random examples. For `"int8"` about a hundred
            examples of what the model will meet.
        verify: Whether to read the file back and compare.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If the model is not built or cannot be traced, an argument
            is unknown or does not fit the others, a package that Keras needs
            for the format is not installed, the model cannot be called on
            random inputs and none are given, LiteRT cannot quantize it
            (recurrent layers to `"int8"`), or the file cannot be run: ONNX
            files may hold operations that no runtime knows.

    Example:
        >>> small, report = shrink(model)
        >>> print(export(small, "small.tflite"))
    """
    path = file_path("path", path)
    require(path, "path", "the name of a file or folder", path)
    verify = boolean("verify", verify)
    functional(model)
    format = _format(path, format)
    options = _options(format, quantize, model, inputs)
    _require_packages(format)
    inputs, expected = probe(model, inputs)
    # Keras exports to ONNX what was called as a whole before only.
    model(inputs, training=False)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if format == "keras":
        model.save(path)
    else:
        kind = "tf_saved_model" if format == "saved_model" else format
        try:
            model.export(path, format=kind, verbose=False, **options)
        except Exception as error:
            if quantize != "int8":
                raise
            raise InputError(
                "Invalid value for argument `quantize`. Expected None or "
                "'float16', as the ranges of the model's activations cannot be "
                "found: LiteRT runs it for that, and cannot run recurrent "
                f"layers among others. Received: quantize='int8' ({error})"
            ) from error
    found = Difference(None, None)
    unchecked, failure = "", None
    if verify:
        try:
            with told_as_not_run(path):
                received = running_file(path, format, model, inputs)()
                found = checked_difference(
                    expected,
                    received,
                    lambda: (outputs(model, inputs, compile=True), received),
                )
        except ModuleNotFoundError as error:
            package = (error.name or "a package").partition(".")[0]
            unchecked = f"{package} is not installed"
        except NotRunError as error:
            failure, unchecked = error, error.reason
    else:
        unchecked = "verify=False"
    report = ExportReport(
        path=path,
        format=format,
        quantize=quantize,
        bytes=size_of(path),
        difference=found.absolute,
        relative_difference=found.relative,
        unchecked=unchecked,
        remark=found.remark,
    )
    if failure is not None:
        failure.report = report
        raise failure
    return report


def _format(path, format):
    """Returns the format after checking that it can be written to the path."""
    suffix = os.path.splitext(path)[1]
    if format is None:
        known = {suffix: name for name, suffix in SUFFIXES.items()}
        require(
            suffix in known,
            "path",
            "a name with the suffix .keras, .tflite or .onnx, or without one "
            "for a SavedModel",
            path,
        )
        format = known[suffix]
    choice("format", format, tuple(SUFFIXES))
    require(
        format == "saved_model" or suffix == SUFFIXES[format],
        "path",
        f"a name with the suffix {SUFFIXES[format]}, as format={format!r}",
        path,
    )
    return format


def _require_packages(format):
    backend = keras.backend.backend()
    missing = [
        name
        for name in _PACKAGES.get((format, backend), ())
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InputError(
            f"For format={format!r} Keras needs what is not installed: "
            f"{', '.join(missing)}. On TensorFlow, `pip install "
            "'keras_sgl0[export]'` brings all it needs."
        )


def _options(format, quantize, model, inputs) -> dict:
    """Returns the converter's options."""
    if quantize is None:
        return {}
    choice("quantize", quantize, ("float16", "int8"))
    backend = keras.backend.backend()
    require(
        format == "litert" and backend == "tensorflow",
        "quantize",
        f"None, as format={format!r} on {backend}: only LiteRT on TensorFlow "
        "quantizes",
        quantize,
    )
    import tensorflow as tf

    options = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantize == "float16":
        return options | {"target_spec": {"supported_types": [tf.float16]}}
    require(
        inputs is not None,
        "inputs",
        "examples of what the model will meet, to find the ranges of its "
        "activations, as quantize='int8'",
        inputs,
    )
    named = named_inputs(model, inputs)

    def examples():
        for i in range(len(next(iter(named.values())))):
            yield {name: x[i : i + 1] for name, x in named.items()}

    return options | {"representative_dataset": examples}
