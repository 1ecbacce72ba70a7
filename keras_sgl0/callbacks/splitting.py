"""Variable splitting: how the l0 part of a sparse group penalty is trained."""

import contextlib

import keras
from keras import ops

from keras_sgl0.callbacks.lending import LendingCallback, LentRegularizer
from keras_sgl0.compilation import compiled
from keras_sgl0.groups import upcast
from keras_sgl0.regularizers import ElementwisePenalty, SparseGroup
from keras_sgl0.validation import choice, finite_float, integer


class SplitPenalty(LentRegularizer):
    """The W-part of `F_beta(V, W)` for one kernel, with `V = prox(W)` or held.

    `group(W) + element(V) + beta/2 * ||V - W||^2`, where no gradient flows
    into `V` (Bui et al., eqs. 7 and 8). `element(V)` has no gradient then; it
    is there so that the loss Keras shows is the objective being minimised.

    Args:
        original: The penalty of the kernel: a sparse group penalty, or an
            elementwise one alone.
        beta: Scalar variable.
        held: The variable that holds V, or `None` to take `V = prox(W)`
            inside the step.
    """

    def __init__(self, original, beta, held=None):
        super().__init__(original)
        self.beta = beta
        self.held = held

    @property
    def element(self) -> ElementwisePenalty:
        """The part of the penalty that V carries."""
        return getattr(self.original, "element", self.original)

    def threshold(self):
        """Returns the largest `|w|` that the V step sets to zero."""
        return self.element.threshold(1.0 / ops.convert_to_tensor(self.beta))

    def v_step(self, w):
        """Returns `argmin_V element(V) + beta/2 * ||V - w||^2` (eq. 10)."""
        return self.element.prox(w, 1.0 / ops.convert_to_tensor(self.beta))

    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32."""
        w = upcast(w)
        v = self.v_step(w) if self.held is None else self.held
        v = ops.stop_gradient(ops.convert_to_tensor(v))
        coupling = ops.sum(ops.square(w - v))
        penalty = self.element(v) + 0.5 * self.beta * coupling
        if self.original is not self.element:
            penalty += self.original.group(w)
        return penalty


class VariableSplitting(LendingCallback):
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

    At each epoch's end `beta` and `threshold` are put into the logs (one
    threshold a kernel, `threshold/<path>`, where penalties differ); list this
    callback before loggers such as `CSVLogger`.

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

    Attributes:
        beta: Scalar variable with the current beta, `None` before `fit`.
        v: Dict from a kernel's path to the variable that holds its V, in
            at least float32.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty to split, or if `"batch"` cannot
            be right there.

    Example:
        >>> layer = keras.layers.Dense(10, kernel_regularizer=SGL0(1e-5))
        >>> model = keras.Sequential([layer])
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
    ):
        super().__init__()
        self.initial_beta = finite_float("beta", beta, above=0)
        self.growth = finite_float("growth", growth, at_least=1)
        self.every = integer("every", every, at_least=1)
        self.refresh = choice("refresh", refresh, ("step", "batch"))
        self.beta = None
        self._held = {}
        if self.refresh == "batch":
            # Not a method: a batch hook, even an empty one, costs every step.
            self.on_train_batch_end = lambda batch, logs=None: self._update_v()

    def beta_at(self, epoch: int) -> float:
        """Returns the beta of an epoch, counted from 0."""
        return self.initial_beta * self.growth ** (epoch // self.every)

    @property
    def v(self) -> dict:
        """Maps each split kernel's path to the variable that holds its V."""
        return {w.path: held for w, held in self._held.values()}

    def on_train_begin(self, logs=None):
        """Makes beta and V and lends the split penalties."""
        if self.refresh == "batch":
            self._require_batch_refresh_is_right()
        self._held = {}
        with self._variable_scope():
            self.beta = keras.Variable(
                self.initial_beta,
                trainable=False,
                dtype="float32",
                name="splitting_beta",
            )
            super().on_train_begin(logs)
        self._update_v = compiled(self._assign_v)
        self._update_v()

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch's beta and, where it grew, brings V up to date."""
        beta = self.beta_at(epoch)
        if beta == float(ops.convert_to_numpy(self.beta)):
            return
        self.beta.assign(beta)
        self._update_v()
        if keras.backend.backend() == "jax":
            # There a variable outside the model is a constant of the trace.
            self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch, logs=None):
        """Brings V up to date and puts beta and the threshold into `logs`."""
        if self.refresh == "step":
            self._update_v()
        if logs is not None:
            logs["beta"] = self.beta_at(epoch)
            logs.update(self._thresholds())

    def lend(self, variable, original):
        """Returns the split penalty for a kernel that has one to split."""
        if not isinstance(original, (SparseGroup, ElementwisePenalty)):
            return None
        held = keras.Variable(
            ops.convert_to_numpy(upcast(variable)),
            trainable=False,
            name=f"splitting_v_{variable.name}",
        )
        self._held[id(variable)] = (variable, held)
        return SplitPenalty(
            original, self.beta, held if self.refresh == "batch" else None
        )

    def refuse(self, originals):
        """Returns the error message for a model with nothing to split."""
        found = sorted({type(r).__name__ for r in originals})
        return (
            "`VariableSplitting` found no trainable variable whose regularizer "
            "is a sparse group penalty such as `SGL0` or an elementwise one "
            "such as `L0`. Pass one as `kernel_regularizer` and keep the layer "
            f"trainable. Received a model with the regularizers: {found}"
        )

    def _require_batch_refresh_is_right(self):
        steps = self.model.steps_per_execution
        if steps > 1:
            raise ValueError(
                '`refresh="batch"` updates V between batches and Keras runs '
                'several batches a call. Use `refresh="step"` or compile '
                f"with `steps_per_execution=1`. Received: {steps}"
            )
        if keras.backend.backend() == "jax":
            raise ValueError(
                '`refresh="batch"` cannot work on the JAX backend, where a '
                "variable outside the model is a constant of the compiled "
                'step. Use `refresh="step"`, which gives the same numbers.'
            )

    def _variable_scope(self):
        strategy = getattr(self.model, "distribute_strategy", None)
        return strategy.scope() if strategy else contextlib.nullcontext()

    def _assign_v(self):
        for variable, loan in self._loans:
            held = self._held[id(variable)][1]
            held.assign(loan.v_step(upcast(variable)))

    def _thresholds(self):
        values = {
            f"threshold/{variable.path}": float(
                ops.convert_to_numpy(loan.threshold())
            )
            for variable, loan in self._loans
        }
        if len(set(values.values())) == 1:
            return {"threshold": next(iter(values.values()))}
        return values
