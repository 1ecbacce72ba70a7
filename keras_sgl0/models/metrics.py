"""What trained models are compiled with, so that Keras can load them."""

import keras
from keras import ops


# Registered under its old name, which saved models of version 0.1 use.
@keras.saving.register_keras_serializable("keras_sgl0", name="error")
def error_rate(y_true, y_pred):
    """Returns 1 for each wrong label, else 0; the mean is the error rate.

    The predicted label is the index of the largest output.

    Args:
        y_true: Integer labels of shape `(batch,)` or `(batch, 1)`.
        y_pred: Outputs of shape `(batch, classes)`.
    """
    labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
    wrong = ops.not_equal(ops.argmax(y_pred, axis=-1), labels)
    return ops.cast(wrong, "float32")
