"""Which optimizer trains a variable of a model."""

import keras


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
