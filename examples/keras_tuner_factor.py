"""KerasTuner chooses the strength of a penalty.

A hypermodel of KerasTuner builds and trains the network; the score of a trial
is the error on the validation images, plus the share of the multiply-adds that
are left when the network is cut. Install it with `pip install keras-tuner`.
"""

import sys

import keras
from _digits import accuracy, compiled, load

import keras_sgl0 as ks

try:
    import keras_tuner
except ImportError:
    sys.exit("This example needs KerasTuner: pip install keras-tuner")

train, validation, test = load()

# %%
# The penalty is on coupled channels, so what it draws to zero can be cut.


class Sparse(keras_tuner.HyperModel):
    """LeNet with a factor to be chosen."""

    def build(self, hp):
        rate = hp.Float("learning_rate", 0.02, 0.2, sampling="log")
        model = compiled(ks.models.LeNet5Caffe((16, 16, 1)))
        model.compile(
            keras.optimizers.SGD(rate),
            model.loss,
            metrics=["accuracy"],
        )
        return model

    def fit(self, hp, model, *args, **kwargs):
        factor = hp.Float("factor", 1e-4, 1e-2, sampling="log")
        penalty = ks.CoupledGroups(ks.GroupLasso(factor))
        callbacks = [*kwargs.pop("callbacks", []), penalty, ks.ProximalStep()]
        model.fit(*args, callbacks=callbacks, **kwargs)
        small, report = ks.shrink(model)
        compiled(small)
        error = 1 - accuracy(small, validation)
        return {"score": error + 0.1 * report.macs_after / report.macs}


# %%
# Each trial says which settings it has and what came out.

tuner = keras_tuner.BayesianOptimization(
    Sparse(),
    keras_tuner.Objective("score", "min"),
    max_trials=5,
    seed=0,
    directory="tuner",
    project_name="digits",
)
tuner.search(*train, epochs=10, batch_size=32, verbose=0)
best = tuner.get_best_hyperparameters()[0]
print(best.values)

# %%
# The best settings once more, and the test images for the first time.

keras.utils.set_random_seed(0)
model = Sparse().build(best)
Sparse().fit(best, model, *train, epochs=10, batch_size=32, verbose=0)
small, report = ks.shrink(model)
print(report)
print(f"test accuracy {accuracy(compiled(small), test):.3f}")
