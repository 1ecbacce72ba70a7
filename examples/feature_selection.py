"""Feature selection: which columns of a table does a network need?

The weights that leave one input are a group. Group lasso on the first layer
sets whole groups to zero, so their columns are not used at all.
"""

# %%
# A table with 30 columns, measured on images of tumours: benign or not?
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

import keras_sgl0 as ks

keras.utils.set_random_seed(0)
table = load_breast_cancer()
is_test = np.arange(len(table.target)) % 4 == 3
mean = table.data[~is_test].mean(0)
deviation = table.data[~is_test].std(0)
x, y = (table.data - mean) / deviation, table.target
train, test = (x[~is_test], y[~is_test]), (x[is_test], y[is_test])

# %%
# `axis=0` is the axis of the inputs of a dense kernel. After each step of SGD,
# `ProximalStep` shrinks each group, and small ones become exactly zero. The
# second layer has the penalty, too: else it could make up for small weights.
model = keras.Sequential(
    [
        keras.Input((30,)),
        keras.layers.Dense(
            16,
            activation="relu",
            kernel_regularizer=ks.GroupLasso(0.05, axis=0),
        ),
        keras.layers.Dense(1, kernel_regularizer=ks.GroupLasso(0.05, axis=0)),
    ]
)
model.compile(
    keras.optimizers.SGD(0.1),
    keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
)
model.fit(*train, epochs=60, verbose=0, callbacks=[ks.ProximalStep()])
accuracy = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
print(f"test accuracy {accuracy:.3f}")

# %%
# What is left, the most used first.
norms = np.linalg.norm(
    keras.ops.convert_to_numpy(model.layers[0].kernel), axis=1
)
order = np.argsort(-norms)
used = [i for i in order if norms[i]]
print(f"{len(used)} of {len(norms)} columns are used:")
print(*(f"{norms[i]:8.3f}  {table.feature_names[i]}" for i in used), sep="\n")

# %%
# The norms of all columns.
figure, axis = plt.subplots(figsize=(7, 5), layout="constrained")
axis.barh(table.feature_names[order], norms[order])
axis.invert_yaxis()
axis.tick_params(labelsize=7)
axis.set_xlabel("norm of the weights that leave the column")
figure
