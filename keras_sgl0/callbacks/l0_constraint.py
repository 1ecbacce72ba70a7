"""Constrained l0: gates held to a target density by a Lagrange multiplier."""

import numbers
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from keras_sgl0.callbacks.lending import LendingCallback, Lent, unique
from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import gate_group_size, gates, ruled_by
from keras_sgl0.network.compilation import require_no_accumulation
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    require,
)

SCOPES = ("model", "layer")


class Constraint:
    """`density <= target` for one set of gates, and its multiplier.

    Args:
        name: The gated layer's name, empty for the whole model.
        gates: The gate layers, which hold the multiplier.
        target: The density not to be exceeded.
    """

    def __init__(self, name: str, gates: list[HardConcrete], target: float):
        self.name = name
        self.gates = gates
        self.target = target
        self._sizes = [gate_group_size(gate) for gate in gates]

    @property
    def multiplier(self):
        """The multiplier's variable; each gate has a copy of it."""
        return self.gates[0].multiplier

    def density(self):
        """Returns the expected share of parameters behind open gates."""
        pairs = list(zip(self._sizes, self.gates, strict=True))
        total = sum(size * gate.log_alpha.shape[0] for size, gate in pairs)
        return sum(
            (size / total) * ops.sum(gate.probability_active())
            for size, gate in pairs
        )


class _Lagrangian(Lent, keras.regularizers.Regularizer):
    """The constraints' part of the Lagrangian, which also does the dual step.

    `sum_i m_i * violation_i`, with the multipliers as the step found them; from
    the same violations it then takes `m_i <- max(0, m_i + rate * violation_i)`,
    so both players move at once. It stands in the loss, as a regularizer of
    one of the gates, where every backend lets weights of the model change.
    """

    def __init__(self, original, constraints, learning_rate, restart):
        super().__init__(original)
        self.constraints = constraints
        self.learning_rate = learning_rate
        self.restart = restart

    def __call__(self, log_alpha):
        loss = 0.0 if self.original is None else self.original(log_alpha)
        for constraint in self.constraints:
            violation = constraint.density() - constraint.target
            multiplier = ops.copy(ops.convert_to_tensor(constraint.multiplier))
            loss += ops.stop_gradient(multiplier) * violation
            ascended = self._ascend(multiplier, ops.stop_gradient(violation))
            for gate in constraint.gates:
                gate.multiplier.assign(ascended)
        return loss

    def _ascend(self, multiplier, violation):
        ascended = ops.maximum(multiplier + self.learning_rate * violation, 0.0)
        if self.restart:
            return ops.where(violation < 0, ops.zeros_like(ascended), ascended)
        return ascended


