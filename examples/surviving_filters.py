"""The filters that survive.

Group lasso steers a network to 20 % of its multiply-adds. Which filters of
its convolutions are left, and what do they look like?
"""

# %%
# A target instead of a factor: group lasso is made stronger until it is met.
import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
penalty = ks.GroupLasso(1e-3)
model = compiled(ks.models.LeNet5Caffe((16, 16, 1), kernel_regularizer=penalty))
model.fit(
    *train,
    epochs=40,
    batch_size=64,
    verbose=0,
    callbacks=[ks.TargetDensity(0.2, of="macs")],
)
ks.apply_threshold(model)
print(ks.sparsity_report(model))
print(f"test accuracy {accuracy(model, test):.3f}")

# %%
# The first convolution. White is zero, and filters that are all zero are grey.
model.save("model.keras")
ks.plots.filters("model.keras", "conv1")

# %%
# The second one: a column a filter, a row an input channel. White rows read
# nothing: most of these are channels that died in the first convolution.
ks.plots.filters("model.keras", "conv2")

# %%
# The distribution of the weights.
ks.plots.weights("model.keras")
