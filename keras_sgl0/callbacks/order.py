"""The order of callbacks in a list, which matters to what loggers see."""

import inspect
import warnings

import keras

_LOGGERS = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)


def warn_of_earlier_loggers(callback: keras.callbacks.Callback) -> None:
    """Warns if a logger misses what a callback adds to the logs.

    A callback sees only what those before it in the list have added.

    Args:
        callback: One that adds to the logs, as `fit` begins.
    """
    for other in _listed_before(callback):
        if isinstance(other, _LOGGERS):
            logger, own = type(other).__name__, type(callback).__name__
            warnings.warn(
                f"`{logger}` is listed before `{own}` and does not see what "
                f"`{own}` adds to the logs. List `{logger}` after it.",
                stacklevel=2,
            )


def _listed_before(callback):
    """Returns the callbacks before one, none if they cannot be found.

    Keras does not tell a callback of the others. What calls it in `fit` is the
    list of all, some calls up.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            listed = list(map(id, caller.callbacks))
            if id(callback) in listed:
                return caller.callbacks[: listed.index(id(callback))]
        frame = frame.f_back
    return []
