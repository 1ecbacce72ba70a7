"""The library in an environment without TensorFlow.

Where TensorFlow is installed, a process is started in which importing it
fails as if it were not.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax")

WITHOUT = """
import sys

for name in ("tensorflow", "tensorflow_datasets", "sklearn", "tqdm"):
    sys.modules[name] = None
"""


def run(program):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )


FIRST_EXAMPLE = """
import keras
import numpy as np
import keras_sgl0 as ks

factor = 0.1 / 60000
model = ks.models.LeNet5Caffe(kernel_regularizer=ks.SGL0(factor, axis="auto"))
model.compile(
    "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
rng = np.random.default_rng(0)
model.fit(
    rng.random((200, 28, 28, 1), "float32"),
    rng.integers(0, 10, 200),
    batch_size=100,
    epochs=2,
    callbacks=[
        ks.VariableSplitting(beta=25 * factor, growth=1.25, every=1),
        ks.SparsityMonitor(),
    ],
    verbose=0,
)
small, report = ks.shrink(ks.apply_threshold(model, 0.05))
assert small.count_params() == report.parameters_after < report.parameters
print(ks.sparsity_report(small))
"""


def test_the_first_example_of_the_readme_runs_on_jax():
    done = run(FIRST_EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert "weight sparsity" in done.stdout


RESULTS = ["results", "result_tables", "sweep_report"]
IMPORTS = f"""
import importlib
import pkgutil

import keras_sgl0

for m in pkgutil.walk_packages(keras_sgl0.__path__, "keras_sgl0."):
    if not m.name.startswith("keras_sgl0.experiments"):
        importlib.import_module(m.name)
print("library")
for name in {RESULTS}:
    importlib.import_module("keras_sgl0.experiments." + name)
    print(name)
keras_sgl0.datasets
"""


@pytest.fixture(scope="module")
def imports():
    """One process for all imports: what fails in one fails in all."""
    return run(IMPORTS)


def test_every_module_of_the_library_imports(imports):
    assert "library" in imports.stdout.split(), imports.stderr


def test_what_needs_tensorflow_names_the_extra(imports):
    assert imports.returncode == 1
    last = imports.stderr.strip().split("\n")[-1]
    assert "pip install 'keras_sgl0[experiments]'" in last


@pytest.mark.parametrize("module", RESULTS)
def test_reading_results_needs_no_tensorflow(imports, module):
    assert module in imports.stdout.split(), imports.stderr
