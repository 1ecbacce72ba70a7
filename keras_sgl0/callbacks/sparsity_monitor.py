"""Sparsity during training, where every Keras logger can see it."""

import keras

from keras_sgl0.callbacks.order import warn_of_earlier_loggers
from keras_sgl0.groups import Axis, validate_axis
from keras_sgl0.network.sparsity import TOLERANCE, SparsityCounter
from keras_sgl0.utils.validation import finite_float


class SparsityMonitor(keras.callbacks.Callback):
    """Puts `weight_sparsity` and `neuron_sparsity` into the logs.

    Both are shares in [0, 1], counted at each epoch's end as `sparsity_report`
    counts them. `History`, the progress bar and every callback listed after
    this one (`CSVLogger`, `TensorBoard`, `EarlyStopping`) see them. A logger
    listed before it makes it warn.

    Args:
        tolerance: Below this a weight counts as zero. At least 0.
        axis: The group axis, or `None` for that of each kernel's penalty.

    Raises:
        ValueError: If `tolerance` is negative or `axis` unknown; when `fit`
            begins, if the model is not built or has no trainable kernel, or
            if a kernel has no such axis.

    Example:
        >>> logger = keras.callbacks.CSVLogger("history.csv")
        >>> model.fit(x, y, callbacks=[SparsityMonitor(), logger])
    """

    def __init__(self, tolerance: float = TOLERANCE, axis: Axis | None = None):
        super().__init__()
        self.tolerance = finite_float("tolerance", tolerance, at_least=0)
        self.axis = axis if axis is None else validate_axis(axis)
        self._counter: SparsityCounter | None = None

    def on_train_begin(self, logs=None):
        """Compiles the count for the model at hand."""
        warn_of_earlier_loggers(self)
        self._counter = SparsityCounter(self.model, self.tolerance, self.axis)
        self._sizes = self._counter.sizes

    def on_shrink(self, transfer):
        """Counts on; what was cut counts as zero."""
        self.set_model(transfer.model)
        self._counter = SparsityCounter(self.model, self.tolerance, self.axis)

    def on_epoch_end(self, epoch, logs=None):
        """Counts."""
        if logs is not None and self._counter is not None:
            report = self._counter()
            parameters, neurons = self._sizes
            alive = sum(report.neurons_alive)
            logs["weight_sparsity"] = 1 - report.parameters_alive / parameters
            logs["neuron_sparsity"] = 1 - alive / neurons

    def on_train_end(self, logs=None):
        """Lets go of what was compiled, which cannot be copied."""
        self._counter = None
