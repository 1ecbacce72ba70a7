"""The configs of layers, also of those that Keras cannot tell them of."""

import inspect

import keras

from keras_sgl0.network.layer_table import all_layers

# Whose classes and functions are found without being registered.
_KNOWN = ("keras", __name__.partition(".")[0])
# What a layer may have of these kinds in any attribute, and functions in these.
_KINDS = (
    keras.regularizers.Regularizer,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
)
_FUNCTIONS = ("activation", "recurrent_activation", "function")
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


def made_from(operation: keras.Operation, config: dict) -> keras.Operation:
    """Returns another layer or operation of the same class.

    Args:
        operation: The layer or operation. The classes and functions that it
            has need not be registered.
        config: What to make it from.

    Raises:
        Exception: Anything that the class of a user raises.
    """
    with keras.saving.custom_object_scope(foreign_parts(operation)):
        made = type(operation).from_config(config)
    # One that is named like one of Keras would come back as that one.
    pairs = zip(all_layers(operation), all_layers(made), strict=False)
    for part, copy in pairs:
        for name in _FUNCTIONS:
            function = getattr(part, name, None)
            if not _is_known(function) and hasattr(copy, name):
                setattr(copy, name, function)
    return made


def for_other_sizes(config: dict) -> dict:
    """Returns a config without initial values that are arrays.

    They fit a weight of one size only. Zeros take their place.

    Args:
        config: That of a layer, whose weights will be set.
    """
    arrays = {
        name: "zeros"
        for name, value in config.items()
        if name.endswith("_initializer")
        and isinstance(value, dict)
        and value.get("class_name") == "Constant"
        and not isinstance(value["config"]["value"], int | float)
    }
    return config | arrays


def foreign_parts(operation: keras.Operation) -> dict[str, object]:
    """Returns what an operation is made of that is not Keras's, by name.

    Those are classes of layers, regularizers, initializers and constraints,
    and functions.

    Args:
        operation: A layer, which may have others in it, or an operation.
    """
    found: dict[str, object] = {}
    for part in all_layers(operation) or [operation]:
        values = [v for v in vars(part).values() if isinstance(v, _KINDS)]
        for kind in map(type, [part, *values]):
            if not is_from_keras(kind):
                found[kind.__name__] = kind
        for name in _FUNCTIONS:
            function = getattr(part, name, None)
            if not _is_known(function):
                key = getattr(function, "__name__", type(function).__name__)
                found[key] = function
    return found


def is_from_keras(kind: type) -> bool:
    """Returns whether a class is of Keras or of this package.

    Args:
        kind: The class.
    """
    return kind.__module__.partition(".")[0] in _KNOWN


def class_names(kind: type) -> list[str]:
    """Returns the names of a class, that of its own module before others.

    `keras_hub.src.layers>Mine` names a class `Mine` in this package or module,
    or in one that is in it.

    Args:
        kind: The class.
    """
    modules = kind.__module__.split(".")
    ends = range(len(modules), 0, -1)
    return [f"{'.'.join(modules[:end])}>{kind.__name__}" for end in ends]


def _is_known(function) -> bool:
    # An activation that is a layer is one of the parts.
    return (
        function is None
        or isinstance(function, keras.layers.Layer)
        or any(function is own for own in vars(keras.activations).values())
    )


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
        copy = made_from(layer, config_of(layer))
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
