"""Lending variables a regularizer or constraint for the length of one `fit`."""

from collections.abc import Iterable

import keras
from keras import ops

from keras_sgl0.callbacks.order import warn_of_earlier_loggers
from keras_sgl0.groups import upcast
from keras_sgl0.network.compilation import (
    optimizers,
    require_strategy_can_train,
)
from keras_sgl0.network.loans import (
    Lent,
    LentRegularizer,
    begin_fit,
    give_back,
    retrace,
)
from keras_sgl0.network.sparsity import TOLERANCE
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.regularizers import Penalty
from keras_sgl0.utils.validation import InputError, require_built


def by_path(pairs: Iterable[tuple]) -> dict:
    """Returns values by the path of their variable.

    Args:
        pairs: Variables and values.
    """
    pairs = list(pairs)
    paths = unique(variable.path for variable, _ in pairs)
    values = [value for _, value in pairs]
    return dict(zip(paths, values, strict=True))


def unique(names: Iterable[str]) -> list[str]:
    """Returns names of which none is there twice.

    Layers of two nested models may have the same name: the second one's gets
    the ending `_1` here, and so on.

    Args:
        names: Any.
    """
    found: dict[str, None] = {}
    for name in names:
        number, result = 0, name
        while result in found:
            number += 1
            result = f"{name}_{number}"
        found[result] = None
    return list(found)


class LentPenalty(LentRegularizer):
    """Stands in for a penalty of this package; what else there is stays.

    A callback that changes how a penalty is trained must leave alone what the
    layer has beside it, such as the weight decay of a kernel that has its
    penalty from `CoupledGroups`.

    Args:
        original: The penalty, or what an earlier callback lent for it.

    Attributes:
        rest: The regularizer beside the penalty, `None` without one.
    """

    def __init__(self, original):
        super().__init__(original)
        self.rest = getattr(original, "rest", None)

    def value(self, w):
        """Returns what stands in for the penalty.

        Args:
            w: Tensor or variable.
        """
        raise NotImplementedError

    def stand_in(self, w):
        """Returns that, and the regularizer beside it."""
        value = self.value(w)
        return value if self.rest is None else value + self.rest(w)


def value_of(regularizer, w):
    """Returns the value of a penalty without the regularizer beside it.

    Args:
        regularizer: A penalty, or what stands in for one.
        w: Tensor or variable.
    """
    lent = isinstance(regularizer, LentPenalty)
    return regularizer.value(w) if lent else regularizer(w)


def penalty_of(variable: keras.Variable) -> Penalty | None:
    """Returns the penalty of this package that trains a variable.

    It is the layer's own, or that of a callback such as `CoupledGroups`.

    Args:
        variable: A variable of a model, during `fit` or not.
    """
    regularizer = variable.regularizer
    while not isinstance(regularizer, Penalty | None):
        regularizer = getattr(regularizer, "original", None)
    return regularizer


class LendingCallback(keras.callbacks.Callback):
    """Base class of callbacks that lend variables a regularizer during `fit`.

    A subclass says in `lend` what a variable's regularizer, and if need be its
    constraint, is to be while the model trains. The layers' own attributes are
    left alone, so a model saved or cloned during `fit` carries the original.
    What is lent counts in the train step only (see `network.loans`): validation
    and any other `evaluate`, also one inside a callback, see the original. Of
    two such callbacks in one `fit` the later one may stand in for what the
    earlier one lent.

    Attributes:
        adds_to_logs: Whether loggers are to be listed after it.
    """

    adds_to_logs = False
    _loans: tuple = ()
    # What a copy is to have: the attributes from before the first `fit`.
    _as_new: dict | None = None

    def __getstate__(self):
        """Returns the state of a copy, which is as new.

        What a `fit` makes belongs to its model, and some of it, as what
        TensorFlow has traced, cannot be copied.
        """
        state = vars(self) if self._as_new is None else self._as_new
        return state | {"_model": None, "params": None}

    def set_model(self, model):
        """Takes the model of a `fit`."""
        if self._as_new is None:
            self._as_new = dict(vars(self))
        super().set_model(model)

    def survey(self, transfer: Transfer | None = None):
        """Finds out what `lend` needs to know of the model.

        Args:
            transfer: Where the model has just got smaller inside
                `fit_shrinking`, what of the one before is left; `None` as
                `fit` begins.
        """

    def lend(self, variable, original) -> dict[str, Lent]:
        """Returns what to lend, by attribute; nothing to leave the variable.

        Args:
            variable: A trainable variable of the model.
            original: Its regularizer, `None` if it has none; what an earlier
                callback of this `fit` lent, if one did.
        """
        return {}

    def prepare(self, variables: list):
        """Makes ready what is to be lent; the last moment to refuse.

        Args:
            variables: Those that are about to be lent something.
        """

    def refuse(self, originals: list) -> str:
        """Returns the error message for a model with nothing to lend to.

        Args:
            originals: The regularizers that the trainable variables have.
        """
        if any(isinstance(r, Lent) for r in originals):
            return (
                f"`{type(self).__name__}` found that a callback before it has "
                "taken the penalties. List it before that one."
            )
        found = sorted({type(r).__name__ for r in originals})
        return (
            f"`{type(self).__name__}` found no trainable variable with a "
            "regularizer that it can train. Pass one such as `SGL0` as "
            "`kernel_regularizer` and keep the layer trainable. Received a "
            f"model with the regularizers: {found}"
        )

    def on_train_begin(self, logs=None):
        """Lends."""
        require_built(self.model)
        require_strategy_can_train(self.model)
        if self.adds_to_logs:
            warn_of_earlier_loggers(self)
        self._lend()

    def on_shrink(self, transfer: Transfer):
        """Lends to the smaller model, and lets what it knows follow.

        Args:
            transfer: From the model before to the smaller one.
        """
        super().set_model(transfer.model)
        has_stepped = self.fit.has_stepped
        self._lend(transfer)
        self.fit.has_stepped = has_stepped

    def _lend(self, transfer=None):
        self._zeros: list[tuple] = []
        self.fit = begin_fit(self.model, self.params)
        variables = self.model.trainable_variables
        self.survey(transfer)
        loans = [(v, self.lend(v, v.regularizer)) for v in variables]
        self._loans = tuple((v, lent) for v, lent in loans if lent)
        # Where all that was lent to was cut, there is nothing left to do.
        if not self._loans and transfer is None:
            originals = [v.regularizer for v in variables]
            raise InputError(
                self.refuse([r for r in originals if r is not None])
            )
        self.prepare([v for v, _ in self._loans])
        for variable, lent in self._loans:
            for name, value in lent.items():
                value.fit, value.lender = self.fit, type(self).__name__
                setattr(variable, name, value)
        retrace(self.model)

    def on_epoch_end(self, epoch, logs=None):
        """Notes what is zero, where averages will replace the weights."""
        several = optimizers(self.model.optimizer)
        if any(getattr(one, "use_ema", False) for one in several):
            self._zeros = [
                (v, ops.convert_to_numpy(ops.abs(upcast(v)) < TOLERANCE))
                for v, _ in self._loans
            ]

    def keep_zeros(self):
        """Sets to zero what was zero before averages replaced the weights."""
        for variable, zero in self._zeros:
            kept = ops.convert_to_numpy(ops.logical_not(zero))
            variable.assign(variable * ops.cast(kept, variable.dtype))
        self._zeros = []

    def on_train_end(self, logs=None):
        """Takes back what was lent."""
        self.keep_zeros()
        self._loans = ()
        give_back(self.model)
