"""Trains a shrinking and the whole network on two devices; run by a test."""

import json

import keras
import tensorflow as tf
from test_fit_shrinking import Kill, both, compiled, network

import keras_sgl0 as ks

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
keras.config.set_floatx("float64")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make():
    with strategy.scope():
        return compiled(network(), keras.optimizers.Adam(0.01, use_ema=True))


def callbacks():
    return [ks.CoupledGroups(ks.GroupLasso(1e-2)), Kill()]


small, history, worst = both(make, callbacks)
assert small.distribute_strategy is strategy
print(json.dumps({"cuts": history.cuts, "worst": worst}))
