"""What a smaller model may cost."""

from typing import NamedTuple, cast

import keras

from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import Structures
from keras_sgl0.utils.validation import InputError, finite_float


class Budget(NamedTuple):
    """A share of what a model costs.

    Args:
        measure: What is counted.
        share: The share to keep, in (0, 1].
    """

    measure: Measure
    share: float

    @classmethod
    def one_of(cls, **budgets: float | None) -> "Budget":
        """Returns the one budget that is given.

        Args:
            **budgets: Shares by the name of what is counted, `None` for those
                that are not given.

        Raises:
            ValueError: If not exactly one is given, or it is out of range.
        """
        given = {name: x for name, x in budgets.items() if x is not None}
        if len(given) != 1:
            names = ", ".join(f"`{name}`" for name in budgets)
            raise InputError(
                f"Expected exactly one budget of {names}. Received: {given}"
            )
        ((name, share),) = given.items()
        share = finite_float(name, share, above=0, at_most=1)
        return cls(cast(Measure, name), share)

    def require_counts(self, found: Structures, model: keras.Model):
        """Raises where the cost of a model cannot be counted.

        Args:
            found: The structures of the model.
            model: The model.

        Raises:
            ValueError: If there is nothing to cut, or the sizes of the inputs
                are not known.
        """
        if not found.size:
            reasons = {f"{e.layer}: {e.reason}" for e in found.fixed}
            raise InputError(
                "Invalid value for argument `model`. Expected a model with "
                "channels that can be cut. "
                f"{'; '.join(sorted(reasons))}. Received: model={model!r}"
            )
        if self.measure == "macs" and found.cost().macs is None:
            raise InputError(
                "Invalid value for argument `macs`. The multiply-adds of a "
                "model whose inputs have no known sizes cannot be counted. "
                "Give a budget of `parameters`, or a model that is called on "
                "inputs of known sizes: `keras.Model(x, model(x))` with "
                "`x = keras.Input(...)`, compiled. "
                f"Received: model={model!r}"
            )


def require_alone(name: str, value: float, others: dict[str, float | None]):
    """Raises where another budget is given, too.

    Args:
        name: The name of a budget.
        value: Its value.
        others: The other budgets by name, `None` for those not given.

    Raises:
        ValueError: If so.
    """
    given = {key: x for key, x in others.items() if x is not None}
    if given:
        names = ", ".join(f"`{key}`" for key in (*others, name))
        raise InputError(
            f"Expected exactly one budget of {names}. Received: "
            f"{given | {name: value}}"
        )
