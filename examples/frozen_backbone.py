"""Transfer learning: a backbone that is a frozen model inside the model.

Its channels are cut with those of the new head, and its layers are refit to the
cut by least squares. In the training that follows it stays frozen.
"""

import keras
from _digits import accuracy, compiled, load
from keras import layers

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
low = train[1] < 5  # the backbone is trained on half of the digits
pretrained = compiled(ks.models.ResNet((16, 16, 1), 5, depth=14))
pretrained.fit(train[0][low], train[1][low], epochs=15, verbose=0)
features = pretrained.layers[-1].input
backbone = keras.Model(pretrained.input, features, name="backbone")
backbone.trainable = False

inputs = keras.Input((16, 16, 1))
x = layers.Dense(64, activation="relu", name="hidden")(backbone(inputs))
model = compiled(keras.Model(inputs, layers.Dense(10, name="head")(x)))
model.fit(*train, epochs=15, batch_size=64, verbose=0)

print(ks.structures(model))
small, report = ks.compress(
    model, train, validation, macs=0.5, batch_size=64, verbose=0
)
print(report)
print(
    f"test accuracy {accuracy(model, test):.3f} -> {accuracy(small, test):.3f}"
)
