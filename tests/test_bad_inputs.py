"""Every wrong argument is refused with its name, and nothing is changed."""

import collections
import inspect
import os
import re

import keras
import numpy as np
import pytest
from bad_inputs import CALLS, OTHERS, BadInput, arguments_of, made

import keras_sgl0 as ks

# Seeds that run in CI, and as many more as asked for by FUZZ=1000.
SEEDS = range(500)
MORE = range(len(SEEDS), len(SEEDS) + int(os.environ.get("FUZZ", "0")))


def check(seed, folder):
    bad = BadInput(seed, folder)
    before = [m.get_weights() for m in bad.models]
    with pytest.raises((ValueError, TypeError)) as caught:
        bad.call.function(**bad.arguments)
        pytest.fail(f"accepted: {bad}")
    message = str(caught.value)
    named = rf"[`'\"]{bad.name}[`'\"\[]|{bad.name}="
    assert re.search(named, message), (
        f"{bad}: {type(caught.value).__name__}: {message}"
    )
    after = [m.get_weights() for m in bad.models]
    keras.tree.map_structure(np.testing.assert_array_equal, before, after)
    assert not any(folder.iterdir())


@pytest.mark.parametrize("seed", SEEDS)
def test_fuzz(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_fuzz_more(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c.function.__name__)
def test_the_call_is_valid_without_the_wrong_argument(call, tmp_path):
    call.function(**made(call.valid, tmp_path))


def test_every_public_function_and_argument_is_called():
    known = collections.defaultdict(set)
    for call in CALLS:
        known[call.function] |= set(call.wrong)
    parts = [getattr(ks, name) for name in ks.__all__]
    for module in (ks, *filter(inspect.ismodule, parts)):
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if callable(thing) and name not in OTHERS:
                assert known[thing] == arguments_of(thing), name
