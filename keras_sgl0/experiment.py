"""Running a recipe: the one place where everything meets."""

import contextlib
import dataclasses
import platform
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm.keras import TqdmCallback

import keras_sgl0
from keras_sgl0 import datasets, distribute
from keras_sgl0.callbacks import (
    ADMM,
    L0Constraint,
    ProximalStep,
    SparsityMonitor,
    TargetDensity,
    VariableSplitting,
)
from keras_sgl0.compilation import require_strategy_can_train, retrace
from keras_sgl0.factor import factor_max
from keras_sgl0.gates import fold_gates, gate_report, gates
from keras_sgl0.layers import ExpectedL0, HardConcrete
from keras_sgl0.recipes import MODELS, PENALTIES, TEST_GATES, Recipe
from keras_sgl0.regularization import regularize
from keras_sgl0.regularizers import CGES, GroupLasso
from keras_sgl0.run_folder import MODEL, SHRUNK, Recorder, RunFolder
from keras_sgl0.shrinking import shrink
from keras_sgl0.sparsity import (
    apply_threshold,
    kernels,
    neuron_axis,
    sparsity_report,
)
from keras_sgl0.validation import RunError, require

_JIT_COMPILE = {"auto": "auto", "on": True, "off": False}
# What TensorFlow raises where a worker does not answer any more.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


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
    recipe: Recipe, dataset: datasets.Dataset, scale: float | None = None
) -> tuple[keras.Model, float]:
    """Returns the recipe's model, compiled and with its penalty.

    Args:
        recipe: The settings.
        dataset: Gives the input's shape, the classes and N.
        scale: What to multiply the recipe's `factor` by. Default: 1/N, or
            what makes the factor the wanted share of `factor_max`.

    Returns:
        The model, and the scale.

    Raises:
        ValueError: If a kernel of the model has no such group axis.

    Example:
        >>> model, scale = build(RECIPES["digits"], datasets.load("digits"))
    """
    gate = None
    if recipe.penalty == "l0_gates":
        gate = _Gates(recipe, 1 / dataset.num_train)
    penalty = None if gate else PENALTIES[recipe.penalty]
    # It marks the kernels that the network means to have a penalty.
    mark = GroupLasso(1.0, recipe.axis) if penalty else None
    with _precision(recipe.precision):
        model = MODELS[recipe.model](
            dataset.input_shape,
            dataset.num_classes,
            mark,
            gate,
            **recipe.model_settings,
        )
        penalised = gate.layers if gate else []
        if penalty:
            penalised = [la.name for la in model.layers if _marked(la)]
        for name in ("layer_factors", "droprate", "density"):
            _require_one_number_each(recipe, name, penalised)
        _compile(
            model,
            _optimizer(recipe, dataset.steps_per_epoch(recipe.batch_size)),
            jit_compile=_JIT_COMPILE[recipe.jit_compile],
            steps_per_execution=recipe.steps_per_execution,
        )
    for kernel in kernels(model):
        neuron_axis(kernel, recipe.axis)  # raises if there is no such axis
    if scale is None:
        scale = _scale(recipe, model, dataset)
    if penalty:

        def of_layer(depth):
            place = round(depth * len(penalised))
            factor = recipe.factor * scale * _of(recipe.layer_factors, place)
            mu = {"mu": depth} if penalty is CGES else {}
            return penalty(factor, axis=recipe.axis, **mu)

        regularize(model, of_layer, _marked)
    return model, scale


def _require_one_number_each(recipe, name, layers):
    numbers = getattr(recipe, name)
    require(
        len(numbers) in (0, 1, len(layers)),
        name,
        f"one number, or one for each of the layers {layers}",
        numbers,
    )


def _of(numbers, place):
    """Returns the number of a layer; one stands for all of them."""
    return numbers[min(place, len(numbers) - 1)]


def _scale(recipe, model, dataset):
    if not recipe.share_of_max:
        return 1 / dataset.num_train
    most = factor_max(model, dataset.sample(1000))
    return recipe.share_of_max * most / recipe.factor


