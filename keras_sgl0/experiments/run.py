"""Trains a recipe, measures the result and writes the files of the run."""

import dataclasses
import time
import warnings
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks import ADMM
from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.building import (
    batches_for,
    build,
    callbacks_for,
    compile_classifier,
)
from keras_sgl0.experiments.devices import devices as devices_for
from keras_sgl0.experiments.progress import Progress
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.run_folder import (
    MODEL,
    SHRINKING,
    SHRUNK,
    Recorder,
    RunFolder,
)
from keras_sgl0.experiments.run_result import (
    GateReading,
    GatesResult,
    RunResult,
    Shrunk,
    Ungated,
)
from keras_sgl0.experiments.trackers import CallbackFactory
from keras_sgl0.experiments.versions import versions
from keras_sgl0.gates.folding import fold_gates
from keras_sgl0.gates.hard_concrete import TEST_GATES
from keras_sgl0.gates.lookup import gates
from keras_sgl0.gates.report import gate_report
from keras_sgl0.models.metrics import error_rate
from keras_sgl0.network.compilation import (
    require_strategy_can_train,
    scope_of,
)
from keras_sgl0.network.loans import retrace
from keras_sgl0.network.optimizers import give_to_original
from keras_sgl0.network.sparsity import (
    apply_threshold,
    sparsity_report,
)
from keras_sgl0.shrinking import fit_shrinking, shrink
from keras_sgl0.shrinking.backup import Backup
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import RunError, require

with name_extra():
    import tensorflow as tf

# What TensorFlow raises if a worker stops responding.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def run(
    recipe: Recipe,
    workdir: str,
    data_dir: str | None = None,
    download: bool = False,
    progress: bool = True,
    strategy: str = "none",
    callbacks: Iterable[CallbackFactory] = (),
) -> RunResult | None:
    """Trains a recipe and writes its files to `workdir`.

    `history.csv` gets one line per epoch. At the end `model.keras` (small
    weights are exactly zero), `shrunk.keras` (the zeros removed) and
    `result.json` are written. If the model cannot be shrunk, the result and a
    warning say why. Every file is written atomically. A run that was killed
    resumes after its last finished epoch and gives the same result as an
    uninterrupted one. A finished run is not trained again: its result is
    returned. If another process is training the run, on this machine or on
    another one that shares the folder, this one waits for it.

    With `ema`, errors are measured with the averaged weights and sparsities
    with the raw weights. The saved model has the averaged weights; entries
    pruned in the raw weights stay zero. It computes in float32, whatever the
    precision of the training.

    Args:
        recipe: The settings.
        workdir: The folder of this run, created if it does not exist. Several
            workers must share one folder; only the chief writes to it.
        data_dir: The folder of the data set, as for `datasets.load`.
        download: Whether to download a missing data set.
        progress: Whether to show a progress bar.
        strategy: The devices to train on, a name in `devices.STRATEGIES`.
            With several devices, the few images that cannot be split evenly
            are left out.
        callbacks: Functions that return a Keras callback, such as that of a
            tracker, for the recipe and the run's folder. One with a method
            `on_result` gets the `RunResult` of the run that it has seen.

    Returns:
        The content of `result.json`, or `None` on workers other than the
        chief.

    Raises:
        ValueError: If the folder cannot be written, belongs to another recipe
            or has a damaged checkpoint, if the data set is not available, or
            if the devices cannot train this recipe.
        RunError: If the loss is NaN or infinite, the disk is full or a worker
            was lost. The last finished epoch is kept.

    Example:
        >>> result = run(RECIPES["digits"], "runs/digits")
        >>> result.neuron_sparsity
    """
    folder = RunFolder(workdir)
    folder.require_same_recipe(recipe.to_dict())
    if (result := folder.result()) is not None:
        return result

    devices = devices_for(strategy)
    devices.require_whole_shares(recipe.batch_size)
    require(
        strategy != "multi_worker" or not recipe.shrink_every,
        "shrink_every",
        "0, as several workers cannot shrink a network together",
        recipe.shrink_every,
    )
    folder.writes = devices.is_chief
    dataset = datasets.load(recipe.dataset, data_dir, download)
    if recipe.validation:
        dataset = dataset.held_out(recipe.validation)
    if recipe.normalize:
        dataset = dataset.normalized()
    keras.utils.set_random_seed(recipe.seed)
    more = [make(recipe, folder.path) for make in callbacks if folder.writes]
    try:
        scale = _train(recipe, folder, dataset, devices, progress, more)
        if not devices.is_chief:
            return None
        # Another process may have finished the run while this one waited.
        if (result := folder.result()) is None:
            result = _finish(recipe, folder, dataset, scale)
            for callback in more:
                getattr(callback, "on_result", _ignore)(result)
        return result
    finally:
        folder.unlock()


