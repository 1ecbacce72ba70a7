"""Which rule is that of a call."""

import re
from collections.abc import Callable

import keras

from keras_sgl0.network.configs import class_names, is_from_keras
from keras_sgl0.network.graph import Node
from keras_sgl0.network.tracing import keep_whole
from keras_sgl0.structures.rules import Opaque, Rule, Values
from keras_sgl0.utils.validation import require

_RULES: dict[type | str, type[Rule]] = {}
# For what the rule of blocks is registered that add noise in training.
NOISE = "noise"
# What a subclass of a layer may have of its own and still be such a layer.
_HARMLESS = {"get_config", "from_config", "__init__", "__doc__", "__module__"}


def rule(*classes: type | str) -> Callable:
    """Registers a rule for layer classes, to be used as a decorator.

    The rule holds for subclasses too, as long as they override nothing but
    their constructor and their config.

    Args:
        *classes: Layer classes; class names of operations of `keras.ops`, such
            as `"Cumsum"`; or layers by the package or module that defines them
            and their name, such as `"keras_hub>PositionEmbedding"`.

    Raises:
        ValueError: If there is no class, one is no layer class and no name, or
            what is decorated is no subclass of `Rule`.

    Example:
        >>> @ks.rule(ChannelScale)
        ... class ChannelScaleRule(ks.rules.Channelwise):
        ...     def slices(self):
        ...         return self.vectors("follower", "scale")
        >>> print(ks.check_rule(ChannelScale(), (8, 8, 6)))
    """
    known = [
        isinstance(c, str) and all(map(str.isidentifier, re.split("[.>]", c)))
        if not isinstance(c, type)
        else issubclass(c, keras.Operation)
        for c in classes
    ]
    require(
        known and all(known),
        "classes",
        "layer classes, or class names of operations",
        classes,
    )

    def register(kind):
        require(
            isinstance(kind, type) and issubclass(kind, Rule),
            "kind",
            "a subclass of `Rule`",
            kind,
        )
        _RULES.update(dict.fromkeys(classes, kind))
        keep_whole(*classes)
        return kind

    return register


def rule_for(node: Node, values: Values) -> Rule:
    """Returns the rule for a call, `Opaque` where there is none.

    Args:
        node: The call, the axes of its inputs being set.
        values: Gives the values of a variable.
    """
    kind = _RULES[NOISE] if node.is_noise else find(node.operation)
    if kind is None:
        reason = node.reason or "its type is not known"
        return Opaque(reason).bind(node, values)
    found = kind().bind(node, values)
    reason = refusal(found, node)
    if reason:
        node.inner = []
        return Opaque(reason).bind(node, values)
    node.inner = node.inner or found.inner()
    return found


def refusal(found: Rule, node: Node) -> str:
    """Returns why a call stays whole, empty if its rule covers it.

    Args:
        found: The rule, bound to the call.
        node: The call.
    """
    vague = not all(x.has_channels for x in found.data)
    spread = any(len(x.axes) > 1 for x in node.inputs)
    if node.kwargs.get("training") and not found.any_mode:
        return "it is called with `training=True`"
    if found.needs_channels and vague:
        return "its input has no known channels"
    if spread and not found.several_axes:
        return "the channels of its input run over several axes"
    if found.masks and not found.takes_mask:
        return "it has a mask"
    penalty = getattr(node.operation, "activity_regularizer", None)
    if penalty is not None and not is_from_keras(type(penalty)):
        return "its activity regularizer may need all channels"
    return found.refusal()


def find(operation: keras.Operation) -> type[Rule] | None:
    """Returns the rule registered for the type of an operation.

    Args:
        operation: A layer or another operation.
    """
    if not isinstance(operation, keras.layers.Layer):
        return _RULES.get(type(operation).__name__)
    line = type(operation).__mro__
    for i, known in enumerate(line):
        names = [known, *class_names(known)]
        found = next((_RULES[name] for name in names if name in _RULES), None)
        if found:
            own = {name for c in line[:i] for name in vars(c)}
            altered = own & (set(dir(known)) - _HARMLESS)
            return None if altered else found
    return None
