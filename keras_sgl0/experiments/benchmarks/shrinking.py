"""What `shrink` costs, by the size of the network."""

import ctypes
import dataclasses
import functools
import gc
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_sgl0.deployment.latency import take_turns
from keras_sgl0.experiments.benchmarks.networks import by_title, kill_half
from keras_sgl0.shrinking import shrink
from keras_sgl0.utils.tables import Report, as_text, new_table
from keras_sgl0.utils.validation import require


@dataclasses.dataclass(frozen=True)
class ShrinkCost:
    """What it took to shrink one network.

    Attributes:
        network: Its name, see `by_title`.
        layers: The number of its layers.
        parameters: Their parameters.
        seconds: How long each turn took.
        peak: The bytes that the process took more at its peak than before,
            the smaller network included; `None` where that is not known.
    """

    network: str
    layers: int
    parameters: int
    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class ShrinkCosts(Report):
    """What it took to shrink several networks.

    `print(costs)` shows a table, `to_dict()` gives plain values.

    Attributes:
        costs: One entry a network.
    """

    costs: tuple[ShrinkCost, ...]

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "ShrinkCosts":
        """Returns the report that a file has.

        Args:
            path: A JSON file with the values of `to_dict`.
        """
        content = json.loads(pathlib.Path(path).read_text())
        return cls(tuple(ShrinkCost(**cost) for cost in content["costs"]))

    def rates(self) -> tuple[float, float]:
        """Returns the seconds that a layer takes, and those of a parameter.

        They are such that the sum of both is near to the fastest turn of each
        network, by least squares of the relative errors. Where a machine has
        other work, the fastest turn says most about the network.
        """
        sizes = np.array([(c.layers, c.parameters) for c in self.costs])
        fastest = np.array([min(c.seconds) for c in self.costs])
        relative = sizes / fastest[:, None]
        layer, parameter = np.linalg.lstsq(relative, np.ones(len(fastest)))[0]
        return float(layer), float(parameter)

    def __str__(self) -> str:
        table = new_table()
        table.add_column("network", no_wrap=True)
        for header in (
            *("layers", "parameters", "seconds", "min", "max"),
            *("peak, MB", "to weights"),
        ):
            table.add_column(header, justify="right")
        for cost in self.costs:
            peak = cost.peak
            table.add_row(
                cost.network,
                str(cost.layers),
                f"{cost.parameters:,}",
                f"{cost.median:.2f}",
                f"{min(cost.seconds):.2f}",
                f"{max(cost.seconds):.2f}",
                "?" if peak is None else f"{peak / 1e6:,.1f}",
                "?" if peak is None else f"{peak / cost.parameters / 4:.2f}",
            )
        text = as_text(table, width=120)
        if len(self.costs) > 2:
            layer, parameter = self.rates()
            text += (
                f"\n the fastest turns: about {1e3 * layer:.1f} ms a layer and "
                f"{1e9 * parameter:.1f} ns a parameter"
            )
        return text


def shrink_costs(titles: Sequence[str], rounds: int) -> ShrinkCosts:
    """Measures `shrink` on networks with half of their structures dead.

    The networks take turns, as the speed of a machine drifts. The memory is
    that of one more turn, when nothing is left to be done once a process.

    Args:
        titles: The networks, see `by_title`.
        rounds: How many turns each gets.

    Raises:
        ValueError: If there is no such network, or none.

    Example:
        >>> print(shrink_costs(["WRN-16-1", "WRN-16-2"], rounds=3))
    """
    require(len(titles) > 0, "titles", "names of networks", titles)
    models = {}
    for title in titles:
        keras.utils.set_random_seed(0)
        models[title] = by_title(title)
        kill_half(models[title])
    turns: dict[str, Callable[[], object]] = {
        title: functools.partial(shrink, model, 0)
        for title, model in models.items()
    }
    times = take_turns(turns, rounds, calls=1)
    costs = tuple(
        ShrinkCost(
            title,
            len(model.layers),
            model.count_params(),
            times[title],
            _peak(turns[title]),
        )
        for title, model in models.items()
    )
    return ShrinkCosts(costs)


def _peak(function) -> int | None:
    """Returns the bytes that a call takes at its peak, on Linux alone."""
    if sys.platform != "linux":
        return None
    gc.collect()
    # Memory that was freed and kept would be taken without being counted.
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(name) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(name))
    return 1024 * int(line.split()[1])