def _ignore(result):
    """Stands in for `on_result` of callbacks without it."""


def _train(recipe, folder, dataset, devices, progress, more):
    """Trains the remaining epochs and returns the scale of the factor."""
    shared = dataset.divisible_by(devices.replicas)
    with devices.scope():
        model, scale = build(recipe, shared)
        devices.synchronize(model)
        require_strategy_can_train(model)
        folder.claim(recipe.to_dict())
        folder.lock()
        callbacks = callbacks_for(recipe, scale)
        stateful = [c for c in callbacks if isinstance(c, ADMM)]
        first_epoch = folder.load_checkpoint(model, stateful)
    if first_epoch == recipe.epochs:
        return scale
    backup = None
    if recipe.shrink_every:
        backup = folder.file(SHRINKING)
        first_epoch = Backup(backup).done or 0
    if progress and devices.is_chief:
        callbacks.append(Progress(first_epoch))
    # Callbacks that write to the logs come before those that read them.
    recorder = Recorder(folder, first_epoch, stateful, backup is None)
    callbacks += [_Facts(recipe), recorder, *more]
    batches = batches_for(recipe, shared)
    settings = {
        "steps_per_epoch": shared.steps_per_epoch(recipe.batch_size),
        "epochs": recipe.epochs,
        "initial_epoch": first_epoch,
        "shuffle": False,  # `train_batches` does it
        "validation_data": shared.test_batches(devices.whole_shares(1000)),
        "callbacks": callbacks,
        "verbose": 0,
    }
    try:
        with devices.fit_scope():
            if backup is None:
                model.fit(batches(first_epoch), **settings)
            else:
                _fit_shrinking(recipe, folder, model, batches, settings)
    except _LOST as problem:
        if devices.replicas == 1:
            raise
        raise RunError(
            "Another worker was lost, or the connection to it "
            f"({type(problem).__name__}). All finished epochs are kept. To "
            "resume, start the same command on all workers."
        ) from problem
    return scale


def _fit_shrinking(recipe, folder, model, batches, settings):
    """Trains on a network that shrinks; the checkpoint has it as a whole."""
    trained, history = fit_shrinking(
        model,
        batches,
        shrink_every=recipe.shrink_every,
        tolerance=recipe.tolerance,
        backup=folder.file(SHRINKING),
        **settings,
    )
    # As the last epoch left it: `fit` has put averages in the weights' place.
    with scope_of(model):
        Backup(folder.file(SHRINKING)).restore(trained)
        if history.transfer is not None:
            give_to_original(history.transfer)
    folder.save_checkpoint(model, recipe.epochs, [])


def _finish(recipe, folder, dataset, scale):
    """Measures the trained model and writes the model and the result."""
    test = dataset.test_batches()
    model, averaged = _trained(recipe, folder, dataset, scale)
    uncut = sparsity_report(model, 0.0, recipe.axis)
    weights = model.get_weights()
    model.set_weights(averaged)
    unthresholded = percent_wrong(model, test)
    model.set_weights(weights)
    gates_result = None
    if recipe.penalty == "l0_gates":
        model, gates_result = _folded(model, recipe, test)
    apply_threshold(model, recipe.tolerance, recipe.axis)
    report = sparsity_report(model, recipe.tolerance, recipe.axis)
    if recipe.ema:
        _average(model, averaged)
    thresholded = percent_wrong(model, test)
    result = RunResult(
        weight_sparsity=_percent(report.weight_sparsity),
        weight_sparsity_kernels=_percent(report.weight_sparsity_kernels),
        neuron_sparsity=_percent(report.neuron_sparsity),
        test_error=thresholded,
        weight_sparsity_unthresholded=_percent(uncut.weight_sparsity),
        neuron_sparsity_unthresholded=_percent(uncut.neuron_sparsity),
        test_error_unthresholded=unthresholded,
        best_test_error=_percent(min(folder.column("val_error"))),
        parameters=report.parameters,
        neurons_alive=list(report.neurons_alive),
        gates=gates_result,
        recipe=recipe.to_dict(),
        seed=recipe.seed,
        epochs=recipe.epochs,
        seconds=round(sum(folder.column("seconds")), 1),
        versions=versions(),
        report=report.to_dict(),
    )
    folder.write(MODEL, model.save)
    # The model is saved first: no failure to shrink it may lose the run.
    shrunk = _shrunk(model, folder, test)
    result = dataclasses.replace(result, shrunk=shrunk)
    folder.write_result(result)
    if shrunk.problem is not None:
        warnings.warn(
            f"The model was not shrunk. {shrunk.problem}",
            stacklevel=3,
        )
    return result


