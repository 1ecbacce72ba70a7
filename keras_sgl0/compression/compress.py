"""A trained network and a budget in, a plain smaller network out."""

import itertools
import os
from collections.abc import Mapping

import keras

from keras_sgl0.compression.arguments import (
    BEST,
    DISTILL,
    criteria,
    folder_of,
    require_compiled,
)
from keras_sgl0.compression.budget import Budget, require_alone
from keras_sgl0.compression.driver import Task, lineage_of, walk
from keras_sgl0.compression.drops import drop, monitored
from keras_sgl0.compression.importance import Importance
from keras_sgl0.compression.options import (
    SHARE_OF_ONE_SIZE,
    SHARE_OF_TRAINING,
    Options,
    resolve,
)
from keras_sgl0.compression.report import CompressReport
from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import structures
from keras_sgl0.utils.validation import RunError, choice, finite_float, integer

# The size of a model as a share of the one before, where the size is searched.
_STEP = 5 / 6
# The search ends after so many sizes in a row that are worse: a drop of a few
# examples may be chance.
_PATIENCE = 3


def compress(
    model: keras.Model,
    train: object,
    validation: object = None,
    *,
    macs: float | None = None,
    parameters: float | None = None,
    channels: float | None = None,
    latency: float | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    runtime: str = "keras",
    epochs: int | None = None,
    learning_rate: float | None = None,
    distillation: float = 0.5,
    distill: str = "outputs",
    method: str = "importance",
    importance: Importance = "taylor",
    scope: str = BEST,
    limits: float | Mapping[str, float] = 1.0,
    minimum: int = 1,
    round_to: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
    verbose: object = "auto",
) -> tuple[keras.Model, CompressReport]:
    r"""Returns a smaller trained model that costs at most a budget.

    Three steps, each with defaults that come from the model:

    1. *Cut.* The least important structures go, see `prune`, until the model
       costs what it may.
    2. *Repair.* What reads them is refit by least squares, see `prune`. If a
       training follows, that is kept only where the training begins with a
       smaller loss than without it, in training mode: what was refit for
       inference may be far off with the statistics of a batch and dropout.
    3. *Recovery.* The smaller model is trained with the losses, metrics and
       the kind of optimizer that the model is compiled with. In the loss a
       share `distillation` draws its outputs to those of the model. The
       learning rate rises to its peak in the first twentieth of the steps and
       falls to zero along a cosine. Then the statistics of batch normalization
       are measured anew on training data, see `reestimate_batch_norm`, and
       kept if the loss on others of them is smaller: moving averages lag
       behind a short training.

    Frozen layers are cut and refit too, but not trained. The model passed in is
    not changed. It may have been made under a `tf.distribute` strategy; the
    smaller one is made and trained on one device.

    *Other methods.* What goes can also be found by training, in the first half
    of the epochs, which then takes the place of the first two steps:

    * `"group_lasso"` and `"sgl0"`: `CoupledGroups` with this penalty by
      `ProximalStep`, steered by `TargetDensity`. Without a gradient, the
      penalty would bring the mean structure a tenth of its way to zero.
    * `"gates"`: `add_gates` with a `L0Constraint` on what is expected to be
      left. What the gates leave above the budget goes by importance; where
      they leave less, the model is smaller than it may be.

    A penalty does not touch frozen layers, gates do. In these trainings the
    whole network is trained, which takes longer.

    Args:
        model: A built and compiled model, with one or several outputs.
        train: What `fit` takes: a tuple `(x, y)` or `(x, y, sample_weight)` of
            arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or another
            collection of batches, of a known length.
        validation: What `fit` takes as `validation_data`. `None` leaves the
            metrics out of the report.
        macs: The share of its multiply-adds to keep, in (0, 1]. Give exactly
            one of `macs`, `parameters`, `channels`, `latency` and `max_drop`.
        parameters: The share of its parameters to keep, likewise.
        channels: The share of the output channels of its layers to keep,
            likewise.
        latency: The share of its latency to keep, likewise: 0.5 for a model
            twice as fast. Models of several sizes are cut and timed beside the
            original for it, one example at a time.
        max_drop: By how much a metric on the validation data may be worse than
            that of the model, at least 0. `0.005` of an accuracy is half a
            point. The model shrinks by a sixth of its multiply-adds at a time,
            as `path` does it, until three sizes in a row are worse; the
            smallest one that is not is returned.
        metric: The metric for `max_drop`, as `evaluate` names it. `None` for
            the only one, or for the loss if there are none or several.
        runtime: Where the latency is measured: `"keras"` for the backend,
            `"litert"` or `"onnx"`.
        epochs: How many epochs to train after the cut, at least 0. `None` for
            half as many as the optimizer has trained the model, at most 40, or
            for 10 if its step count is zero. With `max_drop` that is for each
            size, and `None` is for a seventh.
        learning_rate: The peak of the learning rate. `None` for the largest
            that the optimizer has had: that of its schedule, or the present
            one. If a callback has lowered it, give it here.
        distillation: The share of the distillation in the loss, in [0, 1);
            0 for none.
        distill: `"outputs"`, or `"features"` for features, too: what the last
            reader of each family of structures reads is drawn to the channels
            of the model that are left of it, by the mean of
            `||t - s||^2 / ||t||^2`. It takes about as long.
        method: What tells which structures go: `"importance"`, or a training
            with `"group_lasso"`, `"sgl0"` or `"gates"`, see above. These need
            two epochs or more, know no `limits`, `minimum` and `round_to`,
            and no budget of `latency`; `"gates"` none of `channels`.
        importance: How important a structure is, see `prune`.
        scope: What importance is compared to, see `prune`. `"best"` tries
            each and keeps the cut with the smallest loss on training data
            after the repair, before any training.
        limits: See `prune`.
        minimum: See `prune`.
        round_to: See `prune`. `None` for 1, and with `latency` for a multiple
            that is measured: the largest of 1, 2, 4, 8 and 16 to which the
            runtime rounds up for nothing.
        batch_size: The number of examples of a batch, for arrays.
        seed: The seed of the order of the examples, for arrays, and of
            importance `"random"`.
        workdir: A folder, created if it does not exist. After each epoch the
            state is kept there, so that the same call goes on where a killed
            one was. At the end it has `model.keras` and `report.json`.
            With `max_drop` each size has a folder in it. `None` to keep
            nothing.
        verbose: As for `fit`.

    Returns:
        The smaller model, Functional and compiled like the model, and a
        `CompressReport`.

    Raises:
        ValueError: Before anything is trained, if the model is not built,
            is not compiled, has a `train_step` or the like of its own or a
            `preprocessor`, as tasks of KerasHub have, an argument is out of
            range, not exactly one budget is given, the budget is below what
            cannot be cut, the length of `train` is not known, the data do not
            fit the model, `max_drop` is given without `validation`, or
            `workdir` has another compression.
        RunError: If the loss is no longer finite, or if no size is good
            enough for `max_drop`. What was trained is kept in `workdir`.

    Example:
        >>> model = keras.models.load_model("my.keras")
        >>> small, report = compress(
        ...     model, (x_train, y_train), (x_val, y_val), macs=0.5
        ... )
        >>> print(report)
        >>> small.save("small.keras")
    """
    given = {
        "macs": macs,
        "parameters": parameters,
        "channels": channels,
        "latency": latency,
    }
    task = Task(
        require_compiled(model),
        train,
        validation,
        criteria(importance, scope, limits, minimum, round_to, seed),
        verbose,
    )
    folder = folder_of(workdir)
    own = (
        epochs,
        learning_rate,
        distillation,
        distill,
        batch_size,
        runtime,
        method,
    )
    if max_drop is not None:
        require_alone("max_drop", max_drop, given)
        options = Options(*own, SHARE_OF_TRAINING)
        return _smallest(task, options, folder, max_drop, metric)
    budget = Budget.one_of(**given)
    settings = resolve(task, budget, Options(*own, SHARE_OF_ONE_SIZE))
    if budget.measure != "latency":
        task.criteria[0].require_reach(structures(model), model, budget)
    return task.compress(settings, model, folder, lineage_of(task, distill))


