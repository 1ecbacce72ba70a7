"""The smallest network whose accuracy is at most half a point lower.

The model shrinks by a sixth at a time until it is worse. All sizes are kept in
a folder, so a killed run goes on, and each is a Keras file of its own.
"""

import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
model.fit(*train, epochs=20, batch_size=64, verbose=0)

small, report = ks.compress(
    model,
    train,
    validation,
    max_drop=0.005,
    epochs=5,
    batch_size=64,
    workdir="sizes",
    verbose=0,
)
print(report)
print(
    f"test accuracy {accuracy(model, test):.3f} -> {accuracy(small, test):.3f}"
)