def _marked(layer):
    return isinstance(getattr(layer, "kernel_regularizer", None), GroupLasso)


class _Gates:
    """Makes the gates of a recipe's network, layer by layer."""

    def __init__(self, recipe, scale):
        self.recipe = recipe
        self.scale = scale
        self.layers = []

    def __call__(self, layer, group_size):
        recipe, place = self.recipe, len(self.layers)
        self.layers.append(layer)
        penalty = ExpectedL0(
            recipe.factor * self.scale * _of(recipe.layer_factors, place),
            group_size,
            recipe.weight_decay * self.scale,
        )
        return HardConcrete(
            _of(recipe.droprate, place),
            recipe.test_gate,
            regularizer=None if recipe.density else penalty,
            name=f"{layer}_gate",
        )


def _optimizer(recipe, steps_per_epoch):
    def make(learning_rate, momentum):
        average = {"use_ema": recipe.ema > 0, "ema_momentum": recipe.ema}
        if recipe.optimizer == "adam":
            return keras.optimizers.Adam(
                learning_rate, epsilon=recipe.epsilon, **average
            )
        return keras.optimizers.SGD(
            learning_rate, momentum, nesterov=momentum > 0, **average
        )

    optimizer = make(_learning_rate(recipe, steps_per_epoch), recipe.momentum)
    if not recipe.gate_learning_rate:
        return optimizer
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            optimizer, {".*/log_alpha": make(recipe.gate_learning_rate, 0.0)}
        )
    )


def _learning_rate(recipe, steps_per_epoch):
    rates = [recipe.learning_rate_at(epoch) for epoch in range(recipe.epochs)]
    drops = [e for e in range(1, recipe.epochs) if rates[e] != rates[e - 1]]
    if not drops:
        return rates[0]
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [epoch * steps_per_epoch - 1 for epoch in drops],
        [rates[0], *(rates[epoch] for epoch in drops)],
    )


def _compile(model, optimizer="sgd", **settings):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[error],
        **settings,
    )


@contextlib.contextmanager
def _precision(name):
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    try:
        keras.config.set_floatx("float64" if name == "float64" else "float32")
        keras.config.set_dtype_policy(name)
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def run(
    recipe: Recipe,
    workdir: str,
    data_dir: str | None = None,
    download: bool = False,
    progress: bool = True,
    strategy: str = "none",
) -> dict:
    """Trains a recipe and leaves its files in `workdir`.

    `history.csv` gets a line an epoch, and at the end `model.keras` (with
    exact zeros), `shrunk.keras` (without them) and `result.json` are written.
    If the model cannot be shrunk, the result and a warning say why. Every file
    is put in place whole. A run that was killed goes on from its last finished
    epoch and ends where the uninterrupted one ends; one that had finished
    returns its result.

    With `ema`, errors are those of the averaged weights, sparsities those of
    the weights themselves, and the model that is left has the averaged weights
    with the zeros of the others. It computes in float32, whatever the
    precision it was trained in.

    Args:
        recipe: The settings.
        workdir: A folder of this run's own, made if need be. Several workers
            need one that all of them see; the chief writes into it.
        data_dir: The folder of the data set, as `datasets.load` wants it.
        download: Whether a data set that is not there may be fetched.
        progress: Whether to show a progress bar.
        strategy: The devices to train on, as `distribute.devices` names them.
            Several devices leave out the few images that cannot be shared out
            evenly.

    Returns:
        What stands in `result.json`: sparsities and errors in percent. The
        other workers than the chief return an empty dict.

    Raises:
        ValueError: If the folder cannot be written, belongs to another recipe
            or holds a damaged checkpoint, if the data set cannot be had, or
            if the devices cannot train this recipe.
        RunError: If the loss is not finite any more, the disk is full or a
            worker was lost. The last finished epoch is kept.

    Example:
        >>> result = run(RECIPES["digits"], "runs/digits")
        >>> result["neuron_sparsity"]
    """
    folder = RunFolder(workdir)
    folder.require_same_recipe(recipe.to_dict())
    if (result := folder.result()) is not None:
        return result

    devices = distribute.devices(strategy)
    devices.require_whole_shares(recipe.batch_size)
    folder.writes = devices.is_chief
    dataset = datasets.load(recipe.dataset, data_dir, download)
    if recipe.validation:
        dataset = dataset.held_out(recipe.validation)
    if recipe.normalize:
        dataset = dataset.normalized()
    keras.utils.set_random_seed(recipe.seed)
    scale = _train(recipe, folder, dataset, devices, progress)
    if not devices.is_chief:
        return {}
    return _finish(recipe, folder, dataset, scale)


