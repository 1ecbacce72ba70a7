"""Penalties with a strength that changes while the model trains."""

from typing import Any

import keras
from keras import ops

from keras_sgl0.callbacks.lending import (
    LendingCallback,
    LentPenalty,
    penalty_of,
    value_of,
)
from keras_sgl0.callbacks.proximal import ProximalConstraint
from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.compilation import scope_of
from keras_sgl0.network.loans import Lent, LentConstraint, retrace
from keras_sgl0.utils.validation import InputError


class Steered(Lent):
    """What the current strength for a variable changes.

    Args:
        original: What it stands in for, or `None`.
        steering: The callback that has the strength.
        variable: The variable.
    """

    def __init__(self, original, steering: "Steering", variable):
        super().__init__(original)
        self.steering = steering
        self.variable = variable


class SteeredPenalty(Steered, LentPenalty):
    """A penalty times the current strength for its variable.

    Args:
        original: The penalty, or what an earlier callback lent for it.
        steering: The callback that has the strength.
        variable: The variable.
    """

    def __init__(self, original, steering: "Steering", variable):
        super().__init__(original, steering, variable)
        self.is_needed = getattr(original, "is_needed", True)

    def value(self, w):
        """Returns the penalty of `w` times the strength."""
        if self.steering.settled:
            return ops.zeros((), wide_dtype(self.variable))
        strength = self.steering.strength_for(self.variable)
        return strength * value_of(self.original, w)


class SteeredStep(Steered, LentConstraint):
    """A proximal step with the current strength, then what the callback does.

    Args:
        original: The proximal step, or `None`.
        steering: The callback that has the strength.
        variable: The variable.
    """

    def stand_in(self, w):
        """Returns `w` after the step."""
        if self.original is not None and not self.steering.settled:
            strength = self.steering.strength_for(self.variable)
            w = self.original.prox(w, strength)
        return self.steering.after_step(self.variable, w)


class Steering(LendingCallback):
    """Base class of callbacks that multiply all penalties by a strength.

    Attributes:
        strength: Scalar variable, `None` before `fit`.
        settled: Whether the penalties are gone for the rest of the run.
    """

    adds_to_logs = True

    def __init__(self):
        super().__init__()
        self.strength: Any = None
        self.settled = False

    def survey(self, transfer=None):
        """Finds what is penalized."""
        if transfer is None:
            self.settled = False
        variables = self.model.trainable_variables
        self.penalised = [v for v in variables if penalty_of(v) is not None]
        if not self.penalised:
            found = [v.regularizer for v in variables]
            raise InputError(self.refuse([r for r in found if r is not None]))
        for variable in self.penalised:
            if isinstance(variable.regularizer, SteeredPenalty):
                other = type(variable.regularizer.steering).__name__
                raise InputError(
                    f"`{other}` and `{type(self).__name__}` cannot both steer "
                    f"the penalty of {variable.path}. Leave out one of them. "
                    f"Received: {other} before {type(self).__name__}"
                )

    def lend(self, variable, original):
        """Returns penalty and constraint for what is penalized or changed."""
        lent: dict[str, Lent] = {}
        if penalty_of(variable) is not None:
            lent["regularizer"] = SteeredPenalty(original, self, variable)
        elif not self.changes(variable):
            return {}
        if not isinstance(variable.constraint, ProximalConstraint | None):
            raise InputError(
                f"`{type(self).__name__}` cannot train {variable.path}, which "
                "has a constraint of its own. Received: "
                f"{variable.constraint}"
            )
        lent["constraint"] = SteeredStep(variable.constraint, self, variable)
        return lent

    def prepare(self, variables):
        """Makes the strength."""
        with scope_of(self.model):
            self.strength = keras.Variable(
                1.0, trainable=False, dtype="float32", name="strength"
            )

    def on_shrink(self, transfer):
        """Goes on with the strength of the moment."""
        strength = self.strength
        super().on_shrink(transfer)
        self.strength = strength

    def on_epoch_end(self, epoch, logs=None):
        """Adds the strength to `logs`."""
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["strength"] = float(ops.convert_to_numpy(self.strength))

    def changes(self, variable) -> bool:
        """Returns whether `after_step` changes a variable without a penalty.

        Args:
            variable: A trainable variable.
        """
        return False

    def after_step(self, variable, w):
        """Returns the value of a variable after each step.

        Args:
            variable: The variable.
            w: Its value after the step.
        """
        return w

    def strength_for(self, variable):
        """Returns the current multiplier of the penalty of a variable.

        Args:
            variable: A variable with a penalty.
        """
        return ops.cast(self.strength, wide_dtype(variable))

    def set_strength(self, strength: float):
        """Sets the strength of the steps to come.

        Args:
            strength: At least 0.
        """
        self.strength.assign(strength)
        if keras.backend.backend() == "jax":
            retrace(self.model)  # it is a constant of the step there
