"""Counts the mutants of modules that their tests kill.

    python tests/mutation/run.py keras_sgl0/groups.py

runs the tests that `modules.toml` gives for the module, once as it is and once
for every mutant: those that reach the changed line, until one fails. Each run
is a fork of this process, so that Keras is imported once. Random tests draw
the same numbers in every run. What survives is printed; what is equivalent is
listed in `modules.toml` with the reason.
"""

import argparse
import ast
import contextlib
import importlib.machinery
import itertools
import json
import math
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import tomllib

import coverage
import keras
import numpy as np
import pytest
from hypothesis import Phase, settings
from mutants import find_mutants

ROOT = pathlib.Path(__file__).parents[2]
LISTED = pathlib.Path(__file__).with_name("modules.toml")
PYTEST = (
    "-q -x -p no:xdist -p no:warnings -p no:cacheprovider -o addopts= "
    "--tb=no --no-header"
).split()
SKIPPED_PHASES = (Phase.reuse, Phase.shrink, Phase.explain)


class Chosen:
    """Runs some tests only, in a given order."""

    def __init__(self, names):
        self.names = names

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self.names]


class Watcher:
    """Notes how long each test takes and which lines of a file it reaches."""

    def __init__(self, path):
        self.coverage = coverage.Coverage(
            include=[str(path)], data_file=None, config_file=False
        )
        self.seconds = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self):
        self.coverage.start()  # what is reached now has no test as context

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        self.coverage.switch_context(item.nodeid)
        start = time.monotonic()
        yield
        # The first one waits for what is imported late.
        spent = time.monotonic() - start if self.seconds else 0.0
        self.seconds[item.nodeid] = spent

    def reached(self, path):
        """Returns, by line, the tests that reach it."""
        self.coverage.stop()
        data = self.coverage.get_data()
        return data.contexts_by_lineno(str(path))


def warm_up():
    """Lets Keras import before the forks what it imports late.

    Only PyTorch, with one thread, may be forked after it was used.
    """
    if keras.backend.backend() == "torch":
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        model.fit(np.zeros((2, 1)), np.zeros(2), verbose=0)


def in_fork(work, seconds):
    """Returns the exit status of a function that runs in a fork."""
    child = os.fork()
    if not child:
        signal.alarm(seconds)  # ends the process, a mutant may never end
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 1
        with contextlib.suppress(BaseException):
            status = work()
        os._exit(status)
    return os.waitpid(child, 0)[1]


def run_tests(tests, plugin):
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        phases=[p for p in Phase if p not in SKIPPED_PHASES],
    )
    settings.load_profile("mutation")
    return int(
        pytest.main([*PYTEST, "-m", "not slow", *tests], plugins=[plugin])
    )


def watch(path, tests):
    """Returns how long the tests take, and by line which tests reach it."""
    with tempfile.NamedTemporaryFile("r") as file:

        def work():
            watcher = Watcher(path)
            status = run_tests(tests, watcher)
            content = [watcher.seconds, watcher.reached(path)]
            pathlib.Path(file.name).write_text(json.dumps(content))
            return status

        if in_fork(work, 3600):
            sys.exit(f"The tests of {path} fail as it is.")
        seconds, reached = json.load(file)
    if not reached:
        sys.exit(f"The tests do not import {path}, but an installed one.")
    return seconds, {int(line): set(who) for line, who in reached.items()}


def survives(mutant, tree, path, tests, names, timeout):
    """Returns whether all tests pass in spite of a mutant."""
    get_code = importlib.machinery.SourceFileLoader.get_code

    def get_mutated(loader, name):
        if loader.path == str(path):
            return compile(tree, path, "exec")
        return get_code(loader, name)

    def work():
        mutant.apply()
        importlib.machinery.SourceFileLoader.get_code = get_mutated
        return run_tests(tests, Chosen(names))

    return not in_fork(work, timeout)


def choose(mutant, seconds, reached, limit):
    """Returns the tests that can kill a mutant, those likely to at first.

    Args:
        mutant: The mutant.
        seconds: How long each test takes.
        reached: By line, the tests that reach it.
        limit: Not more tests than take this long altogether.
    """
    first, last = mutant.lines
    direct = set().union(*(reached.get(i, ()) for i in range(first, last + 1)))
    # A line that is run as tests are collected may matter in each of them.
    others = set(seconds) if "" in direct or not direct else set()
    direct &= set(seconds)
    ordered = sorted(direct, key=seconds.get)
    ordered += sorted(others - direct, key=seconds.get)
    sums = itertools.accumulate(seconds[name] for name in ordered)
    number = sum(total <= limit for total in sums)
    return ordered[: max(number, 1)]


def main(module, listed, sample, again, limit):
    path = ROOT / module
    tree = ast.parse(path.read_text())
    mutants = find_mutants(tree)
    total = len(mutants)
    if sample and sample < total:
        mutants = random.Random(0).sample(mutants, sample)
    equivalent = [m for m in mutants if m.name in listed["equivalent"]]
    tested = [m for m in mutants if m not in equivalent]
    if again is not None:
        tested = [m for m in tested if m.name in again]
    seconds, reached = watch(path, listed["tests"])
    survivors = 0
    for mutant in sorted(tested, key=lambda m: m.lines):
        names = choose(mutant, seconds, reached, limit)
        timeout = 30 + int(5 * sum(seconds[name] for name in names))
        if survives(mutant, tree, path, listed["tests"], names, timeout):
            survivors += 1
            print(f"{module}:{mutant.lines[0]}: {mutant.name}", flush=True)
    print(
        f"| `{module}` | {len(mutants)} of {total} | "
        f"{len(tested) - survivors} | {len(equivalent)} |",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", help="default: all listed ones")
    parser.add_argument("--sample", type=int, help="that many random mutants")
    parser.add_argument("--again", help="those that this output names")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="for each mutant, the quickest tests that take this long",
    )
    arguments = parser.parse_args()
    again = None
    if arguments.again:
        lines = pathlib.Path(arguments.again).read_text().splitlines()
        again = {line.split(": ", 1)[-1] for line in lines}
    os.chdir(ROOT)
    warm_up()
    everything = tomllib.loads(LISTED.read_text())
    for module in arguments.modules or everything:
        entry = {"equivalent": {}} | everything[module]
        options = arguments.sample, again, arguments.seconds
        main(module, entry, *options)
