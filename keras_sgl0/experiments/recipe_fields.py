"""Declares the fields of a recipe: help text, check and use."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from keras_sgl0 import models
from keras_sgl0.experiments.penalties import penalty_class
from keras_sgl0.groups import validate_axis
from keras_sgl0.utils.validation import choice, finite_float, integer, require

# Takes a field's name and value; returns the value to keep, or raises.
Check = Callable[[str, Any], Any]


@dataclasses.dataclass(frozen=True)
class Use:
    """A condition under which a recipe uses a setting.

    Attributes:
        words: The condition in the help text, such as "for sgd".
        holds: A function that returns whether the condition holds for a
            recipe, or for any object with the settings as attributes.
        otherwise: Why the setting is unused if the condition does not hold.
            It may refer to settings, as in "with the model {model!r}".
    """

    words: str
    holds: Callable[[Any], bool]
    otherwise: str


def setting(
    default: Any,
    help_text: str,
    choices: tuple[str, ...] | None = None,
    *,
    check: Check | None = None,
    used_by: tuple[Use, ...] = (),
    argument: str | None = None,
) -> Any:
    """Declares a field of the recipe.

    Args:
        default: The default. An unused field must have this value.
        help_text: The meaning of the field, for `scripts/train.py --help`. The
            conditions of its use are appended.
        choices: The allowed values, if the field is a name.
        check: A function that takes the field's name and value, raises if the
            value is out of range, and returns the value to keep.
        used_by: The conditions under which a recipe uses the field. All must
            hold.
        argument: The argument of the networks that the field sets, if any.
            Only models with this argument use the field.

    Example:
        >>> growth: float = setting(1.25, "Factor.", check=number(at_least=1))
    """
    if choices:
        check = one_of(choices)
    if argument:
        used_by = (*used_by, _model_with(argument))
    if used_by:
        when = ", ".join(use.words for use in used_by)
        help_text = f"{help_text.removesuffix('.')}; {when}."
    metadata = {
        "help": help_text,
        "choices": choices,
        "check": check,
        "used_by": used_by,
        "argument": argument,
    }
    return dataclasses.field(default=default, metadata=metadata)


def why_unused(field: dataclasses.Field, recipe: Any) -> str:
    """Returns why a recipe does not use a field, or "" if it does.

    Args:
        field: A field of the recipe.
        recipe: A recipe, or any object with its settings as attributes.
    """
    for use in field.metadata["used_by"]:
        if not use.holds(recipe):
            return use.otherwise.format(**vars(recipe))
    return ""


def as_json(value: Any) -> Any:
    """Returns the value of a field as JSON has it.

    Args:
        value: The value in the recipe.
    """
    return list(value) if isinstance(value, tuple) else value


def one_of(choices: tuple[str, ...]) -> Check:
    """Returns the check of a name.

    Args:
        choices: The allowed names.
    """
    return lambda name, value: choice(name, value, choices)


def number(**bounds: float) -> Check:
    """Returns the check of a finite number.

    Args:
        **bounds: As in `finite_float`: above, at_least, below, at_most.
    """
    return lambda name, value: finite_float(name, value, **bounds)


def number_or_none(**bounds: float) -> Check:
    """Returns the check of a finite number that may be `None`.

    Args:
        **bounds: As in `number`.
    """
    in_range = number(**bounds)
    return lambda name, value: None if value is None else in_range(name, value)


def whole_number(at_least: int) -> Check:
    """Returns the check of an integer.

    Args:
        at_least: The smallest allowed value.
    """
    return lambda name, value: integer(name, value, at_least=at_least)


def numbers(may_be_empty: bool = False, **bounds: float) -> Check:
    """Returns the check of a list of finite numbers, kept as a tuple.

    Args:
        may_be_empty: Whether the list may be empty.
        **bounds: The bounds of each number, as in `number`.
    """

    def check(name, values):
        is_list = isinstance(values, list | tuple)
        require(is_list, name, "a tuple of numbers", values)
        require(values or may_be_empty, name, "at least one number", values)
        return tuple(finite_float(name, value, **bounds) for value in values)

    return check


def rising_shares(name: str, values: Any) -> tuple[float, ...]:
    """Returns shares of the run as a tuple, after checking that they rise.

    Args:
        name: The field's name.
        values: Its value.
    """
    require(
        isinstance(values, list | tuple)
        and all(isinstance(v, float) and 0 < v < 1 for v in values)
        and list(values) == sorted(values),
        name,
        "rising shares of the run, each between 0 and 1",
        values,
    )
    return tuple(values)


def true_or_false(name: str, value: Any) -> bool:
    """Returns a bool after checking that it is one.

    Args:
        name: The field's name.
        value: Its value.
    """
    require(isinstance(value, bool), name, "True or False", value)
    return value


def group_axis(name: str, value: Any) -> Any:
    """Returns a group axis after checking it.

    Args:
        name: The field's name.
        value: Its value.
    """
    return validate_axis(value)


def penalty_name(name: str, value: Any) -> Any:
    """Returns the name of a penalty after checking that there is one.

    Args:
        name: The field's name.
        value: Its value.
    """
    penalty_class(value)  # raises
    return value


PENALTY = Use(
    "not for none", lambda r: r.penalty != "none", "without a penalty"
)
GATES = Use(
    "for l0_gates",
    lambda r: r.penalty == "l0_gates",
    "with the penalty {penalty!r}",
)
NO_GATES = Use(
    "not for l0_gates",
    lambda r: r.penalty != "l0_gates",
    "with the penalty {penalty!r}",
)
DENSITY = Use("with a density", lambda r: bool(r.density), "without a density")
NO_DENSITY = Use("without a density", lambda r: not r.density, "with a density")
# A constraint on the gates replaces their penalty.
NO_CONSTRAINT = Use(
    "not for l0_gates with a density",
    lambda r: not (r.penalty == "l0_gates" and r.density),
    "with a density",
)
NO_SHARE = Use(
    "without share_of_max", lambda r: not r.share_of_max, "with share_of_max"
)
KERNEL_GROUPS = Use(
    "not for coupled groups",
    lambda r: r.groups == "kernel",
    "with groups='coupled'",
)
COUPLED_GROUPS = Use(
    "for coupled groups",
    lambda r: r.groups == "coupled",
    "with groups='kernel'",
)
STRUCTURES = Use(
    "for a target of structures",
    lambda r: r.groups == "coupled" or r.density_of in ("macs", "channels"),
    "with a target of single weights",
)
GROWTH = Use("with a growth above 1", lambda r: r.growth > 1, "with growth=1")
MILESTONES = Use(
    "with milestones", lambda r: bool(r.milestones), "without milestones"
)


def trained_by(*trainings: str) -> Use:
    """Returns the condition that the training is one of those given.

    Args:
        *trainings: Names of trainings.
    """
    return Use(
        f"for {' and '.join(trainings)}",
        lambda r: r.training in trainings,
        "with the training {training!r}",
    )


def optimized_by(optimizer: str) -> Use:
    """Returns the condition that the optimizer is the one given.

    Args:
        optimizer: Its name.
    """
    return Use(
        f"for {optimizer}",
        lambda r: r.optimizer == optimizer,
        "with the optimizer {optimizer!r}",
    )


def _model_with(argument):
    """Returns the condition that the network has an argument."""
    known = [
        name
        for name, builder in models.BY_NAME.items()
        if argument in inspect.signature(builder).parameters
    ]
    *others, last = known
    words = f"{', '.join(others)} and {last}" if others else last
    return Use(
        f"for {words}",
        lambda r: r.model in known,
        f"for the model {{model!r}}, which has no {argument}",
    )
