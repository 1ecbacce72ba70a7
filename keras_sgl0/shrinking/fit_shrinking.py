"""Training on a network that shrinks on the way."""

import os
from typing import Any

import keras

from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.network.compilation import compile_like, scope_of
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.loans import give_back, require_no_fit
from keras_sgl0.network.optimizers import moved, require_movable
from keras_sgl0.network.own_methods import (
    LOOPS,
    STEPS,
    require_no_own,
    require_no_preprocessing,
)
from keras_sgl0.network.transfer import Transfer
from keras_sgl0.shrinking.backup import Backup
from keras_sgl0.shrinking.following import Limits, follow, follow_again
from keras_sgl0.structures.families import structures
from keras_sgl0.utils.validation import (
    file_path,
    finite_float,
    integer,
    invalid,
    require,
)


def fit_shrinking(
    model: keras.Model,
    *data: Any,
    shrink_every: int = 5,
    least: float = 0.1,
    tolerance: float = 0.0,
    minimum: int = 1,
    round_to: int | None = None,
    backup: str | os.PathLike | None = None,
    **fit_arguments: Any,
) -> tuple[keras.Model, keras.callbacks.History]:
    r"""Trains as `fit` does, on a network that loses what is dead on the way.

    After every `shrink_every` epochs, channels that are dead are cut out of
    the network, of the state of the optimizer and of the callbacks, and
    training goes on with the smaller network. To callbacks it is one `fit`.
    One with state of the shape of a variable has a method
    `on_shrink(transfer)`, as those of this package have, see
    `network.transfer.Transfer`; all others get the smaller model by
    `set_model`.

    *What is dead.* First, a structure (see `structures`) of which no member is
    larger than `tolerance`: by default, all are exactly zero, as after
    `ProximalStep` or `TargetDensity`. A larger tolerance is a rule for
    penalties that never reach zero. Second, what is then zero for every input
    or read by nothing, as in `shrink`. A channel that is a constant other than
    zero stays: as part of other biases it would be trained another way.

    *What is the same.* A cut changes no output of the network. From then on
    the rest is trained as in the whole network if all that was cut is set to
    zero there, with its state of the optimizer and of callbacks: weights that
    read or make a dead channel, too, which then count in no penalty. Such
    zeros have no gradient. So death is final, where a channel of which only
    the one or the other is zero might come back. What is left has the
    penalties that it had: the weight `sqrt(|g|)` of a group is that of the
    original size. Dropout draws other numbers. Of moving averages of the
    weights, those of dead channels are zero at once.

    *Data.* Each cut begins anew with `x`, so that arrays that are shuffled
    have another order. For data that runs on from epoch to epoch, with
    `steps_per_epoch`, give a function of the epoch. A `tf.data.Dataset` that
    tunes itself takes up to a minute to end, and so does each cut: set
    `options.autotune.enabled = False` for it.

    Args:
        model: A built, compiled model. After a cut it is not trained any more.
        *data: `x` and `y`, as `fit` takes them. In the place of `x` a
            function may return it, given the epoch, counted from 0, at which
            training goes on.
        shrink_every: The number of epochs from one look to the next.
        least: The share of the multiply-adds that a cut must save, in [0, 1);
            of the parameters, where the sizes of the inputs are not known. A
            cut costs the time to trace the model.
        tolerance: A structure with no larger member is dead. At least 0.
        minimum: A layer keeps this many channels, be they dead.
        round_to: Layers keep a multiple of this many channels; `None` for any
            number.
        backup: The file, such as `"training.npz"`, that a killed training goes
            on from, with the smaller network: call this function again, with
            a model made alike. It takes the place of `BackupAndRestore`.
            `None` for no file.
        **fit_arguments: All else that `fit` takes, such as `epochs`.

    Returns:
        The trained model, compiled; the one passed in if nothing was cut. What
        died after the last cut, or saves less than `least`, is still in it:
        `shrink` cuts it. And
        the `History`, which also has `cuts`: pairs of the number of epochs
        before a cut and the number of parameters after it, and `transfer`:
        the way from the model passed in to the one returned, `None` if
        nothing was cut.

    Raises:
        ValueError: If an argument is out of range, the model is not compiled,
            cannot be traced, has a `train_step` of its own or gates, which
            are never zero for sure, if the optimizer's state has other shapes
            than the variables, a callback cannot follow, or `backup` is of
            another model.

    Example:
        >>> callbacks = [
        ...     ks.CoupledGroups(ks.GroupLasso(1e-3)),
        ...     ks.ProximalStep(),
        ... ]
        >>> small, history = ks.fit_shrinking(
        ...     model, x, y, epochs=60, callbacks=callbacks
        ... )
        >>> history.cuts
        [(5, 101320), (10, 40102)]
        >>> small, report = ks.shrink(small)  # what died since
    """
    require_no_preprocessing(model)
    require(model.compiled, "model", "a compiled model", model)
    require_no_fit(model, "fit_shrinking")
    integer("shrink_every", shrink_every, at_least=1)
    if round_to is not None:
        integer("round_to", round_to, at_least=1)
    limits = Limits(
        least=finite_float("least", least, at_least=0, below=1),
        tolerance=finite_float("tolerance", tolerance, at_least=0),
        minimum=integer("minimum", minimum, at_least=1),
        round_to=round_to,
    )
    require(len(data) <= 2, "data", "`x` and `y`, all else by name", data)
    arguments = dict(zip(("x", "y"), data, strict=False)) | fit_arguments
    integer("epochs", arguments.setdefault("epochs", 1), at_least=0)
    path = None if backup is None else file_path("backup", backup)
    _require_no_gates(model)
    require_no_own(model, (*STEPS, *LOOPS))
    callbacks = _flat(arguments.get("callbacks"))
    give_back(model)  # an exception may have ended the last `fit`
    structures(model)  # raises where it cannot be traced
    with scope_of(model):
        require_movable(model)
    course = _Course(model, limits, shrink_every, Backup(path), callbacks)
    return course.run(arguments)


