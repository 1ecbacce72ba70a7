"""A trained network and a budget in, a plain smaller network out."""

import os
from collections.abc import Mapping

import keras

from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.driver import (
    Options,
    Task,
    folder_of,
    require_compiled,
    resolve,
)
from keras_sgl0.compression.importance import Importance
from keras_sgl0.compression.prune import Criteria
from keras_sgl0.compression.report import CompressReport
from keras_sgl0.structures.families import structures


def compress(
    model: keras.Model,
    train: object,
    validation: object = None,
    *,
    macs: float | None = None,
    parameters: float | None = None,
    channels: float | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    distillation: float = 0.5,
    importance: Importance = "taylor",
    scope: str = "family",
    limits: float | Mapping[str, float] = 1.0,
    minimum: int = 1,
    round_to: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
    verbose: object = "auto",
) -> tuple[keras.Model, CompressReport]:
    r"""Returns a smaller trained model that costs at most a budget.

    Three steps, each with defaults that come from the model:

    1. *Cut.* The least important structures go, see `prune`, until the model
       costs what it may.
    2. *Repair.* What reads them is refit by least squares, and the statistics
       of batch normalization are measured anew.
    3. *Recovery.* The smaller model is trained with the losses, metrics and
       the kind of optimizer that the model is compiled with. In the loss a
       share `distillation` draws its outputs to those of the model. The
       learning rate rises to its peak in the first twentieth of the steps and
       falls to zero along a cosine.

    The model passed in is not changed.

    Args:
        model: A built and compiled Sequential or Functional model, models in
            it allowed, with one or several outputs.
        train: What `fit` takes: a tuple `(x, y)` or `(x, y, sample_weight)` of
            arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or another
            collection of batches, of a known length.
        validation: What `fit` takes as `validation_data`. `None` leaves the
            metrics out of the report.
        macs: The share of its multiply-adds to keep, in (0, 1]. Give exactly
            one of `macs`, `parameters` and `channels`.
        parameters: The share of its parameters to keep, likewise.
        channels: The share of the output channels of its layers to keep,
            likewise.
        epochs: How many epochs to train after the cut, at least 0. `None` for
            half as many as the optimizer has trained the model, at most 40, or
            for 10 if its step count is zero.
        learning_rate: The peak of the learning rate. `None` for the largest
            that the optimizer has had: that of its schedule, or the present
            one. If a callback has lowered it, give it here.
        distillation: The share of the distillation in the loss, in [0, 1);
            0 for none.
        importance: What tells which structures go, see `prune`.
        scope: See `prune`.
        limits: See `prune`.
        minimum: See `prune`.
        round_to: See `prune`.
        batch_size: The number of examples of a batch, for arrays.
        seed: The seed of the order of the examples, for arrays, and of
            importance `"random"`.
        workdir: A folder, created if it does not exist. After each epoch the
            state is kept there, so that the same call goes on where a killed
            one was. At the end it has `model.keras` and `report.json`.
            `None` to keep nothing.
        verbose: As for `fit`.

    Returns:
        The smaller model, Functional and compiled like the model, and a
        `CompressReport`.

    Raises:
        ValueError: Before anything is trained, if the model is not built or
            not compiled, an argument is out of range, not exactly one budget
            is given, the budget is below what cannot be cut, the length of
            `train` is not known, or `workdir` has another compression.
        RunError: If the loss is no longer finite. The last epoch is kept.

    Example:
        >>> model = keras.models.load_model("my.keras")
        >>> small, report = compress(
        ...     model, (x_train, y_train), (x_val, y_val), macs=0.5
        ... )
        >>> print(report)
        >>> small.save("small.keras")
    """
    budget = Budget.one_of(macs=macs, parameters=parameters, channels=channels)
    task = Task(
        require_compiled(model),
        train,
        validation,
        Criteria(importance, scope, limits, minimum, round_to, seed),
        verbose,
    )
    options = Options(epochs, learning_rate, distillation, batch_size, 0.5)
    settings = resolve(task, budget, options)
    task.criteria.require_reach(structures(model), model, budget)
    folder = folder_of(workdir)
    return task.compress(settings, model, folder)
