"""Compresses a model of two devices: `run_mirrored_compress.py METHOD`.

A program of its own, as devices are set before TensorFlow starts.
"""

import contextlib
import sys

import keras
import networks
import numpy as np
import tensorflow as tf

import keras_sgl0 as ks


def run(strategy, method):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 12)).astype("float32")
    data = x, rng.integers(0, 3, 80)
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = networks.mlp()
        model.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy"
        )
    model.fit(*data, batch_size=40, epochs=2, shuffle=False, verbose=0)
    small, report = ks.compress(
        model,
        data,
        data,
        macs=0.5,
        epochs=2,
        batch_size=40,
        method=method,
        verbose=0,
    )
    assert report.macs_after <= 0.5 * report.macs
    return small.get_weights()


def main(method):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
    )
    one = run(None, method)
    two = run(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), method)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    print(method)


if __name__ == "__main__":
    main(sys.argv[1])
