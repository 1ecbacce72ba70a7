"""Running a recipe: the one place where everything meets."""

import csv
import json
import os
import platform
import time
import zipfile

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm.keras import TqdmCallback

import keras_sgl0
from keras_sgl0 import datasets
from keras_sgl0.callbacks import (
    ADMM,
    ProximalStep,
    SparsityMonitor,
    VariableSplitting,
)
from keras_sgl0.factor import factor_max
from keras_sgl0.recipes import MODELS, PENALTIES, Recipe
from keras_sgl0.regularization import regularize
from keras_sgl0.regularizers import CGES, GroupLasso
from keras_sgl0.sparsity import (
    apply_threshold,
    kernels,
    neuron_axis,
    sparsity_report,
)
from keras_sgl0.validation import InputError

RECIPE, CHECKPOINT = "recipe.json", "checkpoint.keras"
HISTORY, MODEL, RESULT = "history.csv", "model.keras", "result.json"


@keras.saving.register_keras_serializable("keras_sgl0")
def error(y_true, y_pred):
    """Returns 1 where the largest output is not the label's, else 0.

    Args:
        y_true: Integer labels `(batch,)` or `(batch, 1)`.
        y_pred: Outputs `(batch, classes)`.
    """
    labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
    wrong = ops.not_equal(ops.argmax(y_pred, axis=-1), labels)
    return ops.cast(wrong, "float32")


def build(
    recipe: Recipe, dataset: datasets.Dataset
) -> tuple[keras.Model, float]:
    """Returns the recipe's model, compiled and with its penalty.

    Args:
        recipe: The settings.
        dataset: Gives the input's shape, the classes and N.

    Returns:
        The model, and what the recipe's `factor` and `beta` were multiplied
        by: 1/N, or what makes the factor the wanted share of `factor_max`.

    Raises:
        ValueError: If a kernel of the model has no such group axis.

    Example:
        >>> model, scale = build(RECIPES["digits"], datasets.load("digits"))
    """
    model = MODELS[recipe.model](dataset.input_shape, dataset.num_classes)
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(
            recipe.learning_rate, epsilon=recipe.epsilon
        )
    else:
        optimizer = keras.optimizers.SGD(
            recipe.learning_rate, recipe.momentum, nesterov=recipe.momentum > 0
        )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[error],
    )
    for kernel in kernels(model):
        neuron_axis(kernel, recipe.axis)  # raises if there is no such axis
    scale = 1 / dataset.num_train
    if recipe.share_of_max:
        regularize(model, GroupLasso(1.0, recipe.axis))
        most = factor_max(model, dataset.sample(1000))
        scale = recipe.share_of_max * most / recipe.factor
    penalty, factor = PENALTIES[recipe.penalty], recipe.factor * scale
    if penalty is CGES:
        regularize(model, lambda depth: CGES(factor, depth, recipe.axis))
    elif penalty is not None:
        regularize(model, penalty(factor, axis=recipe.axis))
    return model, scale


