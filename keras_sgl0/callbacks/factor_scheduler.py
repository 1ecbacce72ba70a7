"""Factors of penalties that follow a schedule."""

from collections.abc import Callable

from keras_sgl0.callbacks.steering import Steering
from keras_sgl0.utils.validation import finite_float, require


class FactorScheduler(Steering):
    """Multiplies the factor of every penalty by a number for each epoch.

    It is to penalties what `keras.callbacks.LearningRateScheduler` is to the
    learning rate: a factor may rise from 0 while the network learns first, or
    fall at the end. In epoch `e`, counted from 0, the penalty is
    `schedule(e) * r(W)`. It works for every penalty of this package, trained
    by its subgradient, by splitting or by its proximal operator. List it after
    `CoupledGroups`, `VariableSplitting` or `ProximalStep`. Split penalties are
    multiplied as a whole, the coupling `beta` with them.

    The `logs` of each epoch get `strength`, the multiplier. On JAX the step is
    traced anew each epoch.

    Args:
        schedule: A function of the epoch that returns a number of at least 0.

    Attributes:
        strength: Scalar variable with the current multiplier, `None` before
            `fit`.

    Raises:
        ValueError: If `schedule` is no function; when `fit` begins, if no
            trainable variable has a penalty of this package, or if one has a
            constraint other than a proximal step; when an epoch begins, if
            `schedule` returns no number of at least 0.

    Example:
        >>> warm_up = FactorScheduler(lambda epoch: min(1.0, epoch / 10))
        >>> model.fit(x, y, epochs=60, callbacks=[ProximalStep(), warm_up])
    """

    def __init__(self, schedule: Callable[[int], float]):
        super().__init__()
        require(callable(schedule), "schedule", "a function", schedule)
        self.schedule = schedule

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the multiplier of the epoch."""
        strength = self.schedule(epoch)
        self.set_strength(finite_float("schedule", strength, at_least=0))
