"""The alternating direction method of multipliers."""

import keras
from keras import ops

from keras_sgl0.callbacks.lending import by_path
from keras_sgl0.callbacks.splitting import SplitPenalty, Splitting
from keras_sgl0.groups import upcast
from keras_sgl0.network.compilation import compiled


class ADMM(Splitting):
    r"""Trains sparse group penalties by the alternating direction method.

    As `VariableSplitting`, with a scaled dual variable U beside V: during an
    epoch the optimizer takes W steps on

    `L(W) + group(W) + element(V) + beta/2 * ||W - V + U||^2`

    with V and U held; at the epoch's end `V = prox_{element/beta}(W + U)` and
    `U = U + W - V`. Where splitting with a fixed beta leaves a gap between W
    and V, the dual variable closes it, so beta need not grow.

    V, U and beta are state that no model file holds: a `fit` starts with `V =
    prox(W)` and `U = 0`, unless `load_own_variables` gave it those that
    `save_own_variables` had kept. On JAX the train step is compiled anew each
    epoch, since V and U are constants of it there.

    Args:
        beta: The coupling of the first epoch, rho in the ADMM literature.
            Greater than 0.
        growth: What beta is multiplied by. At least 1.
        every: The number of epochs between two growths.

    Attributes:
        beta: Scalar variable with the current beta, `None` before `fit`.
        v: Dict from a kernel's path to the variable that holds its V, in
            at least float32.
        u: The same for the scaled dual variables.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if no
            trainable variable has a penalty to split, or if beta is too small
            for the proximal operator of one.

    Example:
        >>> model.fit(x, y, epochs=50, callbacks=[ADMM(beta=25e-5)])

    Reference:
        Boyd, Parikh, Chu, Peleato, Eckstein: Distributed optimization and
        statistical learning via the alternating direction method of
        multipliers, 2011, section 3.1.1; named as future work in Bui et al.
    """

    def __init__(self, beta: float, growth: float = 1.0, every: int = 40):
        super().__init__(beta, growth, every)
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
        for name, variable in self._own_variables():
            if name in self._kept:
                variable.assign(self._kept[name])
        self.v_is_stale = not self._kept
        self._kept = {}

    def on_beta_change(self, before):
        """Scales U, which is the multiplier over beta."""
        for dual in self.u.values():
            dual.assign(dual * (before / self.beta))

    def on_epoch_end(self, epoch, logs=None):
        """Takes the V and the U step; beta and the threshold into `logs`."""
        self._update_dual()
        self.retrace_constants()
        super().on_epoch_end(epoch, logs)

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
            store: What `save_own_variables` put there.
        """
        self._kept = dict(store)

    def _own_variables(self):
        if self.beta is not None:
            yield "beta", self.beta
        for name, variables in (("v", self.v), ("u", self.u)):
            for path, variable in variables.items():
                yield f"{name}/{path}", variable
