"""What stands in for regularizers and constraints while a train step runs."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_sgl0.groups import wide_dtype
from keras_sgl0.utils.validation import InputError, require

_FIT = "_keras_sgl0_fit"
_ATTRIBUTES = ("regularizer", "constraint")


class Lent:
    """Stands in for a variable's regularizer or constraint in the train step.

    Outside of it, as when a callback evaluates the model, the original counts.

    Args:
        original: What it stands in for, or `None`.

    Attributes:
        fit: The `Fit` it was lent for, `None` until it is lent.
        lender: The name of the callback that lent it.
        was_used: Whether a train step called it.
        is_needed: Whether a train step that does not call it is wrong.
    """

    is_needed = True

    def __init__(self, original):
        self.original = original
        self.fit: Fit | None = None
        self.lender = ""
        self.was_used = False

    def __call__(self, w):
        """Returns its result in the train step, else that of the original."""
        if self.fit is not None and not self.fit.in_step:
            return self.otherwise(w)
        self.was_used = True
        return self.stand_in(w)

    def stand_in(self, w):
        """Returns the result in the train step.

        Args:
            w: Tensor or variable.
        """
        raise NotImplementedError

    def otherwise(self, w):
        """Returns the result of the original.

        Args:
            w: Tensor or variable.
        """
        raise NotImplementedError


class LentRegularizer(Lent, keras.regularizers.Regularizer):
    """Stands in for a regularizer.

    Args:
        original: The regularizer, or `None`.
    """

    def otherwise(self, w):
        """Returns the value of the original, 0 without one."""
        if self.original is None:
            return keras.ops.zeros((), wide_dtype(w))
        return self.original(w)


class LentConstraint(Lent):
    """Stands in for a constraint.

    Args:
        original: The constraint, or `None`.
    """

    def otherwise(self, w):
        """Returns the result of the original, `w` without one."""
        return w if self.original is None else self.original(w)


class Fit:
    """One `fit` of a model whose variables are lent something.

    Keras traces a step once and keeps it, with what it read then. So what is
    lent counts in the train step alone, which is surrounded: whatever else
    asks for the model's losses gets the plain ones. If an exception ends the
    `fit`, the next one, which has another history, finds the model released.

    Args:
        model: The model.
        params: The parameters of the callbacks, the same for all of one `fit`.

    Attributes:
        params: These.
        in_step: Whether the train step is running.
        has_stepped: Whether it has run once.
    """

    def __init__(self, model: keras.Model, params):
        self.params = params
        self.in_step = False
        self._history = getattr(model, "history", None)
        self.has_stepped = False

    def surround(self, model: keras.Model, step: Any) -> Callable:
        """Returns a train function that says when it runs.

        Args:
            model: The model.
            step: Its train function.
        """

        def run(*arguments):
            nonlocal step
            if getattr(model, "history", None) is not self._history:
                step = None  # while it lives, JAX takes the new one for it
                give_back(model)
                return model.train_function(*arguments)
            self.in_step = True
            try:
                result = step(*arguments)
            finally:
                self.in_step = False
            if not self.has_stepped:
                _require_use(model)
                self.has_stepped = True
            return result

        return run


def without_loan(value: Any) -> Any:
    """Returns a variable's own regularizer or constraint.

    Args:
        value: That of the moment, which may be lent.
    """
    while isinstance(value, Lent):
        value = value.original
    return value


def begin_fit(model: keras.Model, params) -> Fit:
    """Returns the current `Fit` of a model, a new one for each `fit`.

    Args:
        model: A compiled model.
        params: The parameters of the callback that asks.
    """
    fit = getattr(model, _FIT, None)
    if fit is None or fit.params is not params:
        give_back(model)
        fit = Fit(model, params)
        object.__setattr__(model, _FIT, fit)  # Keras need not know of it
    return fit


def retrace(model: keras.Model):
    """Makes Keras trace its train step anew, with the regularizers of now.

    Keras traces a step once and keeps it, with what it read then.

    Args:
        model: A compiled model.
    """
    model.make_train_function(force=True)
    fit = getattr(model, _FIT, None)
    if fit is not None:
        model.train_function = fit.surround(model, model.train_function)


def release(model: keras.Model) -> None:
    """Gives a model back what callbacks lent its variables during `fit`.

    As `fit` ends, the callbacks do it themselves. If an exception ended it,
    the next `fit` does; call this function to have it done at once.

    Args:
        model: A model.

    Raises:
        ValueError: If `model` is none, or inside the model's `fit`.

    Example:
        >>> try:
        ...     model.fit(x, y, callbacks=[ks.ProximalStep()])
        ... except KeyboardInterrupt:
        ...     ks.release(model)
    """
    is_model = isinstance(model, keras.Model)
    require(is_model, "model", "a Keras model", model)
    require_no_fit(model, "release")
    give_back(model)


def give_back(model: keras.Model) -> None:
    """Does what `release` does, also inside `fit`.

    Args:
        model: A model.
    """
    for variable in model.variables:
        for name in _ATTRIBUTES:
            while isinstance(lent := getattr(variable, name, None), Lent):
                setattr(variable, name, lent.original)
    if getattr(model, _FIT, None) is not None:
        object.__setattr__(model, _FIT, None)
        retrace(model)


def require_no_fit(model: keras.Model, function: str):
    """Raises inside the `fit` of a model.

    Args:
        model: A model.
        function: The name of the function that cannot be called there.

    Raises:
        ValueError: If one of the callers is the model's `fit`.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and (
            frame.f_locals.get("self") is model
        ):
            raise InputError(
                f"`{function}` cannot be called inside `fit`, which trains "
                "with what callbacks have lent. Call it before or after. "
                f"Received: model={model!r}"
            )
        frame = frame.f_back


def _require_use(model):
    """Refuses a train step that does not use what was lent."""
    for name, remedy in (
        (
            "regularizer",
            "does not use the losses of the model. Let it call "
            "`self.compute_loss`, or add `self.losses` to its loss",
        ),
        (
            "constraint",
            "does not apply the constraints of the variables. Let a Keras "
            "optimizer update them, by `apply` or `apply_gradients`",
        ),
    ):
        tops = [getattr(variable, name, None) for variable in model.variables]
        needed = [lent for lent in tops if isinstance(lent, Lent)]
        needed = [lent for lent in needed if lent.is_needed]
        if needed and not any(lent.was_used for lent in needed):
            lenders = sorted({f"`{lent.lender}`" for lent in needed})
            raise InputError(
                f"{' and '.join(lenders)} cannot train this model, since its "
                f"`train_step` {remedy}. Received: model={model!r}"
            )
