"""Training curves in TensorBoard.

The callbacks put beta, thresholds and sparsities into the logs of `fit`, where
any logger of Keras finds them that is listed after them.
"""

# %%
# SGL0 by splitting, with a log for TensorBoard.
import keras
import matplotlib.pyplot as plt
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
train, validation, test = load()
factor = 1 / len(train[0])
penalty = ks.SGL0(factor, axis="auto")
model = compiled(ks.models.LeNet5Caffe((16, 16, 1), kernel_regularizer=penalty))
history = model.fit(
    *train,
    epochs=40,
    batch_size=64,
    validation_data=validation,
    verbose=0,
    callbacks=[
        keras.callbacks.LearningRateScheduler(
            lambda epoch: 1e-3 * 0.1 ** (epoch // 10)
        ),
        ks.VariableSplitting(beta=25 * factor, every=10),
        ks.SparsityMonitor(),
        keras.callbacks.TensorBoard("logs"),  # after those that it logs
    ],
)
print(f"test accuracy {accuracy(model, test):.3f}")

# %%
# `tensorboard --logdir=logs` shows these curves.
print(*sorted(history.history), sep="\n")

# %%
# The same without TensorBoard: `fit` returns them.
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for axis, names in zip(
    axes,
    (
        ("accuracy", "val_accuracy"),
        ("weight_sparsity", "neuron_sparsity"),
        ("threshold",),
    ),
    strict=True,
):
    for name in names:
        axis.plot(history.history[name], label=name)
    axis.set_xlabel("epoch")
    axis.legend(fontsize=7)
figure
