"""Builds the compiled network of a recipe and the callbacks that train it."""

import contextlib
import functools
from collections.abc import Callable
from typing import cast

import keras

from keras_sgl0 import models
from keras_sgl0.callbacks import (
    ADMM,
    CoupledGroups,
    L0Constraint,
    ProximalStep,
    SparsityMonitor,
    TargetDensity,
    VariableSplitting,
)
from keras_sgl0.callbacks.coupling import Weight
from keras_sgl0.experiments.datasets import Dataset
from keras_sgl0.experiments.penalties import make_penalty
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.factor_max import factor_max
from keras_sgl0.gates.adding import add_gates
from keras_sgl0.gates.expected_cost import Counted
from keras_sgl0.gates.hard_concrete import ExpectedL0, HardConcrete
from keras_sgl0.gates.lookup import gates
from keras_sgl0.models.metrics import error_rate
from keras_sgl0.network.sparsity import neuron_axes
from keras_sgl0.regularize import regularize
from keras_sgl0.regularizers import GroupLasso
from keras_sgl0.utils.validation import InputError, require

_JIT_COMPILE = {"auto": "auto", "on": True, "off": False}


def build(
    recipe: Recipe, dataset: Dataset, scale: float | None = None
) -> tuple[keras.Model, float]:
    """Returns the recipe's model, compiled.

    A penalty on kernels is on the model; one with coupled groups is a callback,
    see `callbacks_for`. Gates are in the model.

    Args:
        recipe: The settings.
        dataset: The data set, which gives the input shape, the number of
            classes and N.
        scale: The multiplier of the recipe's `factor`. Default: 1/N, or with
            `share_of_max` the value that makes the factor this share of
            `factor_max`.

    Returns:
        The model and the scale.

    Raises:
        ValueError: If the model cannot take the images, if a kernel of the
            model does not have the recipe's group axis, or if the recipe has
            the wrong number of values for the layers.

    Example:
        >>> model, scale = build(RECIPES["digits"], datasets.load("digits"))
    """
    gate = None
    if recipe.penalty == "l0_gates" and recipe.groups == "kernel":
        gate = _Gates(recipe, 1 / dataset.num_train)
    on_kernels = _has_penalty(recipe) and recipe.groups == "kernel"
    with _precision(recipe.precision):
        model = _network(recipe, dataset, gate)
        penalised = gate.layers if gate else []
        if on_kernels:
            penalised = model.prunable_layers
        if recipe.penalty == "l0_gates" and recipe.groups == "coupled":
            model = _with_coupled_gates(recipe, model, 1 / dataset.num_train)
            penalised = [own.name for own in gates(model)]
        for name in ("layer_factors", "droprate", "density"):
            _require_one_number_each(recipe, name, penalised)
        compile_classifier(
            model,
            _optimizer(recipe, dataset.steps_per_epoch(recipe.batch_size)),
            jit_compile=_JIT_COMPILE[recipe.jit_compile],
            steps_per_execution=recipe.steps_per_execution,
        )
        # TensorFlow traces a step that makes variables twice.
        model.optimizer.build(model.trainable_variables)
    neuron_axes(model, recipe.axis)  # raises if a kernel has no such axis
    if scale is None:
        scale = _scale(recipe, model, dataset)
    if on_kernels:
        _put_penalties(recipe, scale, model)
    return model, scale


def _network(recipe, dataset, gate):
    try:
        return models.BY_NAME[recipe.model](
            dataset.input_shape,
            dataset.num_classes,
            gate=gate,
            **recipe.model_settings,
        )
    except InputError as problem:
        raise InputError(
            f"{problem} (model {recipe.model!r} for {dataset})"
        ) from problem


def _has_penalty(recipe):
    return recipe.penalty not in ("none", "l0_gates")


def _with_coupled_gates(recipe, model, scale):
    """Returns the model with a gate on each structure."""
    one = "one number with groups='coupled'"
    require(len(recipe.droprate) == 1, "droprate", one, recipe.droprate)
    factor = 0.0 if recipe.density else recipe.factor * scale
    return add_gates(model, recipe.droprate[0], recipe.test_gate, factor)


def _put_penalties(recipe, scale, model):
    """Puts the recipe's penalty on each prunable layer, with its factor."""
    names = model.prunable_layers
    factors = (_of(recipe.layer_factors, place) for place in range(len(names)))

    # `regularize` asks once for each layer, in the order of `prunable_layers`.
    def penalty(depth):
        factor = recipe.factor * scale * next(factors)
        return make_penalty(recipe.penalty, factor, recipe.axis, depth)

    regularize(model, penalty, names)


def _require_one_number_each(recipe, name, layers):
    numbers = getattr(recipe, name)
    require(
        len(numbers) in (0, 1, len(layers)),
        name,
        f"one number, or one for each of the layers {layers}",
        numbers,
    )


def _of(numbers, place):
    """Returns the value for a layer; a single value is for all layers."""
    return numbers[min(place, len(numbers) - 1)]


def _scale(recipe, model, dataset):
    if not recipe.share_of_max:
        return 1 / dataset.num_train
    # `factor_max` looks at the kernels with a penalty; its factor is ignored.
    group_lasso = GroupLasso(1.0, recipe.axis)
    regularize(model, group_lasso, model.prunable_layers)
    most = factor_max(model, dataset.sample(1000))
    return recipe.share_of_max * most / recipe.factor


class _Gates:
    """Returns the gate of each layer in turn, when called by the network."""

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


def compile_classifier(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | str = "sgd",
    **settings,
) -> None:
    """Compiles a classifier with logits as outputs and integer labels.

    Args:
        model: The model to compile.
        optimizer: The optimizer.
        **settings: Other arguments of `keras.Model.compile`.
    """
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanMetricWrapper(error_rate, name="error")],
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


def batches_for(recipe: Recipe, dataset: Dataset) -> Callable:
    """Returns a function that gives the training batches from an epoch on.

    Args:
        recipe: The recipe.
        dataset: Its data set.
    """
    return functools.partial(
        dataset.train_batches,
        recipe.batch_size,
        recipe.epochs,
        recipe.seed,
        augment=recipe.augment,
    )


def callbacks_for(
    recipe: Recipe, scale: float
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that train the penalty and log the sparsity.

    Args:
        recipe: The settings.
        scale: The scale that `build` returned.
    """
    callbacks: list[keras.callbacks.Callback] = []
    if _has_penalty(recipe) and recipe.groups == "coupled":
        factor = recipe.factor * scale
        penalty = make_penalty(recipe.penalty, factor, recipe.axis)
        weight = cast(Weight, recipe.group_weight)
        callbacks.append(CoupledGroups(penalty, weight=weight))
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
        of: Counted = "macs" if recipe.density_of == "macs" else "parameters"
        rate = recipe.dual_learning_rate
        return L0Constraint(density, recipe.scope, rate, of=of)
    return TargetDensity(
        density, recipe.density_of, recipe.settle, round_to=recipe.round_to
    )
