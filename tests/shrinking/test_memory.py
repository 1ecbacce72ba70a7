"""How much memory `shrink` takes, in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys, threading, time
import keras, numpy as np
import keras_sgl0 as ks

def resident():
    lines = open("/proc/self/status").read().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

def watch():
    while not done:
        most.append(max(most.pop(), resident()))
        time.sleep(0.01)

model = getattr(keras.applications, sys.argv[1])(weights=None)
found = ks.structures(model)
found.zero(np.random.default_rng(0).random(found.size) < 0.5)
weights = sum(v.size * 4 for v in map(np.asarray, model.get_weights()))
gc.collect()
before, most, done = resident(), [0], False
thread = threading.Thread(target=watch)
thread.start()
small, report = ks.shrink(model, 0)
done = True
thread.join()
assert report.relative_difference < 1e-5
print((most[0] - before) / weights)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG19", "ResNet152"])
def test_shrinking_takes_at_most_half_as_much_again_as_the_weights(name):
    command = [sys.executable, "-c", PROGRAM, name]
    output = subprocess.check_output(command, text=True)
    assert float(output.split()[-1]) < 1.5
