"""Trains any penalty to a target density."""

from typing import Any, cast

import keras
import numpy as np

from keras_sgl0.callbacks.coupling import CoupledPart
from keras_sgl0.callbacks.density_measures import COUNTED
from keras_sgl0.callbacks.lending import penalty_of
from keras_sgl0.callbacks.steering import Steering
from keras_sgl0.callbacks.structure_cut import StructureCut
from keras_sgl0.callbacks.weight_cut import WeightCut
from keras_sgl0.network.loans import retrace
from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import structures
from keras_sgl0.structures.members import Members
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    integer,
    require,
)

# log(strength) = _GAIN * log(density / path): with a density a tenth above the
# path, the strength is 1.6.
_GAIN = 5.0
_UPDATES_PER_EPOCH = 10
_STRONGEST = 100.0


class TargetDensity(Steering):
    r"""Controls the strength of any penalty to reach a target density.

    `density=0.1` gives a network with a tenth of its weights. It works for
    `GroupLasso`, `SparseGroupLasso`, `SGL0` and every other penalty, trained
    by its subgradient, by splitting or by its proximal operator. List it after
    `VariableSplitting` or `ProximalStep`. The strength multiplies the penalty,
    so the penalty's factor is the starting point.

    *First phase*, at most until `settle` of the run: the density should follow
    the path `target + (1 - target) * (1 - t)^3`, where `t` goes from 0 to 1.
    Ten times per epoch, the strength becomes

    `strength = (density / path)^5`, at most 100.

    It is updated only once per epoch on JAX, and if Keras does not know the
    number of steps.

    *Second phase*, once the target or `settle` is reached: what does not fit
    the target is set to zero and stays zero, and the penalty is removed. The
    rest of the run trains the remaining weights without shrinkage, so the
    second phase should begin before the last drop of the learning rate. If
    `fit` is stopped earlier, the weights are cut at its end.

    *Structures or single weights.* With `of="macs"` or `"channels"`, and
    always after `CoupledGroups`, the density is that of the model that
    `shrink` leaves, and what is cut are structures (see `structures`): all
    members become zero, biases, gammas and betas too. They are cut along the
    path, the smallest first, by the norm of their members relative to the mean
    of their family. The final density is at most the target, and within 1 % of
    it where the structures are fine enough. With `of="macs"` and without
    `CoupledGroups`, the penalty of a kernel is also multiplied by the
    multiply-adds of one of its weights, relative to the mean over all weights.

    With any other `of`, single weights or neurons are cut. In the first phase,
    weights below `.02 * sqrt(2 / fan_in)` count as dead, and so do neurons
    with only such weights. The cut keeps the largest weights, by their size
    relative to the largest in their kernel. The size is `|w|` for penalties on
    single weights, the mean of `|w|` over the group for group penalties, and
    the geometric mean of both for their sums, so that weak groups are removed
    first. With `of="neurons"` it is always the mean over the group, and in the
    groups that are kept, weights that count as dead are removed.

    *This is a heuristic.* In `L0Constraint` the density has a gradient, and a
    Lagrange multiplier controls it. Here it has no gradient, dead weights
    hardly ever come back, and dual ascent overshoots. So the strength follows
    the error, as in a proportional controller, and the cut closes the
    remaining gap. The final density is never above the target. It is below
    the target only if the penalty removes more than needed between two
    updates, so a run on JAX should have many epochs.

    The callback has no state between epochs, so a resumed run continues like
    an uninterrupted one.

    List it after callbacks that restore weights at the end of `fit`, such as
    `EarlyStopping(restore_best_weights=True)`. It then cuts the restored
    weights; callbacks listed after it may bring back weights that were cut.
    `OnceMet` lets such callbacks wait until the second phase.

    The `logs` of each epoch get `density`, the share of non-zero units, and
    `strength`.

    Args:
        density: The target, in (0, 1].
        of: What is counted. `"weights"`: the weights of all trainable kernels
            and of other variables with a penalty. `"parameters"`: all
            trainable parameters, including biases. `"neurons"`: the groups of
            the trainable kernels, as `sparsity_report` counts them. `"macs"`
            and `"channels"`: the multiply-adds, or the output channels, that
            are left after `shrink`. After `CoupledGroups`, `"weights"` and
            `"parameters"` are those left after `shrink`, too. What has no
            penalty counts as completely alive.
        settle: The share of the run after which the second phase begins at the
            latest, in (0, 1).
        minimum: How many structures of each family are kept at least.
        round_to: Families that are cut keep a multiple of this many
            structures. Both are for structures only.

    Attributes:
        strength: Scalar variable, `None` before `fit`; 0 in the second phase.
        cut: What counts and cuts, `None` before `fit`.
        settled: Whether the second phase has begun.

    Raises:
        ValueError: If an argument is out of range. When `fit` begins, if no
            trainable variable has a penalty of this package, if the target is
            below what cannot be cut (the message names its share and its
            layers), if the multiply-adds or the neurons of a penalized
            variable are not known, or if it has a constraint other than a
            proximal step.

    Example:
        >>> splitting = VariableSplitting(beta=25 * factor)
        >>> target = TargetDensity(0.1)
        >>> model.fit(x, y, epochs=60, callbacks=[splitting, target])
        >>> coupled = CoupledGroups(GroupLasso(1e-4))
        >>> half = TargetDensity(0.5, of="macs")
        >>> model.fit(x, y, callbacks=[coupled, ProximalStep(), half])
    """

    def __init__(
        self,
        density: float,
        of: str = "weights",
        settle: float = 0.6,
        minimum: int = 1,
        round_to: int = 1,
    ):
        super().__init__()
        self.density = finite_float("density", density, above=0, at_most=1)
        self.of = choice("of", of, COUNTED)
        self.settle = finite_float("settle", settle, above=0, below=1)
        self.minimum = integer("minimum", minimum, at_least=1)
        self.round_to = integer("round_to", round_to, at_least=1)
        # Created when `fit` begins.
        self.cut: Any = None
        self._settled_at_end = False
        # Not a method, since even an empty batch hook makes every step slower.
        if keras.backend.backend() != "jax":
            self.on_train_batch_end = self._between_batches

    def survey(self, transfer=None):
        """Finds out what is penalized, and what is counted and cut."""
        super().survey(transfer)
        if transfer is not None:
            self.cut.follow(transfer, *self._members())
            return
        self._has_begun = False
        if "epochs" not in (self.params or {}):
            raise InputError(
                "`TargetDensity` needs the number of epochs. In a loop of your "
                "own, pass it as in `keras.callbacks.CallbackList(callbacks, "
                f"model=model, epochs=10, steps=100)`. Received: {self.params}"
            )
        self.cut = self._make_cut()

    def is_met(self) -> bool:
        """Returns whether it was as the epoch was validated, see `OnceMet`."""
        return self.settled and not self._settled_at_end

    def prepare(self, variables):
        """Makes the strength, and finds out what a weight of each costs."""
        super().prepare(variables)
        prices = self.cut.prices(self.penalised).tolist()
        self._relative_prices = {
            id(variable): price
            for variable, price in zip(self.penalised, prices, strict=True)
        }

    def on_shrink(self, transfer):
        """Counts on, with what is left of the original model."""
        prices = self._relative_prices
        super().on_shrink(transfer)
        self._relative_prices = {
            id(v): prices[id(transfer.source(v))] for v in self.penalised
        }

    def strength_for(self, variable):
        """Returns the current multiplier of the penalty of a variable."""
        price = self._relative_prices[id(variable)]
        return super().strength_for(variable) * price

    def changes(self, variable):
        """Returns whether a variable without a penalty may be cut."""
        return self.cut.has(variable)

    def after_step(self, variable, w):
        """Returns a value of a variable with zeros for what is cut."""
        return self.cut.masked(variable, w)

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the strength, or begins the second phase."""
        self._epoch, self._updates = epoch, 0
        self._settled_at_end = False
        is_first, self._has_begun = not self._has_begun, True
        if self.cut.begin_epoch(resumed=is_first and epoch > 0):
            self._settle()
        if is_first or self.fit.has_stepped:  # not without any data
            self._steer(epoch / self.params["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        """Sets the strength again; adds density and strength to `logs`."""
        was_settled = self.settled
        if self.fit.has_stepped:
            self.cut.end_epoch()
            self._steer((epoch + 1) / self.params["epochs"])
        self._settled_at_end = self.settled and not was_settled
        if logs is not None:
            logs["density"] = self.cut.density()
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        """Cuts again: `fit` may stop early, or weights may be restored."""
        self.keep_zeros()
        if self.fit.has_stepped:  # not an untrained model
            self._finish()
        super().on_train_end(logs)

    def _make_cut(self) -> WeightCut | StructureCut:
        """Returns what counts and cuts: single weights, or structures.

        Raises:
            ValueError: If the target cannot be met.
        """
        if not self._couplings() and self.of not in ("macs", "channels"):
            for name in ("minimum", "round_to"):
                value = getattr(self, name)
                needs = '1, or of="macs", of="channels" or `CoupledGroups`'
                require(value == 1, name, needs, value)
            return WeightCut(self.density, self.of, self.model, self.penalised)
        require(
            self.of != "neurons",
            "of",
            "one that counts what can be cut, with `CoupledGroups`",
            self.of,
        )
        members, penalised = self._members()
        return StructureCut(
            self.density,
            cast(Measure, self.of),
            self.model,
            members,
            penalised,
            self.minimum,
            self.round_to,
        )

    def _couplings(self) -> list:
        parts = map(penalty_of, self.penalised)
        return [p.coupling for p in parts if isinstance(p, CoupledPart)]

    def _members(self) -> tuple[Members, np.ndarray | None]:
        """Returns the members, and flags of the structures with a penalty."""
        if couplings := self._couplings():
            return couplings[0].members, None
        members = Members(structures(self.model))
        return members, members.among(self.penalised)

    def _between_batches(self, batch, logs=None):
        steps = self.params["steps"]
        if not steps:
            return
        # With several steps per call, the last call may count too many.
        done = min(batch + 1, steps)
        if (due := _UPDATES_PER_EPOCH * done // steps) > self._updates:
            self._updates = due
            self._steer((self._epoch + done / steps) / self.params["epochs"])

    def _steer(self, done):
        """Sets the strength after that share of the run, and cuts."""
        if self.settled:
            return
        density, rest = self.cut.density(), max(0.0, 1 - done / self.settle)
        if density <= self.density or not rest:
            self._finish()
            return
        path = self.density + (1 - self.density) * rest**3
        self.cut.approach(path)
        # On JAX this traces anew, with what was cut.
        self.set_strength(min((density / path) ** _GAIN, _STRONGEST))

    def _finish(self):
        """Cuts what does not fit the target."""
        self.cut.finish()
        self._settle()

    def _settle(self):
        """Begins the second phase."""
        self.settled = True
        self.strength.assign(0.0)
        retrace(self.model)
