"""Training that leaves zeros alone."""

import keras
from keras import ops

from keras_sgl0.callbacks.lending import LendingCallback
from keras_sgl0.network.loans import LentConstraint
from keras_sgl0.network.sparsity import kernels


class _Masked(LentConstraint):
    """What the optimizer made of a variable, with zeros where they were.

    Args:
        original: The constraint of the variable, or `None`.
        kept: 1 where a weight is trained, 0 where it stays zero.
    """

    def __init__(self, original, kept):
        super().__init__(original)
        self.kept = kept

    def stand_in(self, w):
        return self.otherwise(w) * ops.cast(self.kept, w.dtype)


class KeepZeros(LendingCallback):
    """Keeps what is zero at zero, to fine-tune a pruned model.

    A plain `fit` brings pruned weights back. With this callback, weights of
    the kernels that are zero as `fit` begins stay zero, whatever the
    optimizer. So do the zeros in biases and other variables, such as those of
    dead channels, if some of their entries are not zero: a variable that is
    zero as a whole has just been created.

    List it after `ProximalStep`, if there is one.

    Raises:
        ValueError: When `fit` begins, if there is no such zero.

    Example:
        >>> apply_threshold(model, 1e-3)
        >>> model.fit(x, y, epochs=10, callbacks=[KeepZeros()])

    Reference:
        Magnitude pruning with retraining: Han et al., 2015, figure 2.
        Iterative hard thresholding keeps its masks like this in its first
        phase: Jin et al., Training skinny deep neural networks with iterative
        hard thresholding methods, 2016, algorithm 1. Its second phase is a
        plain `fit`.
    """

    def refuse(self, originals):
        """Returns the error message for a model without zeros."""
        return (
            "`KeepZeros` found no zero in the trainable weights. Set small "
            "weights to zero first, with `apply_threshold`. Received: "
            f"model={self.model!r}"
        )

    def survey(self, transfer=None):
        """Finds the zeros that are to stay."""
        if transfer is None:
            self._kept = dict(self._zeros_of(self.model))
            return
        self._kept = {
            id(one.smaller): transfer.take(one.variable, own)
            for one in transfer.kept
            if (own := self._kept.get(id(one.variable))) is not None
        }

    def lend(self, variable: keras.Variable, original):
        """Returns the constraint for a variable with zeros."""
        kept = self._kept.get(id(variable))
        if kept is None or kept.all():
            return {}
        return {"constraint": _Masked(variable.constraint, kept)}

    def _zeros_of(self, model):
        """Yields pairs of the `id` of a variable and where it is not zero."""
        inside = {id(kernel) for kernel in kernels(model)}
        for variable in model.trainable_variables:
            kept = ops.convert_to_numpy(ops.not_equal(variable, 0))
            # As a whole, any other variable has just been created.
            if not kept.all() and (kept.any() or id(variable) in inside):
                yield id(variable), kept