def _trained(recipe, folder, dataset, scale):
    """Returns the trained model on one device, and its averaged weights."""
    model, _ = build(recipe, dataset, scale)
    folder.load_checkpoint(model)
    weights = averaged = model.get_weights()
    if recipe.ema:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        averaged = model.get_weights()
    if recipe.precision != "float32":
        recipe = dataclasses.replace(recipe, precision="float32")
        model, _ = build(recipe, dataset, scale)
    model.set_weights(weights)
    return model, averaged


def _average(model, averaged):
    """Sets the averaged weights; zeros in the raw weights stay zero."""
    # Not of the kernels alone: a cut channel has no bias, gamma and beta.
    zeros = [(w, ops.equal(w, 0.0)) for w in model.trainable_variables]
    model.set_weights(averaged)
    for weight, zero in zeros:
        weight.assign(ops.where(zero, 0.0, ops.convert_to_tensor(weight)))


def percent_wrong(model: keras.Model, batches: tf.data.Dataset) -> float:
    """Returns the percentage of wrong labels.

    Args:
        model: A built classifier; it need not be compiled.
        batches: Batches of inputs and integer labels.
    """
    wrong = [
        ops.convert_to_numpy(error_rate(labels, model.predict_on_batch(images)))
        for images, labels in batches.as_numpy_iterator()
    ]
    return _percent(float(np.concatenate(wrong).mean(dtype="float64")))


def _shrunk(model, folder, test):
    """Shrinks the model, and saves and measures the smaller one.

    An error is not raised but put into the result, so that the result of a
    long training is always written.
    """
    try:
        small, report = shrink(model, tolerance=0)
        result = Shrunk(
            parameters=report.parameters,
            parameters_after=report.parameters_after,
            macs=report.macs,
            macs_after=report.macs_after,
            relative_difference=report.relative_difference,
            test_error=percent_wrong(small, test),
        )
        folder.write(SHRUNK, small.save)
    except Exception as problem:
        return Shrunk(problem=f"{type(problem).__name__}: {problem}")
    return result


def _folded(model, recipe, test):
    """Returns the model with its gates folded in, and the gates' result.

    The result has the open gates and the error with the median and with the
    mean of each gate. For comparison it also has sparsities that ignore gates.
    """
    ungated = sparsity_report(model, recipe.tolerance, recipe.axis)
    report = gate_report(model).to_dict()
    folded, readings = {}, {}
    for test_gate in TEST_GATES:
        for gate in gates(model):
            gate.test_gate = test_gate
        folded[test_gate] = fold_gates(model)
        compile_classifier(folded[test_gate])
        readings[test_gate] = GateReading(
            architecture=gate_report(model).architecture,
            test_error=percent_wrong(folded[test_gate], test),
        )
    result = GatesResult(
        **report,
        median=readings["median"],
        mean=readings["mean"],
        ungated=Ungated(
            weight_sparsity_kernels=_percent(ungated.weight_sparsity_kernels),
            neuron_sparsity=_percent(ungated.neuron_sparsity),
        ),
    )
    return folded[recipe.test_gate], result


class _Facts(keras.callbacks.Callback):
    """Adds the learning rate and the seconds of an epoch to the logs."""

    def __init__(self, recipe):
        super().__init__()
        self._recipe = recipe

    def on_train_begin(self, logs=None):
        # On several JAX devices Keras traces before all metrics exist.
        retrace(self.model)
        self.model.make_test_function(force=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self._recipe.learning_rate_at(epoch)
        logs["seconds"] = round(time.perf_counter() - self._start, 3)


def _percent(share):
    return round(100 * share, 6)
