"""Runs a small recipe under a strategy: `devices.py STRATEGY WORKDIR`.

A program of its own, since devices are set before TensorFlow starts, and a
failed distributed step poisons its process.
"""

import dataclasses
import os
import sys

import keras
import tensorflow as tf

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run import run
from keras_sgl0.utils.validation import InputError, RunError

# Batch normalization, augmentation and several drops; what every device would
# draw for itself is left out. In float64, since batch normalization enlarges
# the last digit's differences a thousandfold a step.
RECIPE = adapt(
    RECIPES["cifar10_wrn_16_1_sgl0"],
    dataset="digits",
    depth=10,
    width=0.25,
    dropout=0.0,
    augment="crop",
    factor=1.0,
    learning_rate=0.01,
    batch_size=40,
    epochs=4,
    precision="float64",
)
LOAD = datasets.load


def load_few(*arguments):
    """Returns so few images that the last batch of an epoch is not full."""
    dataset = LOAD(*arguments)
    train, test = (
        tuple(array[:number] for array in arrays)
        for arrays, number in ((dataset.train, 158), (dataset.test, 80))
    )
    return dataclasses.replace(dataset, train=train, test=test)


def main(strategy, workdir, *settings):
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    if strategy == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
        )
    names = iter(settings)
    changes = {
        name: eval(value) for name, value in zip(names, names, strict=True)
    }
    recipe = adapt(RECIPE, **changes)
    datasets.load = load_few
    try:
        result = run(recipe, workdir, progress=False, strategy=strategy)
    except (InputError, RunError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
    print("chief" if result else "worker")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(*sys.argv[1:])
