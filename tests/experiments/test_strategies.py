import subprocess
import sys

import pytest

pytestmark = pytest.mark.tensorflow

# A process of its own: devices are set before TensorFlow starts, and a failed
# distributed step poisons its process.
MIRRORED = """
import contextlib
import sys

import numpy as np
import tensorflow as tf

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
)
sys.path.insert(0, sys.argv[1])
import keras
import keras_sgl0 as ks
from helpers import two_gated_layers, two_layers

rng = np.random.default_rng(0)
images, labels = rng.random((64, 12), "float32"), rng.integers(0, 3, 64)


WAYS = {
    "step": lambda: ks.VariableSplitting(0.1, growth=2, every=2),
    "batch": lambda: ks.VariableSplitting(
        0.1, growth=2, every=2, refresh="batch"
    ),
    "admm": lambda: ks.ADMM(0.1, growth=2, every=2),
    "proximal": ks.ProximalStep,
    "density": lambda: ks.TargetDensity(0.2, settle=0.7),
    "gates": lambda: ks.L0Constraint(0.3, learning_rate=0.5),
}


def run(strategy, way):
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    name = "SGD" if way == "proximal" else "Adam"
    with scope:
        optimizer = getattr(keras.optimizers, name)(0.01)
        if way == "gates":
            model = two_gated_layers(optimizer)
        else:
            model = two_layers(ks.SGL0(5e-3), optimizer)
    callbacks = [WAYS[way](), ks.SparsityMonitor(1e-2)]
    history = model.fit(
        images, labels, batch_size=16, epochs=4, shuffle=False, verbose=0,
        validation_data=(images, labels), callbacks=callbacks,
    ).history
    v = [np.array(v) for v in getattr(callbacks[0], "v", {}).values()]
    return np.array(list(history.values())), [*model.get_weights(), *v]


for way in sys.argv[2:]:
    one = run(None, way)
    two = run(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), way)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5, err_msg=way)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6, err_msg=way)
    if way in ("proximal", "density"):
        assert (two[1][0] == 0).any()
    print(way)
"""


# TensorFlow shares the keys of reductions among the strategies of a process,
# so models of two sizes need two.
@pytest.mark.parametrize(
    "ways",
    [["step", "batch", "admm", "proximal", "density"], ["gates"]],
    ids=" ".join,
)
def test_two_mirrored_devices_train_as_one(request, ways):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(request.path.parents[1]), *ways],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ways, done.stderr[-2000:]
