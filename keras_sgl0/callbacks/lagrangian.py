"""The Lagrangian of constraints on gates, and its multipliers."""

from collections.abc import Callable, Iterator

import keras
from keras import ops

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.network.loans import Lent, LentConstraint, LentRegularizer


class Constraint:
    """A constraint `density <= target` on some gates, with its multiplier.

    Args:
        name: The name of the gated layer, empty for the whole model.
        gates: The gate layers. Each has the multiplier as a weight.
        target: The upper limit of the density.
        density: Returns the expected density, with gradient.
        kind: Its scope and what it counts.

    Attributes:
        number: Which of the multipliers of each gate is that of this one.
    """

    def __init__(
        self,
        name: str,
        gates: list[HardConcrete],
        target: float,
        density: Callable,
        kind: tuple[str, str],
    ):
        self.name = name
        self.gates = gates
        self.target = target
        self.density = density
        self.kind = kind
        self.number = 0

    @property
    def multiplier(self):
        """The multiplier's variable; each gate has a copy of it."""
        return self.copies[0]

    @property
    def copies(self) -> list:
        """The multiplier's variables, one a gate."""
        return [gate.multipliers[self.number] for gate in self.gates]


class Lagrangian(LentRegularizer):
    """The term of the constraints in the loss, with the dual step.

    Its value is `sum_i m_i * violation_i`. It also updates the multipliers,
    `m_i <- max(0, m_i + rate * violation_i)`, so that primal and dual step use
    the same violations. It is a regularizer of one of the gates, because there
    all backends allow a train step to assign weights of the model.

    A train step may ask for the losses several times. Each time the dual step
    is taken from where the multipliers were at the first time, so that there
    is one for each step of the optimizer, which ends by `end_step`.

    Args:
        original: The penalty of the gates, or what stands in for it.
        constraints: The constraints.
        learning_rate: The learning rate of the multipliers.
        restart: Whether to reset the multiplier of a satisfied constraint.
    """

    def __init__(self, original, constraints, learning_rate, restart):
        super().__init__(original)
        self.constraints = constraints
        self.learning_rate = learning_rate
        self.restart = restart
        self._at_first: list | None = None

    def stand_in(self, log_alpha):
        """Returns the penalty of the gates and the term of the constraints."""
        loss = self.otherwise(log_alpha)
        if self._at_first is None:
            self._at_first = [
                ops.copy(ops.convert_to_tensor(c.multiplier))
                for c in self.constraints
            ]
        pairs = zip(self.constraints, self._at_first, strict=True)
        for constraint, multiplier in pairs:
            violation = constraint.density() - constraint.target
            loss += ops.stop_gradient(multiplier) * violation
            ascended = self._ascend(multiplier, ops.stop_gradient(violation))
            for copy in constraint.copies:
                copy.assign(ascended)
        return loss

    def end_step(self):
        """Lets the next dual step start from where the multipliers are."""
        self._at_first = None

    def _ascend(self, multiplier, violation):
        ascended = ops.maximum(multiplier + self.learning_rate * violation, 0.0)
        if self.restart:
            return ops.where(violation < 0, ops.zeros_like(ascended), ascended)
        return ascended


class EndOfStep(LentConstraint):
    """Says that the optimizer has made its step, and changes nothing.

    Args:
        original: The constraint of the gates.
        lagrangian: What is told.
    """

    def __init__(self, original, lagrangian: Lagrangian):
        super().__init__(original)
        self.lagrangian = lagrangian

    def stand_in(self, w):
        """Returns the result of the original."""
        self.lagrangian.end_step()
        return self.otherwise(w)


def constraints_on(model: keras.Model) -> Iterator[Constraint]:
    """Yields the constraints that rule gates of a model in this `fit`.

    Args:
        model: A model.
    """
    for variable in model.trainable_variables:
        lent = variable.regularizer
        while isinstance(lent, Lent):
            if isinstance(lent, Lagrangian):
                yield from lent.constraints
            lent = lent.original
