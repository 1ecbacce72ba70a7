"""Callbacks that a command line names, such as those of trackers."""

from collections.abc import Callable, Iterable

import keras

from keras_sgl0.experiments.by_name import import_by_name
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.utils.validation import require

# Takes the recipe and the folder of a run.
CallbackFactory = Callable[[Recipe, str], keras.callbacks.Callback]
_EXPECTED = "package.module:function"


def callback_factories(names: Iterable[str]) -> list[CallbackFactory]:
    """Returns the functions that make the callbacks of a run, for `run`.

    A tracker (TensorBoard, Weights & Biases, MLflow) is a function of your own
    that takes the recipe and the folder of the run, and returns the tracker's
    Keras callback.

    Args:
        names: `package.module:function` for each. Python must find the module,
            as with `PYTHONPATH=.`.

    Raises:
        ValueError: If a name has another form, the module cannot be imported,
            or there is no such function.

    Example:
        >>> factories = callback_factories(["my_trackers:tensorboard"])
        >>> run(RECIPES["digits"], "runs/digits", callbacks=factories)
    """
    return [_factory(name) for name in names]


def _factory(name):
    found = import_by_name("callbacks", name, _EXPECTED)
    require(callable(found), "callbacks", f"{_EXPECTED}, a function", name)
    return found
