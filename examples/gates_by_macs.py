"""Gates, and a constraint on the multiply-adds.

Each channel gets a gate that learns with which probability it is closed. The
expected multiply-adds are a function of these probabilities, and a constraint
holds them at a share of those of the model.
"""

# %%
# Gates on a model that is not trained yet. A trained one works, too.
import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
model = ks.models.LeNet5Caffe((16, 16, 1))
gated = compiled(ks.add_gates(model), learning_rate=2e-3)

# %%
# Half of the multiply-adds, as an expected value. The run is short, so that the
# multiplier of the constraint needs a larger learning rate than the default.
constraint = ks.L0Constraint(0.5, of="macs", learning_rate=2e-2)
history = gated.fit(
    *train,
    epochs=60,
    batch_size=64,
    validation_data=validation,
    callbacks=[constraint],
    verbose=0,
)
print(ks.gate_report(gated))

# %%
# The smaller network has no gates. It is plain Keras. It keeps the channels
# whose gate is more often open than closed, so that its multiply-adds are near
# the expected ones, but not the same.
small, report = ks.shrink(gated)
small = compiled(small)
print(report)
print(
    f"{ks.count_macs(small).macs / ks.count_macs(model).macs:.1%} of the "
    f"multiply-adds, test accuracy {accuracy(gated, test):.3f} -> "
    f"{accuracy(small, test):.3f}"
)

# %%
# On its way: the logs have the density and the multiplier of each epoch.
print({name: f"{values[-1]:.3f}" for name, values in history.history.items()})
