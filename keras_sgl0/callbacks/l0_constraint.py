"""Trains gates under a constraint on their expected density."""

import numbers
from collections.abc import Callable, Mapping, Sequence

from keras import ops

from keras_sgl0.callbacks.lagrangian import (
    Constraint,
    EndOfStep,
    Lagrangian,
    constraints_on,
)
from keras_sgl0.callbacks.lending import LendingCallback, unique
from keras_sgl0.gates.expected_cost import COUNTED, Counted, ExpectedCost
from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.gates.lookup import gate_group_size, gates, ruled_by
from keras_sgl0.gates.shared import is_shared
from keras_sgl0.network.compilation import require_no_accumulation
from keras_sgl0.utils.validation import (
    InputError,
    boolean,
    choice,
    finite_float,
    require,
)

SCOPES = ("model", "layer")
# A satisfied constraint is met exactly in the limit only.
_PRECISION = 0.01


def gated_density(gates: list[HardConcrete]) -> Callable:
    """Returns a function that gives the share of parameters behind open gates.

    Args:
        gates: The gate layers.

    Raises:
        ValueError: If it is not clear which weights a gate rules.
    """
    # Shared gates come alone, so what one of them rules plays no part.
    sizes = [1 if is_shared(g) else gate_group_size(g) for g in gates]
    pairs = list(zip(sizes, gates, strict=True))
    total = sum(size * gate.log_alpha.shape[0] for size, gate in pairs)
    return lambda: sum(
        (size / total) * ops.sum(gate.probability_active())
        for size, gate in pairs
    )


