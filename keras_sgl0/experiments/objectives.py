"""What a search can be after, and which trials are hopeless on the way."""

import dataclasses
from collections.abc import Callable, Iterable

import keras

from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.experiments.run_result import RunResult
from keras_sgl0.utils.validation import RunError, choice, require

# Before a trial is compared with others: how many there must be, and after
# which share of its epochs.
_FEWEST, _SHARE = 5, 1 / 3


@dataclasses.dataclass(frozen=True)
class Objective:
    """A figure of a finished run that is to be small, or large.

    Attributes:
        title: What it is called in tables.
        figure: A function that returns it, `None` if it was not measured.
        column: The column of the history that foretells it.
        maximize: Whether it is to be large. So is the column, if this or
            `opposite` holds, but not both.
        opposite: Whether the column is large where the figure is small.
        format: How it is written.
    """

    title: str
    figure: Callable[[RunResult], float | None]
    column: str
    maximize: bool = False
    opposite: bool = False
    format: str = "{:.2f}"

    def cost(self, value: float) -> float:
        """Returns a value as one that is to be small.

        Args:
            value: A value of the figure.
        """
        return -value if self.maximize else value

    def early_cost(self, row: dict) -> float:
        """Returns what an epoch shows, as a number that is to be small.

        Args:
            row: The row of the history.
        """
        value = float(row[self.column])
        return -value if self.maximize != self.opposite else value


def _shrunk(name):
    def figure(result):
        return getattr(result.shrunk, name) if result.shrunk else None

    return figure


OBJECTIVES = {
    "validation_error": Objective(
        "validation error", lambda r: r.test_error, "val_error"
    ),
    "macs": Objective(
        "MACs",
        _shrunk("macs_after"),
        "neuron_sparsity",
        opposite=True,
        format="{:,.0f}",
    ),
    "parameters": Objective(
        "parameters",
        _shrunk("parameters_after"),
        "weight_sparsity",
        opposite=True,
        format="{:,.0f}",
    ),
    "weight_sparsity": Objective(
        "weight sparsity",
        lambda r: r.weight_sparsity,
        "weight_sparsity",
        maximize=True,
    ),
    "neuron_sparsity": Objective(
        "neuron sparsity",
        lambda r: r.neuron_sparsity,
        "neuron_sparsity",
        maximize=True,
    ),
}


def objectives_by_name(names: Iterable[str]) -> dict[str, Objective]:
    """Returns objectives by name.

    Args:
        names: Names in `OBJECTIVES`.

    Raises:
        ValueError: If there is no name, or a name is unknown or comes twice.

    Example:
        >>> objectives_by_name(["validation_error", "macs"])
    """
    names = list(names)
    different = names and len(set(names)) == len(names)
    require(different, "objectives", "different names, at least one", names)
    for name in names:
        choice("objectives", name, tuple(OBJECTIVES))
    return {name: OBJECTIVES[name] for name in names}


class HopelessError(RunError):
    """A trial was stopped because it would have been among the worse half."""


class StopHopeless(keras.callbacks.Callback):
    """Stops a trial that is worse in every objective than most others were.

    It is the median rule for several objectives: a trial is hopeless if more
    than half of the finished trials were better in all of them after the same
    number of epochs, even than its own best so far. What a trial of several
    objectives is good for shows late, so nothing is stopped in the first third
    of its epochs, nor before five trials have finished.

    Args:
        objectives: The objectives.
        others: The folders of the finished trials.
        folder: The folder of this trial, whose epochs so far count.
        epochs: The number of epochs of the trial.
    """

    def __init__(
        self,
        objectives: Iterable[Objective],
        others: Iterable[str],
        folder: str,
        epochs: int,
    ):
        super().__init__()
        self._objectives = list(objectives)
        self._others = [
            [self._costs(row) for row in RunFolder(other).history()]
            for other in others
        ]
        self._own = [self._costs(row) for row in RunFolder(folder).history()]
        self._first = epochs * _SHARE

    def _costs(self, row):
        return [one.early_cost(row) for one in self._objectives]

    def on_epoch_end(self, epoch, logs=None):
        """Stops the trial if it is hopeless.

        Raises:
            HopelessError: If it is.
        """
        self._own = [*self._own[:epoch], self._costs(logs)]
        others = [curve[epoch] for curve in self._others if epoch < len(curve)]
        if len(others) < _FEWEST or epoch + 1 < self._first:
            return
        best = [min(costs) for costs in zip(*self._own, strict=True)]
        better = sum(
            all(a < b for a, b in zip(other, best, strict=True))
            for other in others
        )
        if 2 * better > len(others):
            raise HopelessError(
                f"Stopped after epoch {epoch + 1}: {better} of {len(others)} "
                "trials were better in all objectives."
            )
