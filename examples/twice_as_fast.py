"""A trained ResNet, made twice as fast in LiteRT.

The budget is a latency: models of several sizes are cut, exported and timed
beside the original, and the largest that is fast enough is trained.
"""

import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.ResNet((16, 16, 1), 10, depth=14))
model.fit(*train, epochs=15, batch_size=64, verbose=0)

small, report = ks.compress(
    model,
    train,
    validation,
    latency=0.5,
    runtime="litert",
    batch_size=64,
    verbose=0,
)
print(report)
print(
    f"test accuracy {accuracy(model, test):.3f} -> {accuracy(small, test):.3f}"
)
print(ks.export(small, "twice_as_fast.tflite"))
