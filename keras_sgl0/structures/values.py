"""The values of variables as the rules ask for them."""

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import upcast
from keras_sgl0.network.sparsity import TOLERANCE, Thresholded


class ThresholdedArrays:
    """Gives what `Thresholded` does as arrays, in at least float32.

    Only the last one is held, as the rules ask for a kernel several times.

    Args:
        model: A built model.
        tolerance: At least 0; `0` changes nothing.

    Raises:
        ValueError: As in `Thresholded`.
    """

    def __init__(self, model: keras.Model, tolerance: float = TOLERANCE):
        self._thresholded = Thresholded(model, tolerance)
        self._last: tuple[keras.Variable, np.ndarray] | None = None

    def __call__(self, variable: keras.Variable) -> np.ndarray:
        """Returns the values of a variable.

        Args:
            variable: A variable of the model.
        """
        if self._last is None or self._last[0] is not variable:
            value = self._thresholded(variable)
            if keras.backend.is_float_dtype(variable.dtype):
                value = upcast(value)
            self._last = None  # its memory is free before the next is taken
            self._last = variable, ops.convert_to_numpy(value)
        return self._last[1]
