"""What `import keras_sgl0` brings along."""

import subprocess
import sys

import keras

from keras_sgl0.models.metrics import error_rate

PROGRAM = """
import sys
import keras
before = set(sys.modules)
import keras_sgl0
print(*set(sys.modules) - before)
"""


def test_nothing_heavy_is_imported_with_the_package():
    """It takes 60 ms after Keras, all its own (docs/run_times.md)."""
    command = [sys.executable, "-c", PROGRAM]
    added = subprocess.check_output(command, text=True).split()
    packages = {name.partition(".")[0] for name in added}
    assert packages - sys.stdlib_module_names == {"keras_sgl0"}
    laboratory = "keras_sgl0.experiments"
    assert not [name for name in added if name.startswith(laboratory)]


LOAD = """
import sys
import numpy
import keras
import keras_sgl0
model, x = keras.saving.load_model(sys.argv[1]), numpy.zeros((1, 2))
print(sorted(model.evaluate(x, x[:, 0], verbose=0, return_dict=True)))
assert "keras_sgl0.experiments" not in sys.modules
"""


def test_a_model_of_a_run_is_loaded_with_the_package_alone(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    error = keras.metrics.MeanMetricWrapper(error_rate, name="error")
    model.compile(loss="sparse_categorical_crossentropy", metrics=[error])
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")]
    found = subprocess.check_output(command, text=True)
    assert found.split()[-2:] == ["['error',", "'loss']"]
