"""How a model is compressed: what the caller gives, and the defaults."""

from typing import TYPE_CHECKING, NamedTuple

from keras import ops

from keras_sgl0.compression.arguments import DISTILL
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.recovery import number_of_batches, require_fits
from keras_sgl0.compression.report import Settings
from keras_sgl0.compression.search import METHODS
from keras_sgl0.compression.timing import RUNTIMES
from keras_sgl0.network.optimizers import peak_learning_rate
from keras_sgl0.utils.validation import (
    choice,
    finite_float,
    integer,
    require,
)

if TYPE_CHECKING:
    from keras_sgl0.compression.driver import Task

# On how many examples scores and repairs are computed.
_EXAMPLES = 1024
# Epochs, where the optimizer does not tell how long the original was trained.
_EPOCHS = 10
_MOST_EPOCHS = 40
# By default a size along a path is trained for this share of what the original
# was.
SHARE_OF_TRAINING = 1 / 7
# By default `compress` trains for this share.
SHARE_OF_ONE_SIZE = 0.5


class Options(NamedTuple):
    """How to train, as a caller gives it; see `compress`.

    Args:
        epochs: For how many epochs, `None` for a default.
        learning_rate: The peak, `None` for a default.
        distillation: The share of the distillation in the loss.
        distill: What of the original is distilled.
        batch_size: How many examples of arrays make a batch.
        runtime: Where the latency is measured.
        method: What tells what goes, a name in `METHODS`.
        share_of_training: How long to train by default, as a share of what the
            optimizer has trained the model.
    """

    epochs: int | None
    learning_rate: float | None
    distillation: float
    distill: str
    batch_size: int
    runtime: str
    method: str
    share_of_training: float


def resolve(task: "Task", budget: Budget, options: Options) -> Settings:
    """Returns the settings, with the defaults that come from the model.

    Args:
        task: What is compressed.
        budget: What it may cost.
        options: What the caller gave.

    Raises:
        ValueError: If an argument is out of range.
    """
    batch_size = options.batch_size
    integer("batch_size", batch_size, at_least=1)
    require(
        isinstance(task.verbose, str | int)
        and task.verbose in ("auto", 0, 1, 2),
        "verbose",
        '"auto", 0, 1 or 2, as `fit` takes it',
        task.verbose,
    )
    require_fits(task.model, task.train, batch_size, "train")
    if task.validation is not None:
        require_fits(task.model, task.validation, batch_size, "validation")
    number = number_of_batches(task.train, batch_size, "train")
    optimizer = task.model.optimizer
    epochs, learning_rate = options.epochs, options.learning_rate
    _require_method(task, budget, options.method)
    # A search and the training after the cut take one epoch at least.
    least = 0 if options.method == "importance" else 2
    if epochs is None:
        trained = int(ops.convert_to_numpy(optimizer.iterations)) / number
        epochs = _EPOCHS
        if trained:
            epochs = round(options.share_of_training * trained)
        epochs = min(max(epochs, 1, least), _MOST_EPOCHS)
    if learning_rate is None:
        learning_rate = peak_learning_rate(optimizer)
    epochs = integer("epochs", epochs, at_least=least)
    return Settings(
        measure=budget.measure,
        share=budget.share,
        runtime=choice("runtime", options.runtime, RUNTIMES),
        importance=task.criteria[0].name,
        method=options.method,
        epochs=epochs,
        search=-(-epochs // 2) if least else 0,
        learning_rate=finite_float("learning_rate", learning_rate, above=0),
        distillation=finite_float(
            "distillation", options.distillation, at_least=0, below=1
        ),
        distill=choice("distill", options.distill, DISTILL),
        examples=_EXAMPLES,
        batch_size=batch_size,
        seed=task.criteria[0].seed,
    )


def _require_method(task: "Task", budget: Budget, method: str):
    """Raises where a method cannot be used.

    Args:
        task: What is compressed.
        budget: What it may cost.
        method: What tells what goes.

    Raises:
        ValueError: If so.
    """
    choice("method", method, tuple(METHODS))
    if method == "importance":
        return
    counted = METHODS[method]
    require(
        budget.measure in counted,
        "method",
        f"'importance' for a budget of {budget.measure}, or a budget of "
        f"{' or '.join(counted)}",
        method,
    )
    own = task.criteria[0]
    for name, default in (("limits", 1.0), ("minimum", 1), ("round_to", 1)):
        value = getattr(own, name)
        require(
            value in (default, None),
            name,
            f"{default}, or method='importance'",
            value,
        )
