"""Pruned, then int8: four LiteRT files of one network, side by side."""

import keras
import numpy as np
from _digits import compiled, load

import keras_sgl0 as ks
from keras_sgl0.deployment.runtimes import running_file

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
model.fit(*train, epochs=20, batch_size=64, verbose=0)
small, _ = ks.compress(
    model, train, validation, macs=0.2, epochs=10, batch_size=64, verbose=0
)

images, labels = test
for name, network in (("whole", model), ("pruned", small)):
    for quantize in (None, "int8"):
        file = f"{name}_{quantize or 'float32'}.tflite"
        report = ks.export(
            network, file, quantize=quantize, inputs=train[0][:200]
        )
        (outputs,) = running_file(file, "litert", network, images)()
        right = (np.argmax(outputs, -1) == labels).mean()
        print(f"{file}: {report.bytes:,} bytes, test accuracy {right:.3f}")
