"""The alternating direction method of multipliers."""

import os

import keras
from keras import ops

from keras_sgl0.callbacks.lending import by_path
from keras_sgl0.callbacks.splitting import SplitPenalty, Splitting
from keras_sgl0.callbacks.state_file import StateFile
from keras_sgl0.groups import upcast
from keras_sgl0.network.compilation import compiled
from keras_sgl0.utils.validation import InputError, file_path


class ADMM(Splitting):
    r"""Trains sparse group penalties by the alternating direction method.

    As `VariableSplitting`, with a scaled dual variable U beside V: during an
    epoch the optimizer takes W steps on

    `L(W) + group(W) + element(V) + beta/2 * ||W - V + U||^2`

    with V and U held; at the epoch's end `V = prox_{element/beta}(W + U)` and
    `U = U + W - V`. Where splitting with a fixed beta leaves a gap between W
    and V, the dual variable closes it, so beta need not grow.

    V, U and beta are state that no model file holds: a `fit` starts with `V =
    prox(W)` and `U = 0`. With `backup`, they are written to a file at each
    epoch's end, and a `fit` that begins at a later epoch reads them. So a run
    that `BackupAndRestore` goes on with, or a model of `ModelCheckpoint` with
    `initial_epoch`, is trained as if it had not been stopped. On JAX the train
    step is compiled anew each epoch, since V and U are constants of it there.

    Args:
        beta: The coupling of the first epoch, rho in the ADMM literature.
            Greater than 0.
        growth: What beta is multiplied by. At least 1.
        every: The number of epochs between two growths.
        backup: The file for V, U and beta, such as `"admm.npz"`. It holds the
            last two epochs, as a run may be stopped when this file is written
            and the model's is not. `None` for no file.

    Attributes:
        beta: Scalar variable with the current beta, `None` before `fit`.
        v: Dict from a kernel's path to the variable that holds its V, in
            at least float32.
        u: The same for the scaled dual variables.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty to split, or if beta is too small
            for the proximal operator of one; or if `backup` holds another
            epoch or model than the one that `fit` begins with.

    Example:
        >>> model.fit(x, y, epochs=50, callbacks=[ADMM(beta=25e-5)])
        >>> admm = ADMM(beta=25e-5, backup="admm.npz")
        >>> restore = keras.callbacks.BackupAndRestore("backup")
        >>> model.fit(x, y, epochs=50, callbacks=[admm, restore])

    Reference:
        Boyd, Parikh, Chu, Peleato, Eckstein: Distributed optimization and
        statistical learning via the alternating direction method of
        multipliers, 2011, section 3.1.1; named as future work in Bui et al.
    """

    def __init__(
        self,
        beta: float,
        growth: float = 1.0,
        every: int = 40,
        backup: str | os.PathLike | None = None,
    ):
        super().__init__(beta, growth, every)
        self.backup = None
        if backup is not None:
            self.backup = StateFile(file_path("backup", backup))
        self._trained: tuple = ()
        self._kept: dict = {}

    @property
    def u(self) -> dict:
        """Maps each split kernel's path to its scaled dual variable."""
        return by_path((w, p["regularizer"].dual) for w, p in self._trained)

    def split(self, original, beta, held):
        """Returns the penalty to lend to a kernel."""
        dual = keras.Variable(
            ops.zeros(held.shape, held.dtype),
            trainable=False,
            dtype=held.dtype,
            name=held.name.replace("_v_", "_u_"),
        )
        return SplitPenalty(original, beta, held, dual)

    def on_train_begin(self, logs=None):
        """Makes beta, V and U and lends the split penalties."""
        super().on_train_begin(logs)
        self._trained = self._loans
        self._update_dual = compiled(self._assign_v_and_u)
        self._load_kept()
        self._is_first_epoch = True

    def on_shrink(self, transfer):
        """Takes what is left of V and U to the smaller model."""
        before = [(v, lent["regularizer"].dual) for v, lent in self._trained]
        stale = self.v_is_stale
        super().on_shrink(transfer)
        self._trained = self._loans
        duals = {id(v): lent["regularizer"].dual for v, lent in self._loans}
        for variable, dual in before:
            new = duals[id(transfer.of(variable))]
            new.assign(transfer.take(variable, dual))
        self._update_dual = compiled(self._assign_v_and_u)
        if self._kept:
            self._load_kept()
        else:
            self.v_is_stale = stale

    def _load_kept(self):
        """Assigns what `load_own_variables` was given."""
        own = dict(self._own_variables())
        if self._kept and self._kept.keys() != own.keys():
            raise InputError(
                "Invalid value for argument `store`. Expected what "
                f"`save_own_variables` kept of this model: {sorted(own)}. "
                f"Received: store={sorted(self._kept)}"
            )
        for name, value in self._kept.items():
            own[name].assign(value)
        self.v_is_stale = not self._kept
        self._kept = {}

    def on_epoch_begin(self, epoch, logs=None):
        """Reads the backup in the first epoch, and sets the epoch's beta."""
        if self.backup is not None and self._is_first_epoch and epoch:
            own = [variable for _, variable in self._own_variables()]
            shapes = [tuple(variable.shape) for variable in own]
            state = self.backup.read(epoch, shapes)
            if state is not None:
                self.v_is_stale = False
                for variable, value in zip(own, state, strict=True):
                    variable.assign(value)
        self._is_first_epoch = False
        super().on_epoch_begin(epoch, logs)

    def on_beta_change(self, before):
        """Scales U, which is the multiplier over beta."""
        for dual in self.u.values():
            dual.assign(dual * (before / self.beta))

    def on_epoch_end(self, epoch, logs=None):
        """Takes the V and the U step; beta and the threshold into `logs`."""
        self._update_dual()
        self.retrace_constants()
        super().on_epoch_end(epoch, logs)
        if self.backup is not None:
            own = [ops.convert_to_numpy(v) for _, v in self._own_variables()]
            self.backup.write(epoch + 1, own)

    def _assign_v_and_u(self):
        for variable, lent in self._loans:
            penalty = lent["regularizer"]
            shifted = upcast(variable) + penalty.dual
            v = penalty.v_step(shifted)
            penalty.held.assign(v)
            penalty.dual.assign(shifted - v)

    def save_own_variables(self, store: dict):
        """Puts V, U and beta into a dict, as a layer does.

        Args:
            store: Where they go, as NumPy arrays by name.
        """
        for name, variable in self._own_variables():
            store[name] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: dict):
        """Lets the next `fit` begin with them.

        Args:
            store: What `save_own_variables` put there. That `fit` refuses
                names that are not those of its model.
        """
        self._kept = dict(store)

    def _own_variables(self):
        if self.beta is not None:
            yield "beta", self.beta
        for name, variables in (("v", self.v), ("u", self.u)):
            for path, variable in variables.items():
                yield f"{name}/{path}", variable
