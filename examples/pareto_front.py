"""A path of sizes and its Pareto front.

One run leaves several sizes of a trained network, each cut out of the one
before. Then you choose, with both numbers in front of you.
"""

# %%
# A trained network.
import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
model.fit(*train, epochs=20, batch_size=64, verbose=0)

# %%
# Five sizes, from 60 to 4 % of the multiply-adds.
found = ks.path(
    model,
    train,
    validation,
    macs=[0.6, 0.3, 0.15, 0.08, 0.04],
    batch_size=64,
    verbose=0,
)
print(found)

# %%
# The accuracy on the validation data; the dashed line is the original.
ks.plots.path(found.report, "accuracy")

# %%
# The smallest one that is at most one point worse.
small, report = found.pick(max_drop=0.01)
print(
    f"{report.macs:,} -> {report.macs_after:,} multiply-adds, "
    f"test accuracy {accuracy(model, test):.3f} -> {accuracy(small, test):.3f}"
)