def _smallest(
    task: Task,
    options: Options,
    folder: str | None,
    max_drop: float,
    metric: str | None,
) -> tuple[keras.Model, CompressReport]:
    """Returns the smallest model that is hardly worse than the original."""
    finite_float("max_drop", max_drop, at_least=0)
    integer("batch_size", options.batch_size, at_least=1)
    choice("distill", options.distill, DISTILL)
    monitored(task.model, task.evaluate(task.model, options.batch_size), metric)
    found = structures(task.model)
    measure: Measure = "parameters"
    if found.size and found.cost().macs is not None:
        measure = "macs"
    task.criteria[0].require_reach(found, task.model, Budget(measure, 1.0))
    least = task.criteria[0].least(found, measure)
    shares = itertools.takewhile(
        lambda share: share >= least, (_STEP**k for k in itertools.count(1))
    )
    best, drops = None, []
    budgets = [Budget(measure, share) for share in shares]
    for small, report in walk(task, budgets, options, folder):
        drops.append(drop(task.model, report, metric))
        if drops[-1] <= max_drop:
            best = small, report
        elif min(drops[-_PATIENCE:]) > max_drop and len(drops) >= _PATIENCE:
            break
    if best is None:
        raise RunError(
            f"No smaller network is within max_drop={max_drop} of the "
            f"original: with {_STEP:.0%} of the {measure} the drop is "
            f"{drops[0]}. Train for more epochs, or allow a larger drop."
        )
    return best