class L0Constraint(LendingCallback):
    r"""Trains a model with gates under a constraint on its density.

    It solves `min over weights and gates, max over m >= 0` of

    `L + sum_i m_i * (density_i - target_i)`

    where a density is what is expected to be left, as a share of the whole:

    * `of="parameters"`: of the parameters behind gates, `sum_g |g| *
      P(z_g != 0)` divided by their number. If the gates are on structures
      (`add_gates`), of all parameters of the model: a parameter is there if
      the gates of all structures that it belongs to are open.
    * `of="macs"`: of the multiply-adds of the model. One of a kernel is there
      if all gates are open that its input and its output channel depend on.
      With gates on structures that is what `shrink` leaves.

    Gates are independent, so both are sums of products of probabilities, and
    have a gradient (see `gates.expected_cost`).

    In each training step, the optimizer
    updates weights and gates, and the multipliers `m_i` rise by
    `learning_rate * violation_i` with the violation of the same forward pass,
    but not below 0. With `restart`, a strictly satisfied constraint has its
    multiplier reset to 0, so that it stops pruning. All this is part of the
    compiled step, so it works with `steps_per_execution`, `jit_compile` and
    all backends.

    The constraint is on the expected density. At test time the gates with
    `P(z != 0) > 1/2` are open (see `HardConcrete`). Their density is close to
    the expected one, except for small targets: there many closed gates
    together add to the expected density, and the density at test time can be
    half of it.

    If a target is met from the start, the multipliers stay at 0 and nothing is
    pruned. `log_alpha` is clamped, so that no gate is open with a probability
    below .047. A target below what that leaves of the model is refused where
    multiply-adds or structures are counted; otherwise the multipliers grow
    without bound.

    There is one dual step for each step of the optimizer, even if a
    `train_step` of the model's own asks for its losses several times.
    Evaluation takes none, neither the validation in `fit` nor that of other
    callbacks.

    Several of these callbacks may rule the same gates, each with multipliers of
    its own, if they differ in `scope` or `of`: a budget of the model and a
    limit for each layer, say. They need `restart=False`: where one is satisfied
    only because of the other, a reset of its multiplier upsets both.

    The multipliers are weights of the gates: they are saved with the model,
    and a second `fit` with the same constraints continues with them.

    The `logs` of each epoch get `density`, `violation` and `multiplier`. With
    `scope="layer"` the name of the layer is appended, as in `density_conv1`;
    of a second constraint on the model what it counts, as in `density_macs`.

    Args:
        density: The target, in (0, 1]. With `scope="layer"` it may also be a
            sequence with a target for each gated layer in the model's order,
            or a dict of targets by layer name; layers that are not in the dict
            are not constrained.
        scope: `"model"` for one constraint on the whole model, `"layer"` for
            one on each gated layer, which is then on the share of its open
            gates. For gates on structures a layer is one of gates, and has
            its name.
        learning_rate: The learning rate of the multipliers. Greater than 0.
        restart: Whether to reset the multiplier of a satisfied constraint.
        of: `"parameters"` or `"macs"`, the latter for the model only.

    Attributes:
        constraints: The constraints of the current or last `fit`.

    Raises:
        ValueError: If an argument is out of range. When `fit` begins, if
            another constraint of the same kind rules the same gates, if the
            model has no trainable gates, if `density` does not match the gated
            layers or is below what cannot be gated, if the weights of a gate
            cannot be found, if the sizes of the inputs are not known
            (`of="macs"`), or if the optimizer accumulates gradients.

    Example:
        >>> gate = lambda layer, group_size: HardConcrete()
        >>> model = MLP((784,), 10, gate=gate)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss)
        >>> model.fit(x, y, epochs=200, callbacks=[L0Constraint(density=0.33)])
        >>> half = L0Constraint(0.5, of="macs")  # with `add_gates(model)`, say

    Reference:
        Gallego-Posada, Ramirez, Erraqabi, Bengio, Lacoste-Julien: Controlled
        sparsity via constrained optimization, NeurIPS 2022.
    """

    adds_to_logs = True

    def __init__(
        self,
        density: float | Sequence[float] | Mapping[str, float],
        scope: str = "model",
        learning_rate: float = 1e-4,
        restart: bool = True,
        of: Counted = "parameters",
    ):
        super().__init__()
        self.scope = choice("scope", scope, SCOPES)
        choice("of", of, COUNTED)
        self.of = of
        require(
            scope == "model" or of == "parameters",
            "of",
            '"parameters" with scope="layer"',
            of,
        )
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
        self.restart = boolean("restart", restart)
        self.constraints: tuple[Constraint, ...] = ()

    def refuse(self, originals):
        """Returns the error message for a model whose gates are all frozen."""
        return "`L0Constraint` found no trainable gates in the model."

    def survey(self, transfer=None):
        """Chooses multipliers that no other constraint of this `fit` has."""
        others = list(constraints_on(self.model))
        for own in self.constraints:
            taken = set()
            for other in others:
                both = [g.name for g in own.gates if g in other.gates]
                if both and own.kind == other.kind:
                    raise InputError(
                        "Two `L0Constraint` of one kind cannot rule the same "
                        "gates, as only the smaller density would count. Leave "
                        "out one, or give each its own layers: "
                        'scope="layer" and densities by name. Received: '
                        f"constraints that both rule {both}"
                    )
                taken |= {other.number} if both else set()
            # There are as many as kinds: by layer, by macs, by parameters.
            own.number = min({0, 1, 2} - taken)

    def lend(self, variable, original):
        """Returns the Lagrangian for the first gate of all, nothing else."""
        if variable is not self.constraints[0].gates[0].log_alpha:
            return {}
        lagrangian = Lagrangian(
            original, self.constraints, self.learning_rate, self.restart
        )
        end = EndOfStep(variable.constraint, lagrangian)
        return {"regularizer": lagrangian, "constraint": end}

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

    def is_met(self) -> bool:
        """Returns whether all constraints are satisfied, within 1 %."""
        densities = [(c.density(), c.target) for c in self.constraints]
        return bool(densities) and all(
            float(ops.convert_to_numpy(density)) <= (1 + _PRECISION) * target
            for density, target in densities
        )

    def on_epoch_end(self, epoch, logs=None):
        """Adds densities, violations and multipliers to `logs`."""
        super().on_epoch_end(epoch, logs)
        for constraint in self.constraints if logs is not None else ():
            ending = f"_{constraint.name}" if constraint.name else ""
            if not ending and "density" in logs:
                ending = f"_{self.of}"  # another one is for the model, too
            density = float(ops.convert_to_numpy(constraint.density()))
            multiplier = ops.convert_to_numpy(constraint.multiplier)
            logs[f"density{ending}"] = density
            logs[f"violation{ending}"] = density - constraint.target
            logs[f"multiplier{ending}"] = float(multiplier)

    def _constraints(self, trained):
        kind = self.scope, self.of
        if self.scope == "model":
            assert isinstance(self.density, float)  # `__init__` checks it
            density = self._density_of_model(trained, self.density)
            return [Constraint("", trained, self.density, density, kind)]
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
        return [
            Constraint(k, layers[k], d, gated_density(layers[k]), kind)
            for k, d in targets.items()
        ]

    def _density_of_model(self, trained, target):
        if self.of == "parameters" and not any(map(is_shared, trained)):
            return gated_density(trained)
        cost = ExpectedCost(self.model, self.of)
        least = cost.least_share()
        if target < least:
            raise InputError(
                "Invalid value for argument `density`. Expected at least "
                f"{least:.4f}, the share of the {self.of} that is expected to "
                "be left with all gates as closed as they get. Without gates "
                f"are {_some(cost.without_gates())}. Received: "
                f"density={target!r}"
            )
        return cost.share


def _some(names):
    """Returns the first names of a list, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"`{name}`" for name in names[:5]) + more


def _share(value):
    return finite_float("density", value, above=0, at_most=1)
