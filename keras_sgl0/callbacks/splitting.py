"""Variable splitting: how a penalty without a gradient is trained."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sgl0.callbacks.lending import (
    LendingCallback,
    LentPenalty,
    by_path,
)
from keras_sgl0.groups import upcast, wide_dtype
from keras_sgl0.network.compilation import compiled, scope_of
from keras_sgl0.network.loans import retrace
from keras_sgl0.regularizers import ElementwisePenalty, Penalty
from keras_sgl0.utils.gradients import with_gradient
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    integer,
    require,
)

REFRESHES = ("step", "batch")


class SplitPenalty(LentPenalty):
    """The W-part of `F_beta(V, W)` for one kernel, with V computed or held.

    `group(W) + element(V) + beta/2 * ||W - V + U||^2`, where no gradient flows
    into `V` (Bui et al., eqs. 7 and 8) and the scaled dual variable `U` is 0
    but for ADMM. `element(V)` has no gradient then; it is there so that the
    loss Keras shows is the objective being minimised.

    Args:
        original: The penalty of the kernel: a sparse group penalty, or an
            elementwise one alone.
        beta: Scalar variable.
        held: The variable that holds V, or `None` to take `V = prox(W)`
            inside the step.
        dual: The variable that holds U, or `None` for 0.
    """

    def __init__(self, original, beta, held=None, dual=None):
        super().__init__(original)
        self.beta = beta
        self.held = held
        self.dual = dual

    @property
    def element(self) -> ElementwisePenalty:
        """The part of the penalty that V carries."""
        return self.original.element

    def threshold(self):
        """Returns the largest `|w|` that the V step sets to zero."""
        return self.element.threshold(1.0 / ops.convert_to_tensor(self.beta))

    def v_step(self, w):
        """Returns `argmin_V element(V) + beta/2 * ||V - w||^2` (eq. 10)."""
        return self.element.prox(w, 1.0 / ops.convert_to_tensor(self.beta))

    def value(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""
        penalty = with_gradient(self._split(), upcast(w))
        if self.original.group is not None:
            penalty += self.original.group(w)
        return penalty

    def _split(self):
        """Returns a function of `w`, for `with_gradient`.

        It is `element(V) + beta/2 * ||w - V + U||^2`.
        """

        # Read out here: TensorFlow allows no trainable variable in there.
        def read(x):
            return ops.stop_gradient(ops.convert_to_tensor(x))

        beta = read(self.beta)
        if self.held is None:
            return lambda w: self.element.envelope(w, 1.0 / beta)
        v = read(self.held)
        u = None if self.dual is None else read(self.dual)

        def split(w):
            gap = w - v if u is None else w - v + u
            value = self.element(v) + 0.5 * beta * ops.sum(ops.square(gap))
            return value, lambda upstream: (upstream * beta) * gap

        return split


class Splitting(LendingCallback):
    """Base class of callbacks that split `element(W)` off into `element(V)`.

    It finds the kernels, holds a V for each, lets beta grow with the epochs
    and puts `beta` and `threshold` into the logs.

    Args:
        beta: The coupling of the first epoch. Greater than 0.
        growth: What beta is multiplied by. At least 1.
        every: The number of epochs between two growths.

    Attributes:
        beta: Scalar variable with the current beta, `None` before `fit`.
        v: Dict from a kernel's path to the variable that holds its V, in
            at least float32.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty to split, or if beta is too small
            for the proximal operator of one, or infinite in a later epoch.
    """

    adds_to_logs = True

    def __init__(self, beta: float, growth: float, every: int):
        super().__init__()
        self.initial_beta = finite_float("beta", beta, above=0)
        self.growth = finite_float("growth", growth, at_least=1)
        self.every = integer("every", every, at_least=1)
        # Made when `fit` begins.
        self.beta: Any = None
        self.v_is_stale = True
        self._held: dict[int, tuple] = {}

    @property
    def v(self) -> dict:
        """Maps each split kernel's path to the variable that holds its V."""
        return by_path(self._held.values())

    def beta_at(self, epoch: int) -> float:
        """Returns the beta of an epoch, counted from 0."""
        return self.initial_beta * self.growth ** (epoch // self.every)

    def make_beta(self, name: str) -> keras.Variable:
        """Returns a new variable with the beta of the first epoch.

        Args:
            name: Of the variable.
        """
        return keras.Variable(
            self.initial_beta,
            trainable=False,
            dtype=_dtype(self.model),
            name=name,
        )

    def beta_of(self, kernel):
        """Returns the variable that holds the beta of a kernel.

        Args:
            kernel: A kernel that is split.
        """
        return self.beta

    def split(self, original, beta, held) -> SplitPenalty:
        """Returns the penalty to lend to a kernel.

        Args:
            original: The kernel's own penalty.
            beta: The variable that holds its beta.
            held: The variable that holds its V.
        """
        return SplitPenalty(original, beta, held)

    def on_train_begin(self, logs=None):
        """Makes beta and room for V and lends the split penalties."""
        self._require_finite_beta()
        self._held = {}
        with scope_of(self.model):
            self.beta = self.make_beta("splitting_beta")
            super().on_train_begin(logs)
        self._update_v = compiled(self._assign_v)
        self.v_is_stale = True

    def on_shrink(self, transfer):
        """Takes what is left of V to the smaller model."""
        before = list(self._held.values())
        self._held = {}
        with scope_of(transfer.model):
            super().on_shrink(transfer)
        for variable, held in before:
            _, new = self._held[id(transfer.of(variable))]
            new.assign(transfer.take(variable, held))
        self._update_v = compiled(self._assign_v)

    def _require_finite_beta(self):
        """Refuses a beta that would be infinite before the end of `fit`."""
        epochs = (self.params or {}).get("epochs") or 0
        if self.growth == 1:
            return
        # In logarithms, as the power itself may overflow.
        most = float(np.finfo(_dtype(self.model)).max)
        room = math.log(most) - math.log(self.initial_beta)
        first = (int(room / math.log(self.growth)) + 1) * self.every
        if first < epochs:
            raise InputError(
                f"`beta` would be infinite from epoch {first} on: it begins "
                f"at {self.initial_beta} and is multiplied by `growth` every "
                f"{self.every} epochs. Choose a smaller `growth` or a larger "
                f"`every`. Received: growth={self.growth}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch's beta, and V where it is stale."""
        before = float(ops.convert_to_numpy(self.beta))
        self.beta.assign(self.beta_at(epoch))
        if before != float(ops.convert_to_numpy(self.beta)):
            self.on_beta_change(before)
            self.retrace_constants()
        # Not before, as a later callback may have restored the weights.
        if self.v_is_stale:
            self._update_v()
            self.retrace_constants()
            self.v_is_stale = False

    def on_beta_change(self, before: float):
        """Follows a change of beta at the beginning of an epoch.

        Args:
            before: What beta was.
        """

    def on_epoch_end(self, epoch, logs=None):
        """Puts beta and the threshold into `logs`."""
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["beta"] = self.beta_at(epoch)
            logs.update(self._thresholds())

    def lend(self, variable, original):
        """Returns the split penalty for a kernel that has one to split."""
        if not isinstance(original, Penalty) or original.element is None:
            return {}
        held = keras.Variable(
            ops.convert_to_numpy(upcast(variable)),
            trainable=False,
            dtype=wide_dtype(variable),
            name=f"splitting_v_{variable.name}",
        )
        lent = self.split(original, self.beta_of(variable), held)
        lent.element.validate_step(1 / self.initial_beta)
        self._held[id(variable)] = (variable, held)
        return {"regularizer": lent}

    def retrace_constants(self):
        """Traces the train step anew where it has beta and V as constants."""
        if keras.backend.backend() == "jax":
            retrace(self.model)

    def _assign_v(self):
        for variable, lent in self._loans:
            held = self._held[id(variable)][1]
            held.assign(lent["regularizer"].v_step(upcast(variable)))

    def _thresholds(self):
        thresholds = by_path(
            (w, float(ops.convert_to_numpy(lent["regularizer"].threshold())))
            for w, lent in self._loans
        )
        values = {f"threshold/{path}": t for path, t in thresholds.items()}
        betas = {id(lent["regularizer"].beta) for _, lent in self._loans}
        if len(set(values.values())) == len(betas) == 1:
            return {"threshold": next(iter(values.values()))}
        return values


def _dtype(model):
    dtypes = {v.dtype for v in model.trainable_variables}
    return "float64" if "float64" in dtypes else "float32"


class VariableSplitting(Splitting):
    r"""Trains sparse group penalties by variable splitting.

    For every kernel whose penalty is a `SparseGroup` (`SGL0`, ...) or an
    elementwise penalty alone, the objective `L(W) + group(W) + element(W)` is
    replaced during `fit` by

    `F_beta(V, W) = L(W) + group(W) + element(V) + beta/2 * ||V - W||^2`

    The optimizer takes the W steps; after each, `V = prox_{element/beta}(W)`.
    For `SGL0` that is hard thresholding at `sqrt(2 * factor / beta)`. Epoch
    `e` uses `beta * growth ** (e // every)`, a function of the epoch alone,
    so a resumed run needs no state of this callback.

    The forward pass, the evaluation and the saved model use W. Call
    `apply_threshold` on the trained model to get exact zeros.

    At each epoch's end `beta` and `threshold` are put into the logs (one a
    kernel, `threshold/<path>`, where they differ): list loggers after it.

    Args:
        beta: The coupling of the first epoch. Greater than 0. The paper uses
            25 times the penalty's factor.
        growth: What beta is multiplied by, sigma in the paper. At least 1.
        every: The number of epochs between two growths.
        refresh: How V follows W. `"step"` (default): V is computed inside the
            compiled train step from the W at hand, which is V refreshed after
            every batch at no extra call. It works with `steps_per_execution`,
            `jit_compile` and every backend; the held V variables are brought
            up to date at each epoch's end. `"batch"`: the held V variables
            stand in the loss and one call updates them after each batch,
            Algorithm 1 to the letter. Both give the same numbers. `"batch"`
            needs `steps_per_execution=1` and cannot work on JAX.
        grows: A function of a kernel that says whether its beta grows; the
            others keep the first epoch's. Default: that of all does, as the
            paper writes it; in the authors' code only that of convolutions,
            `grows=lambda kernel: len(kernel.shape) > 2`.

    Attributes:
        beta: Scalar variable with the current beta, `None` before `fit`.
        v: Dict from a kernel's path to the variable that holds its V, in
            at least float32.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty to split, if beta is too small
            for the proximal operator of one, or if `"batch"` cannot be right.

    Example:
        >>> layer = keras.layers.Dense(10, kernel_regularizer=SGL0(1e-5))
        >>> model = keras.Sequential([keras.Input((784,)), layer])
        >>> model.compile("adam", "mse")
        >>> model.fit(x, y, callbacks=[VariableSplitting(beta=25e-5)])

    Reference:
        Bui et al., arXiv 1912.07868, eqs. 7 to 11 and Algorithm 1.
    """

    def __init__(
        self,
        beta: float,
        growth: float = 1.25,
        every: int = 40,
        refresh: str = "step",
        grows: Callable[[keras.Variable], bool] | None = None,
    ):
        super().__init__(beta, growth, every)
        require(grows is None or callable(grows), "grows", "a function", grows)
        self.grows = grows
        self.refresh = choice("refresh", refresh, REFRESHES)
        if self.refresh == "batch":
            # Not a method: a batch hook, even an empty one, costs every step.
            self.on_train_batch_end = self._after_batch

    def beta_of(self, kernel):
        """Returns the variable that holds the beta of a kernel."""
        if self.grows is None or self.grows(kernel):
            return self.beta
        return self._initial

    def split(self, original, beta, held):
        """Returns the penalty to lend to a kernel."""
        held_in_loss = held if self.refresh == "batch" else None
        return SplitPenalty(original, beta, held_in_loss)

    def on_train_begin(self, logs=None):
        """Makes beta and V and lends the split penalties."""
        if self.refresh == "batch":
            self._require_batch_refresh_is_right()
        if self.grows is not None:
            with scope_of(self.model):
                self._initial = self.make_beta("splitting_initial_beta")
        super().on_train_begin(logs)

    def on_beta_change(self, before):
        """Asks for a V of the new beta."""
        self.v_is_stale = True

    def on_epoch_end(self, epoch, logs=None):
        """Brings V up to date and puts beta and the threshold into `logs`."""
        if self.refresh == "step":
            self._update_v()
        super().on_epoch_end(epoch, logs)

    def _after_batch(self, batch, logs=None):
        self._update_v()

    def _require_batch_refresh_is_right(self):
        steps = self.model.steps_per_execution
        if steps > 1:
            raise InputError(
                '`refresh="batch"` updates V between batches and Keras runs '
                'several batches a call. Use `refresh="step"` or compile '
                f"with `steps_per_execution=1`. Received: {steps}"
            )
        if keras.backend.backend() == "jax":
            raise InputError(
                '`refresh="batch"` cannot work on the JAX backend, where a '
                "variable outside the model is a constant of the compiled "
                'step. Use `refresh="step"`, which gives the same numbers.'
            )
