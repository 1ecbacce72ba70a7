"""Proximal training: exact zeros while the network trains."""

import keras
from keras import ops

from keras_sgl0.callbacks.lending import (
    LendingCallback,
    LentPenalty,
    value_of,
)
from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.compilation import require_no_accumulation
from keras_sgl0.network.loans import LentConstraint
from keras_sgl0.network.optimizers import optimizer_of
from keras_sgl0.regularizers import Penalty
from keras_sgl0.utils.validation import InputError, require


class _ShownPenalty(LentPenalty):
    """The penalty as it stands in the loss: its value, no gradient."""

    is_needed = False

    def value(self, w):
        return ops.stop_gradient(value_of(self.original, w))


class ProximalConstraint(LentConstraint):
    """`W <- prox(W, rate * strength)`, which the optimizer runs in its step.

    Args:
        penalty: The penalty.
        optimizer: Its learning rate of the moment is the rate.
    """

    def __init__(self, penalty: Penalty, optimizer):
        super().__init__(None)
        self.penalty = penalty
        self.optimizer = optimizer

    def stand_in(self, w):
        """Returns the proximal operator of `w`."""
        return self.prox(w, 1.0)

    def prox(self, w, strength):
        """Returns the proximal operator of the penalty times a strength.

        Args:
            w: The kernel after the optimizer's step.
            strength: A number or scalar tensor.
        """
        rate = ops.cast(self.optimizer.learning_rate, wide_dtype(w))
        return self.penalty.prox(w, rate * strength)


class ProximalStep(LendingCallback):
    """Trains penalties by their proximal operator: dead means exactly zero.

    During `fit` the penalty of every kernel that has a proximal operator is
    taken out of the gradient. Instead, after each optimizer step,

    `W <- prox(W, step)`, `step` being the optimizer's current learning rate
    (that of the kernel's own optimizer, in a `MultiOptimizer`).

    This happens inside the compiled step, through Keras's own constraints, so
    it works with `steps_per_execution`, `jit_compile`, on every backend, and
    follows schedules and schedulers. With plain SGD it is proximal gradient
    descent. A weight or neuron that dies *is* zero, and no threshold is needed
    at the end.

    With Adam and its like the data gradient is rescaled and the penalty is
    not: a factor that suits the subgradient (`.1/N`) does next to nothing
    here. Prefer SGD, or a factor larger by orders of magnitude.

    Args:
        optimizer: The optimizer that updates the weights, for a model with a
            `train_step` and an optimizer of its own. Default: the one the
            model is compiled with.

    Raises:
        ValueError: If `optimizer` is none; when `fit` begins, if the model is
            not built or has no optimizer, if no trainable variable has a
            penalty with a proximal operator, if that operator is not known or
            not defined at the learning rate, if a kernel has a constraint
            already, or if the optimizer accumulates gradients; when an epoch
            begins, if the operator is not defined at its learning rate; when
            the first epoch ends, if the optimizer took no step.

    Example:
        >>> layer = keras.layers.Dense(10, kernel_regularizer=GroupLasso(1e-3))
        >>> model = keras.Sequential([keras.Input((784,)), layer])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> model.fit(x, y, callbacks=[ProximalStep()])

    Reference:
        Parikh, Boyd: Proximal algorithms, 2014, section 4.2.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer | None = None):
        super().__init__()
        require(
            isinstance(optimizer, keras.optimizers.Optimizer | None),
            "optimizer",
            "a Keras optimizer, or `None` for that of the model",
            optimizer,
        )
        self.optimizer = optimizer

    def on_train_begin(self, logs=None):
        """Lends the constraints."""
        self._current = self.optimizer or self.model.optimizer
        if self._current is None:
            raise InputError(
                "`ProximalStep` needs the learning rate, and the model was "
                "compiled without an optimizer. Pass the one that updates the "
                "weights: `ProximalStep(optimizer=...)`. Received: "
                f"model={self.model!r}"
            )
        require_no_accumulation(
            self._current, "ProximalStep", "Keras runs constraints"
        )
        self._steps_before = self._steps()
        super().on_train_begin(logs)

    def survey(self, transfer=None):
        """Takes the optimizer of the model at hand."""
        self._current = self.optimizer or self.model.optimizer
        self._optimizers: list[tuple] = []

    def on_epoch_begin(self, epoch, logs=None):
        """Refuses a learning rate that has become too large for a penalty."""
        for penalty, optimizer in self._optimizers:
            rate = float(ops.convert_to_numpy(optimizer.learning_rate))
            if penalty.element is not None:
                penalty.element.validate_step(rate)

    def on_epoch_end(self, epoch, logs=None):
        """Refuses an optimizer that took no step: its rate is not the one."""
        super().on_epoch_end(epoch, logs)
        if self._steps() == self._steps_before:
            raise InputError(
                "`ProximalStep` takes the learning rate of "
                f"{type(self._current).__name__}, which took no step: the "
                "`train_step` of the model uses another optimizer. Pass that "
                "one: `ProximalStep(optimizer=...)`. Received: "
                f"optimizer={self.optimizer!r}"
            )

    def _steps(self):
        return int(ops.convert_to_numpy(self._current.iterations))

    def prepare(self, variables):
        """Refuses a joint step over variables of several optimizers."""
        trained_by: dict = {}
        for penalty, optimizer in self._optimizers:
            coupling = getattr(penalty, "coupling", None)
            if coupling is None:
                continue
            if trained_by.setdefault(id(coupling), optimizer) is not optimizer:
                raise InputError(
                    "`ProximalStep` cannot take the joint step of "
                    "`CoupledGroups`, since several optimizers train its "
                    "variables, one after the other. Received: "
                    f"optimizer={self._current!r}"
                )

    def lend(self, variable, original):
        """Returns constraint and regularizer for a kernel with a penalty."""
        if not isinstance(original, Penalty):
            return {}
        if variable.constraint is not None:
            raise InputError(
                f"`ProximalStep` cannot train {variable.path}, which has a "
                f"constraint of its own. Received: {variable.constraint}"
            )
        optimizer = optimizer_of(self._current, variable)
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        original.prox(variable, rate)  # raises if unknown or undefined there
        constraint = ProximalConstraint(original, optimizer)
        self._optimizers.append((original, optimizer))
        return {
            "regularizer": _ShownPenalty(original),
            "constraint": constraint,
        }
