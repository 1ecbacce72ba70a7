"""What keeps a call on symbolic tensors from leaving anything behind."""

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

from keras_sgl0.network.layer_table import all_layers

# The base of `Add` and the like, whose `build` looks at shapes alone.
_MERGE = keras.layers.Add.__mro__[1]
# What every layer has, besides what its class gives it.
_COMMON = set(vars(keras.layers.Layer(name="any")))


class NotTraced(Exception):  # noqa: N818
    """A layer whose calls cannot be told.

    Args:
        reason: Why not.
    """


class CallFailed(NotTraced):
    """A layer whose `call` raises an error on symbolic tensors.

    Args:
        reason: The error.
    """


@contextlib.contextmanager
def uncounted_names() -> Iterator[None]:
    """Lets what is made inside have the names of the first of its kind.

    Those that are made afterwards have the names they would have anyway.
    """
    with _global("object_name_uids", None):
        yield


class Watch(keras.StatelessScope):
    """Sees which variables are read or set outside of a recorded call."""

    def __init__(self):
        super().__init__(initialize_variables=False)
        self.touched: list[keras.Variable] = []

    @property
    def is_innermost(self) -> bool:
        """Whether no shape is being found by a call of its own inside it."""
        return global_state.get_global_attribute("stateless_scope") is self

    def get_current_value(self, variable):
        """Remembers a variable that is read; it has the value it has.

        Args:
            variable: The variable.
        """
        self.touched.append(variable)

    def add_update(self, update):
        """Remembers a variable that is set, and does not set it.

        Args:
            update: The variable and its value.
        """
        self.touched.append(update[0])


@contextlib.contextmanager
def _global(name, value):
    """Sets a part of Keras's global state for a while."""
    before = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, value)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, before)


@contextlib.contextmanager
def in_mode(training: bool) -> Iterator[None]:
    """Has layers called as if in the call of a model in a mode.

    Args:
        training: The mode.
    """
    with _global("current_call_ctx", None):
        # It belongs to a layer of no account: those of the outermost layer are
        # cleared of their losses.
        context = keras.layers.Layer(name="outer")._get_call_context()
        context.set_value("training", training)
        yield


@contextlib.contextmanager
def unchanged(layer: keras.Operation) -> Iterator[list[str]]:
    """Undoes what a call changes in a layer and those in it.

    Yields a list, and then puts the attributes of the layer into it that the
    call has changed.

    Args:
        layer: The layer, which may have others in it, or another operation.
    """
    layers = all_layers(layer)
    before = [dict(vars(part)) for part in layers]
    nodes = [
        (own, len(own))
        for part in layers
        for own in (part._inbound_nodes, part._outbound_nodes)
    ]
    containers = [
        (name, own, len(own))
        for name, own in vars(layer).items()
        if isinstance(own, list | dict | set) and name not in _COMMON
    ]
    changed: list[str] = []
    for part in layers:
        if not part.built and _makes_weights(part):
            object.__setattr__(part, "build", _refuse_to_build)
    try:
        yield changed
    finally:
        for own, number in nodes:
            # A plain deletion: these lists look after what is in them.
            list.__delitem__(own, slice(number, None))
        for part, attributes in zip(layers, before, strict=True):
            for name in _restore(part, attributes):
                if part is layer and name not in _COMMON:
                    changed.append(name)
        changed += [name for name, own, n in containers if len(own) != n]


def _restore(part, attributes) -> list[str]:
    """Gives a layer the attributes it had; returns which were others."""
    now = vars(part)
    added = [name for name in now if name not in attributes]
    for name in added:
        object.__delattr__(part, name)
    other = [k for k, v in attributes.items() if now.get(k, now) is not v]
    for name in other:
        object.__setattr__(part, name, attributes[name])
    return [n for n in (*added, *other) if n != "symbolic_call"]


def _makes_weights(layer):
    """Returns whether building a layer may give it weights."""
    default = getattr(layer.build, "_is_default", False)
    return not default and not isinstance(layer, _MERGE)


def _refuse_to_build(input_shape):
    raise NotTraced("a layer in it is not built")