def _train(recipe, folder, dataset, devices, progress):
    """Trains what the checkpoint, if any, leaves to be trained."""
    shared = dataset.divisible_by(devices.replicas)
    with devices.scope():
        model, scale = build(recipe, shared)
        devices.synchronize(model)
        require_strategy_can_train(model)
        folder.claim(recipe.to_dict())
        callbacks = _callbacks(recipe, scale)
        stateful = [c for c in callbacks if isinstance(c, ADMM)]
        first_epoch = folder.load_checkpoint(model, stateful)
    if first_epoch == recipe.epochs:
        return scale
    if progress and devices.is_chief:
        callbacks.append(TqdmCallback(verbose=0))
    # Those that write into the logs come before those that read them.
    callbacks += [_Facts(recipe), Recorder(folder, first_epoch, stateful)]
    try:
        with devices.fit_scope():
            model.fit(
                shared.train_batches(
                    recipe.batch_size,
                    recipe.epochs,
                    recipe.seed,
                    first_epoch,
                    recipe.augment,
                ),
                steps_per_epoch=shared.steps_per_epoch(recipe.batch_size),
                epochs=recipe.epochs,
                initial_epoch=first_epoch,
                shuffle=False,  # `train_batches` does it
                validation_data=shared.test_batches(devices.whole_shares(1000)),
                callbacks=callbacks,
                verbose=0,
            )
    except _LOST as problem:
        if devices.replicas == 1:
            raise
        raise RunError(
            "Another worker was lost, or this one from the others "
            f"({type(problem).__name__}). All epochs but the current one are "
            "kept: start the same command on all workers to go on."
        ) from problem
    return scale


def _finish(recipe, folder, dataset, scale):
    """Measures the trained network and writes what a run leaves."""
    test = dataset.test_batches()
    model, averaged = _trained(recipe, folder, dataset, scale)
    weights = model.get_weights()
    model.set_weights(averaged)
    unthresholded = percent_wrong(model, test)
    model.set_weights(weights)
    gated = {}
    if recipe.penalty == "l0_gates":
        model, gated["gates"] = _folded(model, recipe, test)
    apply_threshold(model, recipe.tolerance, recipe.axis)
    report = sparsity_report(model, recipe.tolerance, recipe.axis)
    if recipe.ema:
        _average(model, averaged)
    thresholded = percent_wrong(model, test)
    result = {
        "weight_sparsity": _percent(report.weight_sparsity),
        "weight_sparsity_kernels": _percent(report.weight_sparsity_kernels),
        "neuron_sparsity": _percent(report.neuron_sparsity),
        "test_error": thresholded,
        "test_error_unthresholded": unthresholded,
        "best_test_error": _percent(min(folder.column("val_error"))),
        "parameters": report.parameters,
        "neurons_alive": list(report.neurons_alive),
        **gated,
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "seconds": round(sum(folder.column("seconds")), 1),
        "versions": versions(),
        "report": report.to_dict(),
    }
    folder.write(MODEL, model.save)
    result["shrunk"] = _shrunk(model, folder, test)
    folder.write_result(result)
    if "problem" in result["shrunk"]:
        warnings.warn(
            f"The model was not shrunk. {result['shrunk']['problem']}",
            stacklevel=3,
        )
    return result


def _trained(recipe, folder, dataset, scale):
    """Returns the trained model, on one device, and its averaged weights."""
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
    """Gives a model its averaged weights, but for the zeros of its kernels."""
    zeros = [(w, ops.equal(w, 0.0)) for w in kernels(model)]
    model.set_weights(averaged)
    for kernel, zero in zeros:
        kernel.assign(ops.where(zero, 0.0, ops.convert_to_tensor(kernel)))


