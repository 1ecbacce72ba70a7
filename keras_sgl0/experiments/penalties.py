"""The penalties that a recipe can name, and how each can be trained."""

import inspect

from keras_sgl0.experiments.by_name import import_by_name
from keras_sgl0.gates.hard_concrete import ExpectedL0
from keras_sgl0.groups import Axis
from keras_sgl0.regularizers import (
    CGES,
    SGL0,
    ExclusiveLasso,
    GroupLasso,
    IntegratedTransformedL1,
    SparseGroupL1MinusL2,
    SparseGroupLasso,
    SparseGroupLHalf,
    SparseGroupTransformedL1,
)
from keras_sgl0.regularizers.base import Penalty, trainings
from keras_sgl0.utils.validation import invalid, require

PENALTIES: dict[str, type[Penalty] | None] = {
    "none": None,
    "group_lasso": GroupLasso,
    "exclusive_lasso": ExclusiveLasso,
    "cges": CGES,
    "sparse_group_lasso": SparseGroupLasso,
    "sgl0": SGL0,
    "sparse_group_transformed_l1": SparseGroupTransformedL1,
    "sparse_group_l_half": SparseGroupLHalf,
    "sparse_group_l1_minus_l2": SparseGroupL1MinusL2,
    "integrated_transformed_l1": IntegratedTransformedL1,
    "l0_gates": ExpectedL0,
}


def penalty_class(name: str) -> type[Penalty] | None:
    """Returns the class of a penalty, `None` for "none".

    Args:
        name: A name in `PENALTIES`, or `package.module:Class`.

    Raises:
        ValueError: If there is no such name, the module cannot be imported, or
            the class is no penalty.

    Example:
        >>> penalty_class("keras_sgl0.regularizers:SGL0")
    """
    if isinstance(name, str) and name in PENALTIES:
        return PENALTIES[name]
    known = ", ".join(repr(known) for known in PENALTIES)
    expected = f"one of {known}, or package.module:Class"
    found = import_by_name("penalty", name, expected)
    require(
        isinstance(found, type) and issubclass(found, Penalty),
        "penalty",
        f"{expected}, a subclass of Penalty",
        name,
    )
    return found


def make_penalty(
    name: str, factor: float, axis: Axis, depth: float | None = None
) -> Penalty:
    """Returns a penalty.

    Args:
        name: As in `penalty_class`, but neither "none" nor "l0_gates".
        factor: Its coefficient.
        axis: Its group axis, left out if the class does not take one.
        depth: The depth `l / L` of its layer, for a class with a
            `depth_argument`. By default the class has its own default, as for
            groups that span layers.

    Raises:
        ValueError: As in `penalty_class`, or if it cannot be constructed.
    """
    kind = penalty_class(name)
    if kind is None:
        raise invalid("penalty", "a penalty to make", name)
    more: dict[str, Axis | float] = {}
    if "axis" in inspect.signature(kind).parameters:
        more["axis"] = axis
    if kind.depth_argument and depth is not None:
        more[kind.depth_argument] = depth
    try:
        return kind(factor, **more)
    except TypeError as problem:
        expected = "a class that is constructed as Class(factor, axis=...)"
        text = f"{expected} ({problem})"
        raise invalid("penalty", text, name) from problem


def trainings_of(name: str) -> tuple[str, ...]:
    """Returns the ways to train a penalty, the usual one first.

    Args:
        name: As in `penalty_class`.
    """
    if name in ("none", "l0_gates"):
        return ("subgradient",)
    return trainings(make_penalty(name, 1.0, "auto"))


def all_trainings() -> dict[str, tuple[str, ...]]:
    """Returns the ways to train each penalty in `PENALTIES`, by its name."""
    return {name: trainings_of(name) for name in PENALTIES}


def require_training(penalty: str, training: str):
    """Raises unless a penalty can be trained in a way.

    Args:
        penalty: As in `penalty_class`.
        training: The way.

    Raises:
        ValueError: If it cannot be.
    """
    if training in trainings_of(penalty):
        return
    ways = all_trainings()
    pairs = "; ".join(f"{p}: {', '.join(w)}" for p, w in ways.items())
    raise invalid(
        "training",
        f"one of {trainings_of(penalty)} for the penalty {penalty!r}, since "
        f"these go together: {pairs}",
        training,
    )
