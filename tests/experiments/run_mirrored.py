"""Checks that two devices train as one: `run_mirrored.py WAY`.

A program of its own: devices are set before TensorFlow starts, a failed
distributed step poisons its process, and TensorFlow shares the keys of
reductions among the strategies of a process, so models of two sizes need two.
"""

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf
from helpers import two_gated_layers, two_layers

import keras_sgl0 as ks

WAYS = {
    "step": lambda: ks.VariableSplitting(0.1, growth=2, every=2),
    "batch": lambda: ks.VariableSplitting(
        0.1, growth=2, every=2, refresh="batch"
    ),
    "admm": lambda: ks.ADMM(0.1, growth=2, every=2),
    "proximal": ks.ProximalStep,
    "density": lambda: ks.TargetDensity(0.2, settle=0.7),
    "gates": lambda: ks.L0Constraint(0.3, learning_rate=0.5),
    "coupled": lambda: ks.CoupledGroups(ks.GroupLasso(5e-3)),
}


def run(strategy, way):
    rng = np.random.default_rng(0)
    images, labels = rng.random((64, 12), "float32"), rng.integers(0, 3, 64)
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    name = "SGD" if way in ("proximal", "coupled") else "Adam"
    with scope:
        optimizer = getattr(keras.optimizers, name)(0.01)
        if way == "gates":
            model = two_gated_layers(optimizer)
        else:
            penalty = None if way == "coupled" else ks.SGL0(5e-3)
            model = two_layers(penalty, optimizer)
    callbacks = [WAYS[way](), ks.SparsityMonitor(1e-2)]
    if way == "coupled":
        target = ks.TargetDensity(0.5, of="macs", settle=0.7)
        callbacks[1:1] = [ks.ProximalStep(), target]
    history = model.fit(
        images,
        labels,
        batch_size=16,
        epochs=4,
        shuffle=False,
        verbose=0,
        validation_data=(images, labels),
        callbacks=callbacks,
    ).history
    v = [np.array(v) for v in getattr(callbacks[0], "v", {}).values()]
    return np.array(list(history.values())), [*model.get_weights(), *v]


def main(way):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
    )
    one = run(None, way)
    two = run(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), way)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)
    if way in ("proximal", "density", "coupled"):
        assert (two[1][0] == 0).any()
    print(way)


if __name__ == "__main__":
    main(sys.argv[1])
