"""The configs of layers, also of those that Keras cannot tell them of."""

import inspect

import keras

# What Keras itself takes for a config of constructor arguments.
_PLAIN = (str, int, float, bool, type(None))


def config_of(operation: keras.Operation) -> dict:
    """Returns the config of a layer or another operation.

    Keras finds no config for a layer without `get_config` that was made with
    a dtype policy. It is then what the constructor takes by name, as far as
    the layer has plain values of these names. Whether that gives the same
    layer is for the caller to see, from its outputs.

    Args:
        operation: The layer or operation.

    Raises:
        NotImplementedError: If the layer does not have all of them. The config
            of a user's layer may raise any other error.
    """
    try:
        return operation.get_config()
    except NotImplementedError:
        if not isinstance(operation, keras.layers.Layer):
            raise
        own = _arguments(operation)
        if own is None:
            raise
    policy = keras.dtype_policies.serialize(operation.dtype_policy)
    common = {
        "name": operation.name,
        "trainable": operation.trainable,
        "dtype": policy,
    }
    return common | own


def has_own_config(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer can be saved as a part of a Functional model.

    Args:
        layer: The layer.
    """
    try:
        layer.get_config()
    except Exception:  # it is the user's
        return False
    return True


def has_config(layer: keras.layers.Layer) -> bool:
    """Returns whether a copy of a layer can be saved.

    Args:
        layer: The layer.
    """
    if has_own_config(layer):
        return True
    try:
        copy = type(layer).from_config(config_of(layer))
    except Exception:  # it is the user's
        return False
    return has_own_config(copy) and _arguments(copy) == _arguments(layer)


def _arguments(layer) -> dict | None:
    """Returns the arguments a layer was made with, `None` where not known."""
    taken = inspect.signature(type(layer).__init__).parameters.values()
    kinds = {p.kind for p in taken}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return None  # it has no place for the name and the dtype
    _, *named = [p for p in taken if p.kind != inspect.Parameter.VAR_KEYWORD]
    own = {p.name: getattr(layer, p.name, p) for p in named}
    return own if all(isinstance(v, _PLAIN) for v in own.values()) else None
