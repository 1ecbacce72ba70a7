"""Trains a small network to give the outputs of a larger one."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from keras_sgl0.compression.features import Feature
from keras_sgl0.network.unfolding import functional

_CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.categorical_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
)
_BINARY = (
    keras.losses.BinaryCrossentropy,
    keras.losses.binary_crossentropy,
)


class Distilled(keras.Model):
    r"""A student whose loss also draws its outputs to those of a teacher.

    In training the loss is

    `(1 - weight) * L(y, student) + weight * sum_outputs D(teacher, student)`

    where `L` is all that `compile` and the layers add up to: losses, weights,
    penalties. In evaluation it is `L` alone. For an output that is compiled
    with a categorical cross-entropy `D` is

    `T^2 * KL(softmax(t / T), softmax(s / T))`

    of the logits `t` and `s` at temperature `T`; probabilities stand for their
    logarithms. For one with a binary cross-entropy it is the same of a class
    and its complement, and for any other `mean (t - s)^2`.

    It shares the layers of the student, so training it trains the student.

    Args:
        student: The model to train.
        teacher: A model with the same inputs and outputs. It is not changed.
        losses: The loss of each output, in order, as `compile` takes it.
        weight: The share of the distillation in the loss, in [0, 1).
        temperature: `T`, more than 0.

    Reference:
        Hinton, Vinyals, Dean: Distilling the knowledge in a neural network,
        2015, section 2.

    Example:
        >>> loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        >>> distilled = Distilled(small, model, [loss])
        >>> distilled.compile("sgd", loss)
        >>> distilled.fit(x, y)
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        losses: list,
        weight: float = 0.5,
        temperature: float = 2.0,
    ):
        view = functional(student)
        super().__init__(view.input, view.output, name=student.name)
        self._weight = weight
        self._distances = [_distance(loss, temperature) for loss in losses]
        # In a list that Keras does not look into: the teacher is neither
        # trained nor a layer of the student.
        self._teacher: Any = _Untracked(teacher)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Returns the loss, that of the distillation included in training.

        Args:
            x: The inputs.
            y: The targets.
            y_pred: The outputs.
            sample_weight: The weights of the examples.
            training: Whether the model is in training mode.
        """
        own = super().compute_loss(
            x=x,
            y=y,
            y_pred=y_pred,
            sample_weight=sample_weight,
            training=training,
        )
        if not training:
            return own
        targets = self._teacher.model(x, training=False)
        total = self.distance(targets, y_pred)
        return (1 - self._weight) * own + self._weight * ops.cast(
            total, own.dtype
        )

    def distance(self, targets, y_pred):
        """Returns how far the student is from the teacher.

        Args:
            targets: What the teacher returns.
            y_pred: The outputs of the student.
        """
        total = 0.0
        for distance, t, s in zip(
            self._distances,
            tree.flatten(targets),
            tree.flatten(y_pred),
            strict=True,
        ):
            t = ops.cast(ops.stop_gradient(t), "float32")
            total = total + distance(t, ops.cast(s, "float32"))
        return total


class FeaturesDistilled(Distilled):
    r"""A student whose features are drawn to those of the teacher, too.

    The distillation in the loss of `Distilled` has one term more, the relative
    error of what the student has of the features,

    `mean_features ||t_kept - s||^2 / ||t_kept||^2`

    where `t_kept` are the channels of the teacher that the student has, too.

    Args:
        student: The model to train.
        teacher: A model with the same inputs and outputs. It is not changed.
        losses: The loss of each output, in order, as `compile` takes it.
        features: Tensors of the student and of the teacher to compare.
        weight: As in `Distilled`.
        temperature: As in `Distilled`.

    Reference:
        Romero et al., FitNets, 2015, eq. 3, without the regressor.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        losses: list,
        features: Sequence[Feature],
        weight: float = 0.5,
        temperature: float = 2.0,
    ):
        own, view = functional(teacher), functional(student)
        guide = keras.Model(
            own.input, [own.output, [f.teacher for f in features]]
        )
        super().__init__(student, guide, losses, weight, temperature)
        self._axes = [own.axis for own in features]
        self._channels = [own.channels.tolist() for own in features]
        self._seen: Any = _Untracked(
            keras.Model(
                view.input, [view.output, [f.student for f in features]]
            )
        )

    def call(self, inputs, training=None, mask=None):
        """Returns the outputs of the student, and keeps its features.

        Args:
            inputs: The inputs.
            training: Whether the model is in training mode.
            mask: The masks of the inputs.
        """
        # The loss of the same step looks at them.
        outputs, self._seen.features = self._seen.model.call(
            inputs, training=training, mask=mask
        )
        return outputs

    def distance(self, targets, y_pred):
        """Returns how far the student is from the teacher, features included.

        Args:
            targets: The outputs and the features of the teacher.
            y_pred: The outputs of the student.
        """
        outputs, features = targets
        errors = []
        for t, s, axis, channels in zip(
            features,
            self._seen.features,
            self._axes,
            self._channels,
            strict=True,
        ):
            t = ops.cast(ops.stop_gradient(t), "float32")
            t = ops.take(t, channels, axis=axis)
            error = ops.mean(ops.square(t - ops.cast(s, "float32")))
            errors.append(error / (ops.mean(ops.square(t)) + 1e-7))
        return super().distance(outputs, y_pred) + sum(errors) / len(errors)


class _Untracked:
    """Hides a model, and tensors, from the model that has it."""

    def __init__(self, model):
        self.model = model
        self.features: list = []


def _distance(loss, temperature) -> Callable:
    """Returns the distance of two outputs that goes with a loss."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    from_logits = getattr(loss, "from_logits", False)
    for kinds, logits in (
        (_CATEGORICAL, _logits),
        (_BINARY, _logits_of_two),
    ):
        if loss in kinds or type(loss) in kinds:
            return lambda t, s: _divergence(
                logits(t, from_logits), logits(s, from_logits), temperature
            )
    return lambda t, s: ops.mean(ops.square(t - s))


def _divergence(t, s, temperature):
    t = ops.log_softmax(t / temperature)
    s = ops.log_softmax(s / temperature)
    each = ops.sum(ops.exp(t) * (t - s), axis=-1)
    return temperature**2 * ops.mean(each)


def _logits(x, from_logits):
    return x if from_logits else ops.log(ops.clip(x, 1e-7, 1.0))


def _logits_of_two(x, from_logits):
    """Returns the logits of a class and of its complement."""
    if from_logits:
        return ops.stack([x, ops.zeros_like(x)], axis=-1)
    return _logits(ops.stack([x, 1 - x], axis=-1), False)
