"""One run that leaves a menu of sizes."""

import itertools
import os
from collections.abc import Mapping, Sequence

import keras

from keras_sgl0.compression.arguments import (
    BEST,
    criteria,
    folder_of,
    require_compiled,
)
from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.driver import Task, walk
from keras_sgl0.compression.drops import drop
from keras_sgl0.compression.importance import Importance
from keras_sgl0.compression.options import SHARE_OF_TRAINING, Options
from keras_sgl0.compression.report import CompressReport, PathReport
from keras_sgl0.structures.families import structures
from keras_sgl0.utils.tables import Report
from keras_sgl0.utils.validation import (
    InputError,
    finite_float,
    integer,
    require,
)


class Path(Report):
    """The models of a path, the largest first.

    `print(found)` prints the report.

    Args:
        original: The model they were made from.
        models: The models, compiled like it.
        reports: What `compress` reports of each.

    Attributes:
        models: The models.
        report: A `PathReport`.
    """

    def __init__(
        self,
        original: keras.Model,
        models: Sequence[keras.Model],
        reports: Sequence[CompressReport],
    ):
        self._original = original
        self.models = tuple(models)
        self.report = PathReport(tuple(reports))

    def __len__(self) -> int:
        return len(self.models)

    def __str__(self) -> str:
        return str(self.report)

    def pick(
        self, max_drop: float, metric: str | None = None
    ) -> tuple[keras.Model, CompressReport]:
        """Returns the smallest model that is hardly worse than the original.

        Args:
            max_drop: By how much a metric on the validation data may be worse
                than that of the original, at least 0. `0.005` of an accuracy
                is half a point.
            metric: The metric, as `evaluate` names it. `None` for the only
                one, or for the loss if there are none or several.

        Raises:
            ValueError: If no model is so good, the metric is unknown, Keras
                does not know whether it should be high or low, or there were
                no validation data.

        Example:
            >>> small, report = found.pick(max_drop=0.005)
        """
        finite_float("max_drop", max_drop, at_least=0)
        found = None
        drops = []
        pairs = zip(self.models, self.report.sizes, strict=True)
        for model, report in pairs:
            drops.append(drop(self._original, report, metric))
            if drops[-1] <= max_drop:
                found = model, report
        if found is None:
            raise InputError(
                "Invalid value for argument `max_drop`. Expected at least "
                f"{min(drops):.4g}, the smallest drop along the path. "
                f"Received: max_drop={max_drop!r}"
            )
        return found


def path(
    model: keras.Model,
    train: object,
    validation: object = None,
    *,
    macs: Sequence[float] | None = None,
    parameters: Sequence[float] | None = None,
    channels: Sequence[float] | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    distillation: float = 0.5,
    distill: str = "outputs",
    method: str = "importance",
    importance: Importance = "taylor",
    scope: str = BEST,
    limits: float | Mapping[str, float] = 1.0,
    minimum: int = 1,
    round_to: int = 1,
    batch_size: int = 32,
    runtime: str = "keras",
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
    verbose: object = "auto",
) -> Path:
    """Compresses a trained model to several sizes in one run.

    Each size is cut out of the one before and trained as `compress` does it,
    with the original as teacher. So a small size is reached in several steps,
    which costs less than to begin each at the original.

    Args:
        model: As in `compress`.
        train: As in `compress`.
        validation: As in `compress`.
        macs: The shares of its multiply-adds to keep, in (0, 1), falling. Give
            exactly one of `macs`, `parameters` and `channels`.
        parameters: The shares of its parameters to keep, likewise.
        channels: The shares of the output channels to keep, likewise.
        epochs: How many epochs to train each size. `None` for a seventh of
            what the optimizer has trained the model, at most 40, or for 10 if
            its step count is zero.
        learning_rate: As in `compress`.
        distillation: As in `compress`.
        distill: As in `compress`.
        method: As in `compress`, for each size.
        importance: As in `compress`.
        scope: As in `compress`.
        limits: As in `compress`, of the channels that the size before has.
        minimum: As in `compress`.
        round_to: As in `compress`.
        batch_size: As in `compress`.
        runtime: As in `compress`.
        seed: As in `compress`.
        workdir: As in `compress`, with a folder for each size, such as
            `macs_0.5`.
        verbose: As for `fit`.

    Returns:
        A `Path`: the models, a report, and `pick(max_drop=.005)`.

    Raises:
        ValueError: As in `compress`, or if the shares do not fall.
        RunError: As in `compress`.

    Example:
        >>> found = path(model, train, validation, macs=[0.8, 0.6, 0.4, 0.2])
        >>> print(found)
        >>> small, report = found.pick(max_drop=0.005)
    """
    given = {"macs": macs, "parameters": parameters, "channels": channels}
    budgets = _budgets(given)
    integer("round_to", round_to, at_least=1)
    task = Task(
        require_compiled(model),
        train,
        validation,
        criteria(importance, scope, limits, minimum, round_to, seed),
        verbose,
    )
    found = structures(model)
    for budget in budgets:
        task.criteria[0].require_reach(found, model, budget)
    options = Options(
        epochs,
        learning_rate,
        distillation,
        distill,
        batch_size,
        runtime,
        method,
        SHARE_OF_TRAINING,
    )
    sizes = list(walk(task, budgets, options, folder_of(workdir)))
    return Path(model, [m for m, _ in sizes], [r for _, r in sizes])


def _budgets(given: dict[str, Sequence[float] | None]) -> list[Budget]:
    """Returns the budgets of the one argument that is given."""
    lists = {name: x for name, x in given.items() if x is not None}
    if len(lists) != 1:
        names = ", ".join(f"`{name}`" for name in given)
        raise InputError(
            f"Expected exactly one list of budgets of {names}. Received: "
            f"{lists}"
        )
    ((name, shares),) = lists.items()
    is_list = isinstance(shares, Sequence) and not isinstance(shares, str)
    require(
        is_list and len(shares) > 0,
        name,
        "a list of shares",
        shares,
    )
    budgets = [Budget.one_of(**{name: share}) for share in shares]
    falling = all(a.share > b.share for a, b in itertools.pairwise(budgets))
    require(falling, name, "shares that fall", shares)
    return budgets
