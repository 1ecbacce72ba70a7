"""Copies of layers: what their config says, and what it does not."""

from collections.abc import Callable

import keras


def all_layers(operation: keras.Operation) -> list[keras.layers.Layer]:
    """Returns a layer and all layers in it; none for other operations.

    Args:
        operation: A layer or another operation of a model.
    """
    if isinstance(operation, keras.layers.Layer):
        return list(operation._flatten_layers())
    return []


def from_config(
    operation: keras.Operation, change: Callable = lambda config: config
) -> keras.Operation:
    """Returns a copy of an operation, without the values of its weights.

    Args:
        operation: A layer or another operation of a model.
        change: Takes the config and returns the one to use.

    Raises:
        ValueError: If it has state outside its config, as `StringLookup` has.
            The config of a user's layer may raise any other error.
    """
    if any(hasattr(part, "save_assets") for part in all_layers(operation)):
        raise ValueError("Its state is not in its config.")
    return type(operation).from_config(change(operation.get_config()))


def refresh(layer: keras.Operation):
    """Updates what a layer computes from its weights once they are set.

    `Normalization` computes its mean and variance from them.

    Args:
        layer: A layer, which may have others in it.
    """
    for part in all_layers(layer):
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()
