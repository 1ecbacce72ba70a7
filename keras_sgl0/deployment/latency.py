"""Timing models side by side in one process."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from keras_sgl0.deployment.report import Change
from keras_sgl0.utils.validation import integer, require

# Short, so that most turns are not interrupted by other processes.
_SECONDS_PER_TURN = 0.001


def take_turns(
    functions: dict[str, Callable[[], object]],
    rounds: int = 500,
    calls: int | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """Times functions in turn, as the speed of a machine drifts.

    Each is called once before, which traces and compiles, and is not timed.

    Args:
        functions: What to call, without arguments, by name.
        rounds: How many turns each function gets.
        calls: How many calls make a turn; `None` for what takes about a
            millisecond.
        clock: What tells the seconds. `None` for `time.perf_counter`. Where
            other processes share the core, `time.process_time` tells how long
            it worked for this one.

    Returns:
        The seconds a call took in each of a function's turns, their mean.

    Raises:
        ValueError: If an argument is something else.

    Example:
        >>> times = take_turns({"before": before, "after": after})
        >>> statistics.median(times["after"])
    """
    require(
        isinstance(functions, dict) and all(map(callable, functions.values())),
        "functions",
        "a dictionary of functions",
        functions,
    )
    integer("rounds", rounds, at_least=1)
    if calls is not None:
        integer("calls", calls, at_least=1)
    require(clock is None or callable(clock), "clock", "a function", clock)
    clock = clock or time.perf_counter
    turns = {}
    for name, function in functions.items():
        function()
        turns[name] = calls or _calls_per_turn(function, clock)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(_seconds(function, turns[name], clock))
    return times


def _calls_per_turn(function, clock):
    seconds = max(_seconds(function, 1, clock), 1e-9)
    return max(1, round(_SECONDS_PER_TURN / seconds))


def _seconds(function, calls, clock):
    begin = clock()
    for _ in range(calls):
        function()
    return (clock() - begin) / calls


def compare_latency(
    name: str,
    before: Callable[[], object],
    after: Callable[[], object],
    rounds: int = 500,
) -> Change:
    """Returns the milliseconds of a call, medians over all rounds.

    The ratio is the median of the rounds' ratios, to which the drift of the
    machine's speed matters less. Its spread is their quartiles.

    Args:
        name: What to call the figure.
        before: What runs the model before, see `runtimes.py`.
        after: What runs the model after.
        rounds: How many turns each gets.

    Raises:
        ValueError: If an argument is something else.

    Example:
        >>> runs = running(model, x), running(small, x)
        >>> compare_latency("as they are", *runs)
    """
    require(isinstance(name, str), "name", "a string", name)
    for argument, function in (("before", before), ("after", after)):
        require(callable(function), argument, "a function", function)
    times = take_turns({"before": before, "after": after}, rounds)
    ratios = [
        b / a for b, a in zip(times["before"], times["after"], strict=True)
    ]
    low, high = np.quantile(ratios, (0.25, 0.75)).tolist()
    return Change(
        name,
        1e3 * statistics.median(times["before"]),
        1e3 * statistics.median(times["after"]),
        unit="ms",
        ratio=statistics.median(ratios),
        spread=(low, high),
    )
