"""The progress bar of a run."""

import sys

from keras_sgl0.utils.extras import name_extra

with name_extra():
    from tqdm.keras import TqdmCallback

# What can be compared between epochs, and its name in the bar. A loss cannot:
# the penalty in it changes with beta or the strength.
_SHOWN = {
    "weight_sparsity": "weights",
    "neuron_sparsity": "neurons",
    "density": "density",
    "val_error": "error",
}
_FORMAT = "{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress(TqdmCallback):
    """Shows the epochs with sparsities and error, and the batches of each.

    The bar fits into 80 columns.

    Args:
        first_epoch: The epoch at which the run begins, counted from 0.
    """

    def __init__(self, first_epoch: int = 0):
        super().__init__(verbose=1, ncols=80, bar_format=_FORMAT)
        if first_epoch:
            begin = f"resuming at epoch {first_epoch + 1}"
            self.epoch_bar.write(begin, file=sys.stderr)
        # tqdm sets these as attributes, not as methods.
        self.on_epoch_end = self._show_epoch
        self.on_batch_end = self._show_batch

    def on_epoch_begin(self, epoch, *_, **__):
        """Begins the bar of the batches."""
        if self.epoch_bar.n < epoch:  # of a resumed run
            self.epoch_bar.n = self.epoch_bar.initial = epoch
        self.batch_bar.reset(total=self.params["steps"])

    def _show_epoch(self, epoch, logs=None):
        logs = logs or {}
        shown = {
            name: f"{logs[key]:.1%}"
            for key, name in _SHOWN.items()
            if key in logs
        }
        self.epoch_bar.set_postfix(shown, refresh=False)
        self.epoch_bar.update()

    def _show_batch(self, batch, logs=None):
        self.batch_bar.update()