class _Course(keras.callbacks.Callback):
    """One training in several calls of `fit`; the last of the callbacks.

    Args:
        model: The original model.
        limits: What is cut.
        every: After how many epochs.
        backup: What holds the state.
        callbacks: The callbacks of the caller.

    Attributes:
        has_begun: Whether the callbacks were told that training begins.
        goes_on: Whether another `fit` follows the one at hand.
    """

    def __init__(self, model, limits, every, backup, callbacks):
        super().__init__()
        self._current = model
        self._limits = limits
        self._every = every
        self._backup = backup
        self._callbacks = callbacks
        self._history = _History(backup)
        self._resumes = backup.done is not None
        self._transfer: Transfer | None = None
        self.has_begun = self.goes_on = False

    def run(self, arguments):
        """Trains; returns the model and the history.

        Args:
            arguments: Those of `fit`, by name.
        """
        several = [_Once(one, self) for one in self._callbacks]
        x = arguments.get("x")
        self._epochs = arguments["epochs"]
        self._next = arguments.get("initial_epoch", 0)
        if self._resumes:
            over = self._backup.finished
            self._next = self._epochs if over else self._backup.done
            if not self._backup.has_cut:
                self._backup.restore_callbacks(self._callbacks)
        self.goes_on = True
        while self.goes_on:
            self.goes_on = False
            start = self._next
            if self._resumes and self._backup.has_cut:
                start = self._epochs  # the cut comes before any epoch
            own = {
                "x": x(self._next) if callable(x) else x,
                "initial_epoch": start,
                "callbacks": [*several, self._history, self],
            }
            self._current.fit(**arguments | own)
        return self._current, self._history

    def on_train_begin(self, logs=None):
        """Goes on where a killed training was."""
        self.has_begun = True
        if not self._resumes:
            return
        self._resumes, backup = False, self._backup
        if backup.has_cut:
            places = backup.places(self._current)
            with scope_of(self._current):
                transfer = follow_again(self._current, self._limits, places)
            backup.restore_callbacks(self._callbacks)
            self._shrink(transfer)
        with scope_of(self._current):
            backup.restore(self._current)

    def on_epoch_end(self, epoch, logs=None):
        """Cuts what is dead, and writes the state."""
        done = epoch + 1
        over = self._current.stop_training or done >= self._epochs
        if not over and done % self._every == 0:
            with scope_of(self._current):
                transfer = follow(self._current, self._limits)
            if transfer is not None:
                self._next = done
                self._shrink(transfer)
                size = self._current.count_params()
                self._history.cuts.append((done, size))
        self._backup.save(
            done,
            over,
            self._history,
            self._current,
            self._transfer,
            self._callbacks,
        )

    def _shrink(self, transfer):
        """Lets the optimizer and the callbacks follow to a smaller model."""
        before, after = self._current, transfer.model
        with scope_of(before):
            compile_like(after, before, moved(before.optimizer, transfer))
        after.history = self._history
        give_back(before)
        for callback in self._callbacks:
            if hasattr(callback, "on_shrink"):
                callback.on_shrink(transfer)
            else:
                callback.set_model(after)
        total = self._transfer
        self._transfer = transfer if total is None else total.then(transfer)
        self._history.transfer = self._transfer
        self._current = after
        self.goes_on = before.stop_training = True