class L0Constraint(LendingCallback):
    r"""Holds the gates of a model to a target density while it trains.

    It plays `min over weights and gates, max over m >= 0` of

    `L + sum_i m_i * (density_i - target_i)`

    where a density is the expected share of active parameters, `sum_g |g| *
    P(z_g != 0)` over all of them. In each training step the optimizer takes its
    step on the weights and gates, and the multipliers ascend by
    `learning_rate * violation`, with the violation of the same forward pass,
    and stay at least 0. With dual restarts, a constraint that is strictly
    satisfied has its multiplier set to 0 at once, so that it does not go on
    pruning. Everything happens inside the compiled step: it works with
    `steps_per_execution`, `jit_compile`, and on every backend.

    The density is held, not the number of gates open at test time: those with
    `P(z != 0) > 1/2` (see `HardConcrete`), which comes close but for small
    targets: of many nearly closed gates each adds its share, so that at a
    density of .1 half of it may be open.

    *A target that is met from the start* leaves the multipliers at 0: nothing
    is pruned, nothing added. *A target out of reach* lets them grow without
    bound: `log_alpha` is clamped, so no density falls below .047.

    An evaluation takes no dual step: neither the validation of `fit` nor one by
    a callback at an epoch's end, if that is listed after this one.

    The multipliers are weights of the gates: a checkpoint of the model has
    them, and a second `fit` goes on from them.

    Each epoch's `logs` get `density`, `violation` and `multiplier`; with
    `scope="layer"` one each of `density_conv1` and the like.

    Args:
        density: The target in (0, 1]: one number; or, with `scope="layer"`,
            also a number for each gated layer, in the model's order, or a dict
            from the names of gated layers, which leaves the others free.
        scope: `"model"`, one constraint on all parameters behind gates, or
            `"layer"`, one for each gated layer.
        learning_rate: Of the dual ascent. Greater than 0.
        restart: Whether to reset the multiplier of a satisfied constraint.

    Attributes:
        constraints: The constraints of the current or last `fit`.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if the
            model has no trainable gates, if `density` has other layers than
            the model, if it is not clear which weights a gate rules, or if the
            optimizer accumulates gradients.

    Example:
        >>> gate = lambda layer, group_size: HardConcrete()
        >>> model = MLP((784,), 10, gate=gate)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss)
        >>> model.fit(x, y, epochs=200, callbacks=[L0Constraint(density=0.33)])

    Reference:
        Gallego-Posada, Ramirez, Erraqabi, Bengio, Lacoste-Julien: Controlled
        sparsity via constrained optimization, NeurIPS 2022.
    """

    def __init__(
        self,
        density: float | Sequence[float] | Mapping[str, float],
        scope: str = "model",
        learning_rate: float = 1e-4,
        restart: bool = True,
    ):
        super().__init__()
        self.scope = choice("scope", scope, SCOPES)
        require(
            isinstance(density, numbers.Real) or scope == "layer",
            "density",
            'one number, unless scope="layer"',
            density,
        )
        self.density: float | dict[str, float] | tuple[float, ...]
        if isinstance(density, Mapping):
            self.density = {k: _share(d) for k, d in density.items()}
        elif isinstance(density, list | tuple):
            self.density = tuple(_share(d) for d in density)
        else:
            is_number = isinstance(density, numbers.Real)
            require(is_number, "density", "numbers", density)
            self.density = _share(density)
        self.learning_rate = finite_float(
            "learning_rate", learning_rate, above=0
        )
        self.restart = restart
        self.constraints: tuple[Constraint, ...] = ()

    def refuse(self, originals):
        """Returns the error message for a model whose gates are all frozen."""
        return "`L0Constraint` found no trainable gates in the model."

    def lend(self, variable, original):
        """Returns the Lagrangian for the first gate of all, nothing else."""
        if variable is not self.constraints[0].gates[0].log_alpha:
            return {}
        lagrangian = _Lagrangian(
            original, self.constraints, self.learning_rate, self.restart
        )
        return {"regularizer": lagrangian}

    def on_train_begin(self, logs=None):
        """Makes the constraints and lends the Lagrangian."""
        trained = [g for g in gates(self.model) if g.log_alpha.trainable]
        if not trained:
            raise InputError(self.refuse([]))
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        require_no_accumulation(
            optimizer, "L0Constraint", "the multipliers would move"
        )
        self.constraints = tuple(self._constraints(trained))
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Lends again."""
        self._give()

    def on_epoch_end(self, epoch, logs=None):
        """Puts densities, violations and multipliers into `logs`.

        The Lagrangian is taken back, since callbacks behind this one may
        evaluate the model.
        """
        self._take_back()
        for constraint in self.constraints if logs is not None else ():
            ending = f"_{constraint.name}" if constraint.name else ""
            density = float(ops.convert_to_numpy(constraint.density()))
            multiplier = ops.convert_to_numpy(constraint.multiplier)
            logs[f"density{ending}"] = density
            logs[f"violation{ending}"] = density - constraint.target
            logs[f"multiplier{ending}"] = float(multiplier)

    def _constraints(self, trained):
        if self.scope == "model":
            assert isinstance(self.density, float)  # as `__init__` saw to
            return [Constraint("", trained, self.density)]
        of_layers: dict[int, list[HardConcrete]] = {}
        for gate in trained:
            of_layers.setdefault(id(ruled_by(gate)), []).append(gate)
        names = unique(ruled_by(g[0]).name for g in of_layers.values())
        layers = dict(zip(names, of_layers.values(), strict=True))
        known = tuple(layers)
        if isinstance(self.density, dict):
            targets = self.density
            unknown = sorted(targets.keys() - layers.keys())
            expected = f"names of gated layers: {known}"
            require(not unknown and targets, "density", expected, unknown)
        elif isinstance(self.density, tuple):
            require(
                len(self.density) == len(layers),
                "density",
                f"one number for each gated layer: {known}",
                self.density,
            )
            targets = dict(zip(layers, self.density, strict=True))
        else:
            targets = dict.fromkeys(layers, self.density)
        return [Constraint(k, layers[k], d) for k, d in targets.items()]


def _share(value):
    return finite_float("density", value, above=0, at_most=1)
