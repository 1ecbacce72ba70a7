"""Making a layer anew: what its config says, and what it does not."""

from collections.abc import Callable

import keras


def all_layers(operation: keras.Operation) -> list[keras.layers.Layer]:
    """Returns a layer and all layers in it; none for other operations.

    Args:
        operation: Of a model.
    """
    if isinstance(operation, keras.layers.Layer):
        return list(operation._flatten_layers())
    return []


def from_config(
    operation: keras.Operation, change: Callable = lambda config: config
) -> keras.Operation:
    """Returns a new operation like another, without the values of weights.

    Args:
        operation: Of a model.
        change: Takes the config and returns the one to use.

    Raises:
        ValueError: If it has state that is not in its config, as a lookup
            has. A config of others may lead to any other error.
    """
    if any(hasattr(part, "save_assets") for part in all_layers(operation)):
        raise ValueError("Its state is not in its config.")
    return type(operation).from_config(change(operation.get_config()))


def refresh(layer: keras.Operation):
    """Lets a layer see that its weights have got values.

    What `Normalization` uses is made from its weights.

    Args:
        layer: It may have others in it.
    """
    for part in all_layers(layer):
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()