def run(
    recipe: Recipe,
    workdir: str,
    data_dir: str | None = None,
    download: bool = False,
    progress: bool = True,
) -> dict:
    """Trains a recipe and leaves its files in `workdir`.

    `history.csv` gets a line an epoch, and at the end `model.keras` (with
    exact zeros) and `result.json` are written. Every file but `history.csv`
    is put in place whole. A run that was killed goes on from its last finished
    epoch and ends where the uninterrupted one ends; one that had finished
    returns its result.

    Args:
        recipe: The settings.
        workdir: A folder of this run's own, made if need be.
        data_dir: The tensorflow-datasets folder.
        download: Whether a data set that is not there may be fetched.
        progress: Whether to show a progress bar.

    Returns:
        What stands in `result.json`: sparsities and errors in percent.

    Raises:
        ValueError: If the folder cannot be written, belongs to another recipe
            or holds a damaged checkpoint, or if the data set cannot be had.

    Example:
        >>> result = run(RECIPES["digits"], "runs/digits")
        >>> result["neuron_sparsity"]
    """
    path = {
        name: os.path.join(os.path.expanduser(workdir), name)
        for name in (RECIPE, CHECKPOINT, HISTORY, MODEL, RESULT)
    }
    _require_same_recipe(path[RECIPE], recipe)
    if os.path.exists(path[MODEL]) and os.path.exists(path[RESULT]):
        return _read_json(path[RESULT])

    dataset = datasets.load(recipe.dataset, data_dir, download)
    keras.utils.set_random_seed(recipe.seed)
    model, scale = build(recipe, dataset)
    _claim(path[RECIPE], recipe)
    steps = dataset.steps_per_epoch(recipe.batch_size)
    first_epoch = _restore(model, path[CHECKPOINT], steps)
    _trim(path[HISTORY], first_epoch)
    test = dataset.test_batches()
    model.fit(
        dataset.train_batches(
            recipe.batch_size, recipe.epochs, recipe.seed, first_epoch
        ),
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        initial_epoch=first_epoch,
        shuffle=False,  # `train_batches` does it
        validation_data=test,
        callbacks=_callbacks(recipe, scale, path, progress),
        verbose=0,
    )

    unthresholded = model.evaluate(test, verbose=0, return_dict=True)["error"]
    apply_threshold(model, recipe.tolerance, recipe.axis)
    report = sparsity_report(model, recipe.tolerance, recipe.axis)
    thresholded = model.evaluate(test, verbose=0, return_dict=True)["error"]
    result = {
        "weight_sparsity": _percent(report.weight_sparsity),
        "weight_sparsity_kernels": _percent(report.weight_sparsity_kernels),
        "neuron_sparsity": _percent(report.neuron_sparsity),
        "test_error": _percent(thresholded),
        "test_error_unthresholded": _percent(unthresholded),
        "parameters": report.parameters,
        "neurons_alive": list(report.neurons_alive),
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "seconds": round(_seconds(path[HISTORY]), 1),
        "versions": {
            "keras_sgl0": keras_sgl0.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "report": report.to_dict(),
    }
    _write_whole(path[MODEL], model.save)
    _write_json(path[RESULT], result)
    return result


class _Stopwatch(keras.callbacks.Callback):
    """Puts the seconds an epoch took into the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = round(time.perf_counter() - self._start, 3)


class _Checkpoint(keras.callbacks.Callback):
    """Keeps the weights and the optimizer of the last finished epoch.

    Keras's own `BackupAndRestore` keeps the epoch in a second file and writes
    both in place, so a kill between or within the two loses the run. Here the
    epoch follows from the optimizer's iterations and one file is replaced
    whole; being a zip, it notices when it was damaged.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        _write_whole(self.path, self.model.save)


def _callbacks(recipe, scale, path, progress):
    # Those that write into the logs come before those that read them.
    scheduler = keras.callbacks.LearningRateScheduler(
        lambda epoch, _: recipe.learning_rate_at(epoch)
    )
    callbacks = [scheduler]
    schedule = (
        recipe.beta * scale,
        recipe.growth,
        recipe.epochs_between_growths,
    )
    if recipe.training == "splitting":
        callbacks.append(VariableSplitting(*schedule, recipe.refresh))
    elif recipe.training == "admm":
        callbacks.append(ADMM(*schedule))
    elif recipe.training == "proximal":
        callbacks.append(ProximalStep())
    callbacks.append(SparsityMonitor(recipe.tolerance, recipe.axis))
    if progress:
        callbacks.append(TqdmCallback(verbose=0))
    return [
        *callbacks,
        _Stopwatch(),
        keras.callbacks.CSVLogger(path[HISTORY], append=True),
        _Checkpoint(path[CHECKPOINT]),
    ]


def _require_same_recipe(path, recipe):
    """Raises if the folder belongs to another recipe."""
    if not os.path.exists(path):
        return
    there, here = _read_json(path), recipe.to_dict()
    different = {
        name: (there.get(name), here.get(name))
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    }
    if different:
        raise InputError(
            "Invalid value for argument `workdir`. Expected a new folder or "
            "one of the same recipe. Received: workdir="
            f"{os.path.dirname(path)!r}, where these settings are different "
            f"(there, here): {different}"
        )


def _claim(path, recipe):
    """Makes the folder this recipe's."""
    workdir = os.path.dirname(path)
    try:
        os.makedirs(workdir, exist_ok=True)
        _write_json(path, recipe.to_dict())
    except OSError as problem:
        raise InputError(
            "Invalid value for argument `workdir`. Expected a folder that can "
            f"be written. Received: workdir={workdir!r} ({problem})"
        ) from problem


def _restore(model, path, steps_per_epoch):
    """Loads the checkpoint, if any, and returns the epochs it had finished."""
    if not os.path.exists(path):
        return 0
    model.optimizer.build(model.trainable_variables)
    damages = (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile)
    try:
        model.load_weights(path)
        iterations = int(ops.convert_to_numpy(model.optimizer.iterations))
        epochs, rest = divmod(iterations, steps_per_epoch)
        if rest or not epochs:
            raise ValueError(f"{iterations} steps make no whole epochs")
    except damages as problem:
        raise _unreadable("checkpoint", path, problem) from problem
    return epochs


def _unreadable(kind, path, problem):
    return InputError(
        f"The {kind} {path} cannot be read ({problem}). To start this run "
        f"afresh, remove the folder {os.path.dirname(path)}."
    )


def _trim(path, epochs):
    """Drops the lines of epochs that were logged but not checkpointed."""
    if os.path.exists(path):
        with open(path) as file:
            lines = file.readlines()[: epochs + 1]
        _write_text(path, "".join(lines))


def _seconds(path):
    with open(path, newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def _percent(share):
    return round(100 * share, 6)


def _read_json(path):
    try:
        with open(path) as file:
            content = json.load(file)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except ValueError as problem:
        raise _unreadable("file", path, problem) from problem
    return content


def _write_json(path, content):
    _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_text(path, text):
    def write(new_path):
        with open(new_path, "w") as file:
            file.write(text)

    _write_whole(path, write)


def _write_whole(path, write):
    """Lets `write(path)` write a new file, then puts it in place at once."""
    folder, name = os.path.split(path)
    new_path = os.path.join(folder, f"new.{name}")
    write(new_path)
    os.replace(new_path, path)