def percent_wrong(model: keras.Model, batches: tf.data.Dataset) -> float:
    """Returns the percentage of wrong labels.

    Args:
        model: A built classifier; it need not be compiled.
        batches: Batches of inputs and integer labels.
    """
    wrong = [
        ops.convert_to_numpy(error(labels, model.predict_on_batch(images)))
        for images, labels in batches.as_numpy_iterator()
    ]
    return _percent(float(np.concatenate(wrong).mean(dtype="float64")))


def versions() -> dict:
    """Returns the versions that results may depend on."""
    return {
        "keras_sgl0": keras_sgl0.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _shrunk(model, folder, test):
    """Saves the model without its zeros and returns what that changed.

    The trained model is safe on disk by now, and whatever goes wrong here must
    not take the result along.
    """
    try:
        small, report = shrink(model, tolerance=0)
        result = {
            "parameters": report.parameters,
            "parameters_after": report.parameters_after,
            "macs": report.macs,
            "macs_after": report.macs_after,
            "relative_difference": report.relative_difference,
            "test_error": percent_wrong(small, test),
        }
        folder.write(SHRUNK, small.save)
    except Exception as problem:
        return {"problem": f"{type(problem).__name__}: {problem}"}
    return result


def _folded(model, recipe, test):
    """Returns the model without its gates, and what the gates leave.

    They are counted and tested in both readings of test time. Beside it stands
    what a count finds that overlooks them.
    """
    ungated = sparsity_report(model, recipe.tolerance, recipe.axis)
    result = gate_report(model).to_dict()
    folded = {}
    for test_gate in TEST_GATES:
        for gate in gates(model):
            gate.test_gate = test_gate
        folded[test_gate] = fold_gates(model)
        _compile(folded[test_gate])
        result[test_gate] = {
            "architecture": gate_report(model).architecture,
            "test_error": percent_wrong(folded[test_gate], test),
        }
    result["ungated"] = {
        "weight_sparsity_kernels": _percent(ungated.weight_sparsity_kernels),
        "neuron_sparsity": _percent(ungated.neuron_sparsity),
    }
    return folded[recipe.test_gate], result


class _Facts(keras.callbacks.Callback):
    """Puts an epoch's learning rate and its seconds into the logs."""

    def __init__(self, recipe):
        super().__init__()
        self._recipe = recipe

    def on_train_begin(self, logs=None):
        # On several JAX devices Keras traces before all metrics are there.
        retrace(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self._recipe.learning_rate_at(epoch)
        logs["seconds"] = round(time.perf_counter() - self._start, 3)


def _callbacks(recipe, scale):
    """Returns the callbacks that make a recipe."""
    callbacks = []
    schedule = (
        recipe.beta_ratio * recipe.factor * scale,
        recipe.growth,
        recipe.epochs_between_growths,
    )
    if recipe.training == "splitting":
        grows = _is_convolution if recipe.growing == "convolutions" else None
        callbacks.append(VariableSplitting(*schedule, recipe.refresh, grows))
    elif recipe.training == "admm":
        callbacks.append(ADMM(*schedule))
    elif recipe.training == "proximal":
        callbacks.append(ProximalStep())
    if recipe.density:
        callbacks.append(_target(recipe))
    if recipe.ema:
        callbacks.append(keras.callbacks.SwapEMAWeights())
    return [*callbacks, SparsityMonitor(recipe.tolerance, recipe.axis)]


def _is_convolution(kernel):
    return len(kernel.shape) > 2


def _target(recipe):
    one = len(recipe.density) == 1
    density = recipe.density[0] if one else recipe.density
    if recipe.penalty == "l0_gates":
        return L0Constraint(density, recipe.scope, recipe.dual_learning_rate)
    return TargetDensity(density, recipe.density_of, recipe.settle)


def _percent(share):
    return round(100 * share, 6)
