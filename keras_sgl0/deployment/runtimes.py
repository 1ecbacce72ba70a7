"""Running a model, or a file it was exported to, on fixed inputs.

A runtime is handed the inputs once and gives back a function without arguments
that computes the outputs, so that nothing else is timed along with them. LiteRT
and ONNX Runtime compute on one thread, Keras on as many as it takes.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.deployment.report import ExportReport
from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.tracing import first_line
from keras_sgl0.network.unfolding import functional
from keras_sgl0.utils.validation import InputError

SUFFIXES = {
    "keras": ".keras",
    "saved_model": "",
    "litert": ".tflite",
    "onnx": ".onnx",
}
Run = Callable[[], list[np.ndarray]]
# What LiteRT says of operations that need more than LiteRT.
_FOREIGN = "Select TensorFlow op"


class NotRunError(InputError):
    """A file that the runtime of its format cannot run.

    Args:
        path: The file.
        reason: What the runtime says.

    Attributes:
        reason: The same.
        report: What `export` reports of the file, `None` until it does.
    """

    report: ExportReport | None = None

    def __init__(self, path: str, reason: str):
        super().__init__(
            f"{path} was written, but cannot be run again ({reason}). `export` "
            "with verify=False leaves it at that."
        )
        self.reason = reason


@contextlib.contextmanager
def told_as_not_run(path: str) -> Iterator[None]:
    """Has what a runtime raises told as an error about a file.

    Args:
        path: The file.

    Raises:
        NotRunError: A `ValueError`, if the runtime cannot run the file. That it
            is not installed is told as it is.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a runtime may raise anything
        reason = first_line(error)
        if _FOREIGN in reason:
            reason = (
                "LiteRT does not know all of its operations; a recurrent layer "
                "has none of these with `unroll=True`"
            )
        raise NotRunError(path, reason) from error


def running(model: keras.Model, inputs: object) -> Run:
    """Returns what runs a model at test time, compiled.

    On TensorFlow it is a `tf.function`; on the other backends Keras's own
    `predict_on_batch`.

    Args:
        model: A built model.
        inputs: What to run it on, structured as it wants them.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda: tree.flatten(model.predict_on_batch(inputs))
    # As an argument, since a small constant would become part of the graph.
    inputs = tree.map_structure(ops.convert_to_tensor, inputs)
    # TensorFlow counts the traces of a partial by itself. Those of one function
    # for many models would make it warn.
    step = compiled(functools.partial(model, training=False))
    return lambda: [y.numpy() for y in tree.flatten(step(inputs))]


def running_file(
    path: str, format: str, model: keras.Model, inputs: object
) -> Run:
    """Returns what runs an exported file in the runtime of its format.

    Args:
        path: The file, or the folder of a SavedModel.
        format: One of `SUFFIXES`.
        model: The model it was exported from; its inputs' names are those in
            the file.
        inputs: What to run it on, structured as the model wants them.

    Raises:
        ModuleNotFoundError: If the runtime is not installed.
    """
    if format == "keras":
        return running(keras.saving.load_model(path, compile=False), inputs)
    if format == "saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(path)
        inputs = tree.map_structure(tf.convert_to_tensor, inputs)
        return lambda: [y.numpy() for y in tree.flatten(loaded.serve(inputs))]
    named = named_inputs(model, inputs)
    if format == "litert":
        return _running_litert(path, named)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as LiteRT by itself
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, named)


def named_inputs(model: keras.Model, inputs: object) -> dict[str, np.ndarray]:
    """Returns inputs under the names and in the dtypes of a model's.

    Args:
        model: A built model.
        inputs: Its inputs, structured as it wants them.
    """
    specs = tree.flatten(functional(model).input)
    arrays = [ops.convert_to_numpy(x) for x in tree.flatten(inputs)]
    return {
        spec.name: x if spec.dtype == "string" else x.astype(spec.dtype)
        for spec, x in zip(specs, arrays, strict=True)
    }


def _running_litert(path, named):
    interpreter = _litert_interpreter()(model_path=path)
    runner = interpreter.get_signature_runner()
    inputs, outputs = (
        {name: details["index"] for name, details in all_details.items()}
        for all_details in (
            runner.get_input_details(),
            runner.get_output_details(),
        )
    )
    del runner  # It holds on to tensors that get another size now.
    for name, index in inputs.items():
        interpreter.resize_tensor_input(index, named[name].shape)
    interpreter.allocate_tensors()
    for name, index in inputs.items():
        interpreter.set_tensor(index, named[name])
    order = sorted(outputs, key=_position)

    def run():
        interpreter.invoke()
        return [interpreter.get_tensor(outputs[name]) for name in order]

    return run


def _position(name):
    """Sorts `output_10` behind `output_9`, and other names by letters."""
    stem, _, number = name.rpartition("_")
    is_numbered = stem == "output" and number.isdecimal()
    return (int(number), "") if is_numbered else (0, name)


def _litert_interpreter():
    """Returns TensorFlow's interpreter, which knows TensorFlow's operations.

    TensorFlow is going to give it up for the package of its own.
    """
    import tensorflow as tf

    if not hasattr(tf.lite, "Interpreter"):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter

    def make(model_path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is depr")
            return tf.lite.Interpreter(model_path)

    return make


def size_of(path: str) -> int:
    """Returns the bytes of a file, or of all files in a folder.

    Args:
        path: The file or folder.
    """
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )
