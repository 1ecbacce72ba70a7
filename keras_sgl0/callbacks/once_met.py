"""Callbacks that wait until a target is met."""

from typing import Protocol, runtime_checkable

import keras

from keras_sgl0.utils.validation import require


@runtime_checkable
class _Target(Protocol):
    def is_met(self) -> bool: ...


class OnceMet(keras.callbacks.Callback):
    """Lets a callback see only the epochs in which a target is met.

    Dense networks have the better loss, so `ModelCheckpoint` with
    `save_best_only` and `EarlyStopping` keep an epoch from before the network
    was pruned. With this callback around them, what they do at the end of an
    epoch waits until

    * `TargetDensity` has settled: the weights that the epoch was validated
      with are the ones that stay; or
    * `L0Constraint` is satisfied: no density is more than 1 % above its
      target. That may change back in a later epoch.

    If the target is never met, they keep nothing. List it before or after the
    target's callback; with `EarlyStopping(restore_best_weights=True)` in it,
    before. For two targets, put one `OnceMet` into another.

    Args:
        callback: Any Keras callback.
        target: The `TargetDensity` or `L0Constraint` of the same `fit`, or any
            object whose `is_met()` says so.

    Raises:
        ValueError: If an argument is something else.

    Example:
        >>> target = ks.TargetDensity(0.1)
        >>> best = keras.callbacks.ModelCheckpoint(
        ...     "best.keras", save_best_only=True
        ... )
        >>> callbacks = [ks.ProximalStep(), target, ks.OnceMet(best, target)]
        >>> model.fit(x, y, validation_split=0.1, callbacks=callbacks)
    """

    def __init__(self, callback: keras.callbacks.Callback, target: _Target):
        super().__init__()
        require(
            isinstance(callback, keras.callbacks.Callback),
            "callback",
            "a Keras callback",
            callback,
        )
        require(
            isinstance(target, _Target) and not isinstance(target, type),
            "target",
            "a callback with a target: `TargetDensity` or `L0Constraint`",
            target,
        )
        self.callback = callback
        self.target = target
        # Not methods: Keras sees which hooks of the callback do nothing.
        for name in dir(callback):
            if name.startswith("on_") and name != "on_epoch_end":
                setattr(self, name, getattr(callback, name))

    def set_params(self, params):
        """Hands the parameters of `fit` on."""
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model):
        """Hands the model on."""
        super().set_model(model)
        self.callback.set_model(model)

    def on_epoch_end(self, epoch, logs=None):
        """Lets the callback see the epoch if the target is met."""
        if self.target.is_met():
            self.callback.on_epoch_end(epoch, logs)
