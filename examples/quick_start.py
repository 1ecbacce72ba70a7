"""Quick start: a trained network in, a smaller and faster one out.

Any trained and compiled Keras model will do, with the data that it was trained
on. Here it is LeNet-5-Caffe and the handwritten digits of scikit-learn.
"""

# %%
# The model. Yours comes from `keras.models.load_model("my.keras")`.
import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
model.fit(*train, epochs=20, batch_size=64, verbose=0)
print(ks.count_macs(model))

# %%
# What can be cut: families of channels that run through the same layers.
print(ks.structures(model))

# %%
# Keep a quarter of the multiply-adds. `compress` cuts the channels that matter
# least, repairs what reads them, and trains what is left.
small, report = ks.compress(
    model, train, validation, macs=0.25, batch_size=64, verbose=0
)
print(report)

# %%
# The test images were used for nothing so far.
print(
    f"test accuracy {accuracy(model, test):.3f} -> {accuracy(small, test):.3f}"
)

# %%
# Files, read back and compared, and how long a call takes.
print(ks.compare(model, small, "files", inputs=test[0], rounds=100))

# %%
# The same as a picture.
figure = ks.plots.before_and_after(model, small)
ks.plots.save(figure, "files/quick_start")
figure
