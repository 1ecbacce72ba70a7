"""Which optimizer trains a variable of a model, and at which rate."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.compilation import optimizers

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
