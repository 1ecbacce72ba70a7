"""Compiling what runs between training steps, on every backend."""

import contextlib
from collections.abc import Callable

import keras

from keras_sgl0.network.unfolding import functional
from keras_sgl0.utils.validation import InputError


def compiled(function: Callable) -> Callable:
    """Returns `function`, run as one compiled call where that is possible.

    The function may read and assign Keras variables. On TensorFlow it becomes
    a `tf.function`. On JAX, where a compiled call would freeze the variables
    it reads, and on PyTorch it runs as it is.

    Args:
        function: Takes and returns nothing but tensors.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager:
    """Returns the scope in which a model's variables have to be made.

    Args:
        model: A model, which may be under a `tf.distribute` strategy.
    """
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def optimizers(optimizer: keras.optimizers.Optimizer | None) -> list:
    """Returns an optimizer and those that it is made of.

    Args:
        optimizer: It may wrap one for loss scaling, or be of several; `None`
            for none.
    """
    if optimizer is None:
        return []
    inner = getattr(optimizer, "inner_optimizer", None)
    several = getattr(optimizer, "optimizers", ())
    return [
        optimizer,
        *(o for part in several for o in optimizers(part)),
        *(optimizers(inner) if inner else ()),
    ]


def require_no_accumulation(
    optimizer: keras.optimizers.Optimizer, callback: str, why: str
):
    """Raises where an optimizer accumulates gradients over batches.

    Args:
        optimizer: It may wrap one for loss scaling, or be of several.
        callback: The name of the callback that cannot work then.
        why: The reason.

    Raises:
        ValueError: If it does.
    """
    for one in optimizers(optimizer):
        accumulated = one.gradient_accumulation_steps
        if accumulated:
            raise InputError(
                f"`{callback}` cannot be used with an optimizer that "
                f"accumulates gradients, since {why} at every batch. Received: "
                f"gradient_accumulation_steps={accumulated}"
            )


def require_strategy_can_train(model: keras.Model):
    """Raises where Keras itself fails to train under a strategy.

    It would fail in the first step, and leave the process unfit for others.

    Args:
        model: A compiled model, which may be under a `tf.distribute` strategy.

    Raises:
        ValueError: If several devices share its batches and it was compiled
            with several steps a call, with XLA, or to accumulate gradients.
    """
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return
    accumulated = max(
        o.gradient_accumulation_steps or 1 for o in optimizers(model.optimizer)
    )
    for name, received, would_do in (
        ("steps_per_execution", model.steps_per_execution, 1),
        ("jit_compile", bool(model.jit_compile), False),
        ("gradient_accumulation_steps", accumulated, 1),
    ):
        if received != would_do:
            raise InputError(
                f"Keras cannot train with `{name}` under a tf.distribute "
                f"strategy of several devices. Expected {would_do}. Received: "
                f"{name}={received}"
            )


def compile_like(
    model: keras.Model,
    original: keras.Model,
    optimizer: keras.optimizers.Optimizer,
):
    """Compiles a model as another one is, with an optimizer of its own.

    Losses and metrics are those of the other one: the very objects, so that
    nothing need be registered.

    Args:
        model: The model to compile.
        original: A compiled model.
        optimizer: The optimizer of the model.
    """
    # Private: `get_compile_config()` has them serialized, which fails for
    # what a user did not register.
    config = original._compile_config.config
    model.compile(**{**config, "optimizer": optimizer})


def losses_of_outputs(model: keras.Model) -> list:
    """Returns the compiled loss of each output of a model, in order.

    Args:
        model: A compiled Functional or Sequential model.
    """
    names = functional(model).output_names
    loss = model._compile_config.config["loss"]
    if isinstance(loss, dict):
        output = functional(model).output
        keys = output if isinstance(output, dict) else names
        return [loss.get(key) for key in keys]
    if isinstance(loss, (list, tuple)):
        return list(keras.tree.flatten(loss))
    return [loss] * len(names)


def is_higher_better(model: keras.Model, metric: str) -> bool | None:
    """Returns whether a metric should be high, `None` where Keras cannot tell.

    Args:
        model: A compiled model that was evaluated once.
        metric: The name of a loss or metric, as `evaluate` has it.
    """
    if metric == "loss" or metric.endswith("_loss"):
        return False
    for group in model.metrics:
        for one in getattr(group, "metrics", [group]):
            # With several outputs, the output's name comes first.
            if metric == one.name or metric.endswith(f"_{one.name}"):
                direction = getattr(one, "_direction", None)
                return None if direction is None else direction == "up"
    return None
