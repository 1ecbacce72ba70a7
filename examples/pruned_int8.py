"""Pruned, then int8: four LiteRT files of one network in one table.

LiteRT finds the ranges of the activations on the examples that `inputs` gives.
Its int8 weights have a scale for each channel and no offset, so a zero stays
exactly zero.
"""

import statistics

import keras
import numpy as np
from _digits import compiled, load

import keras_sgl0 as ks
from keras_sgl0.deployment import take_turns
from keras_sgl0.deployment.runtimes import running_file

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
model.fit(*train, epochs=20, batch_size=64, verbose=0)
small, _ = ks.compress(
    model, train, validation, macs=0.2, epochs=10, batch_size=64, verbose=0
)

images, labels = test
rows, runs = {}, {}
for name, network in (("whole", model), ("pruned", small)):
    for kind, quantize in (("float", None), ("int8", "int8")):
        file = f"{name}_{kind}.tflite"
        report = ks.export(
            network, file, quantize=quantize, inputs=train[0][:200]
        )
        (outputs,) = running_file(file, "litert", network, images)()
        right = (np.argmax(outputs, -1) == labels).mean()
        rows[f"{name} {kind}"] = report.bytes, right
        runs[f"{name} {kind}"] = running_file(
            file, "litert", network, images[:1]
        )
for name, times in take_turns(runs, rounds=100).items():
    size, right = rows[name]
    milliseconds = 1000 * statistics.median(times)
    print(
        f"{name:12} {size:9,} bytes {milliseconds:8.4f} ms, "
        f"test accuracy {right:.3f}"
    )