class _Once(keras.callbacks.Callback):
    """A callback for which several calls of `fit` are one.

    Args:
        callback: The callback.
        course: The training.
    """

    _OWN = ("on_train_begin", "on_train_end")

    def __init__(self, callback, course):
        super().__init__()
        self._callback = callback
        self._course = course
        # Not methods: Keras sees which hooks of the callback do nothing.
        for name in dir(callback):
            if name.startswith("on_") and name not in self._OWN:
                setattr(self, name, getattr(callback, name))
        self.async_safe = getattr(callback, "async_safe", False)

    def set_params(self, params):
        if not self._course.has_begun:
            self._callback.set_params(params)

    def set_model(self, model):
        if not self._course.has_begun:
            self._callback.set_model(model)

    def on_train_begin(self, logs=None):
        if not self._course.has_begun:
            self._callback.on_train_begin(logs)

    def on_train_end(self, logs=None):
        if not self._course.goes_on:
            self._callback.on_train_end(logs)


class _History(keras.callbacks.History):
    """The history of several calls of `fit`, and the cuts between them."""

    def __init__(self, backup):
        super().__init__()
        self.history = backup.history
        self.epoch = backup.epochs
        self.cuts = backup.cuts
        self.transfer: Transfer | None = None

    def on_train_begin(self, logs=None):
        """Keeps the epochs there are."""


def _require_no_gates(model):
    gated = any(isinstance(part, HardConcrete) for part in all_layers(model))
    require(
        not gated,
        "model",
        "one without gates, as each is open now and then while it trains. "
        "After training, `shrink` cuts behind closed gates",
        model,
    )


def _flat(callbacks) -> list:
    """Returns the callbacks, none of which holds on to the larger model."""
    require(
        not isinstance(callbacks, keras.callbacks.CallbackList),
        "callbacks",
        "a list of callbacks",
        callbacks,
    )
    flat = keras.tree.flatten(callbacks) if callbacks else []
    for callback in flat:
        require(
            isinstance(callback, keras.callbacks.Callback),
            "callbacks",
            "Keras callbacks",
            callback,
        )
        inner = callback
        while isinstance(
            wrapped := getattr(inner, "callback", None),
            keras.callbacks.Callback,
        ):
            inner = wrapped
        if isinstance(inner, keras.callbacks.BackupAndRestore):
            raise invalid(
                "callbacks",
                "none that restores a model of another size: leave out "
                '`BackupAndRestore` and pass `backup="training.npz"`',
                callback,
            )
        restores = getattr(inner, "restore_best_weights", False)
        require(
            not restores,
            "callbacks",
            "`EarlyStopping` without `restore_best_weights`, as the best "
            "weights may be those of a larger model. `ModelCheckpoint` with "
            "`save_best_only` keeps the whole model",
            callback,
        )
    return flat
