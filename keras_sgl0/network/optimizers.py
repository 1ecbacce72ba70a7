"""Which optimizer trains a variable of a model, and at which rate."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.compilation import optimizers
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.utils.validation import require

# At how many steps a schedule is looked at for its largest value.
_LOOKS = 200


def optimizer_of(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that trains a variable.

    Args:
        optimizer: It may wrap one for loss scaling, or be of several.
        variable: A trainable variable.
    """
    if inner := getattr(optimizer, "inner_optimizer", None):
        return optimizer_of(inner, variable)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        # Private: there is no public way from a variable to its optimizer.
        return optimizer_of(optimizer._optimizer_map(variable), variable)
    return optimizer


def peak_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the largest learning rate of an optimizer so far.

    Args:
        optimizer: With a schedule, its largest value up to the present step,
            at least over the first thousand; or else its learning rate.
    """
    inner = optimizers(optimizer)[-1]
    schedule = inner._learning_rate  # private: the public one is its value
    if not callable(schedule):
        return float(ops.convert_to_numpy(inner.learning_rate))
    last = max(int(ops.convert_to_numpy(inner.iterations)), 1000)
    steps = np.linspace(0, last, _LOOKS).astype(int)
    values = [float(ops.convert_to_numpy(schedule(i))) for i in steps.tolist()]
    return max(values)


def renewed(
    optimizer: keras.optimizers.Optimizer,
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer like one, at step zero.

    Args:
        optimizer: The optimizer.
    """
    return type(optimizer).from_config(optimizer.get_config())


def moved(
    optimizer: keras.optimizers.Optimizer, transfer: Transfer
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a smaller model, with what is left of its state.

    Args:
        optimizer: A built optimizer of the original model.
        transfer: From the original model to the smaller one.
    """
    new = renewed(optimizer)
    new.build(transfer.model.trainable_variables)
    for variable, before, after in _pairs(optimizer, new, transfer):
        value = ops.convert_to_numpy(before)
        if variable is not None:
            value = transfer.take(variable, value)
        after.assign(value)
    return new


def give_to_original(transfer: Transfer):
    """Sets an original model, and its optimizer, to what a smaller one has.

    What was cut is zero.

    Args:
        transfer: From the original model to the smaller one, both compiled.
    """
    for one in transfer.kept:
        one.variable.assign(transfer.spread(one.variable, one.smaller))
    optimizer = transfer.original.optimizer
    pairs = _pairs(optimizer, transfer.model.optimizer, transfer)
    for variable, before, after in pairs:
        value = ops.convert_to_numpy(after)
        if variable is not None:
            value = transfer.spread(variable, value)
        before.assign(value)


def require_movable(model: keras.Model):
    """Raises where the state of an optimizer cannot follow a smaller model.

    Args:
        model: A compiled model. Its optimizer is built if it is not.

    Raises:
        ValueError: If so.
    """
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    several = any(
        isinstance(o, keras.optimizers.MultiOptimizer)
        for o in optimizers(optimizer)
    )
    strange = several or any(
        variable is None and len(slot.shape)
        for variable, slot in _build(
            renewed(optimizer), model.trainable_variables
        )
    )
    require(
        not strange,
        "model",
        "one with an optimizer whose state is, for each variable, of the "
        "variable's shape, unlike that of `Adafactor` and `MultiOptimizer`",
        type(optimizer).__name__,
    )


def _pairs(optimizer, smaller, transfer):
    """Yields the state of two optimizers, each with the variable of its own.

    The variable is one of the original model, `None` for what is of none.
    """
    slots: dict[int | None, list] = {}
    for owner, slot in _owned(smaller):
        key = None if owner is None else id(owner)
        slots.setdefault(key, []).append(slot)
    for owner, slot in _owned(optimizer):
        # The smaller model has nothing that no output needs.
        if owner is not None and not transfer.has(owner):
            continue
        key = None if owner is None else id(transfer.of(owner))
        yield owner, slot, slots[key].pop(0)


def _owned(optimizer):
    """Returns the variables of an optimizer, each with whose slot it is."""
    # Another one tells: Keras does not keep of which variable a slot is.
    twins = _build(renewed(optimizer), optimizer._trainable_variables)
    pairs = zip(twins, optimizer.variables, strict=True)
    return [(owner, slot) for (owner, _), slot in pairs]


def _build(optimizer, variables) -> list[tuple]:
    """Builds an optimizer; returns its variables, each with whose slot it is.

    It is `None` for what is of no variable.
    """
    owners: dict[int, keras.Variable] = {}

    def watch(one):
        add = one.add_variable_from_reference

        def add_and_note(reference_variable, *args, **kwargs):
            slot = add(reference_variable, *args, **kwargs)
            owners[id(slot)] = reference_variable
            return slot

        one.add_variable_from_reference = add_and_note

    several = optimizers(optimizer)
    for one in several:
        watch(one)
    optimizer.build(variables)
    for one in several:
        del one.add_variable_from_reference
    return [(owners.get(id(slot)), slot) for slot in optimizer.variables]
