import copy

import keras
import numpy as np
import pytest
from helpers import to_numpy, two_gated_layers, two_layers

import keras_sgl0 as ks

OPTIONS = {"batch_size": 8, "shuffle": False, "verbose": 0}


class Note(keras.callbacks.Callback):
    """Notes the epochs it sees, and what it is told beside."""

    def __init__(self, says=lambda: True):
        super().__init__()
        self.says, self.epochs, self.others = says, [], []

    def on_epoch_end(self, epoch, logs=None):
        if self.says():
            self.epochs.append(epoch)
            assert "loss" in logs

    def on_train_begin(self, logs=None):
        self.others.append((self.model, self.params["epochs"]))

    def on_train_end(self, logs=None):
        self.others.append("end")


def density_of(model):
    kernels = [to_numpy(layer.kernel) for layer in model.layers]
    return np.mean(np.concatenate([k.ravel() for k in kernels]) != 0)


def pruned(images, callbacks, epochs=8, factor=0.01):
    model = two_layers(ks.SGL0(factor), keras.optimizers.SGD(0.3))
    model.fit(
        *images,
        epochs=epochs,
        callbacks=callbacks,
        validation_data=images,
        **OPTIONS,
    )
    return model


@pytest.mark.parametrize("settle", [0.3, 0.5, 0.55])
def test_a_callback_sees_the_epochs_validated_after_the_cut(images, settle):
    target = ks.TargetDensity(0.3, settle=settle)
    before, after = Note(), Note()
    expected = Note(lambda: target.settled)
    callbacks = [
        expected,
        ks.ProximalStep(),
        ks.OnceMet(before, target),
        target,
        ks.OnceMet(after, target),
    ]
    model = pruned(images, callbacks)
    assert 0 < len(expected.epochs) < 8
    assert before.epochs == after.epochs == expected.epochs
    assert before.others == [(model, 8), "end"]
    again = pruned(images, callbacks)
    assert before.epochs == 2 * expected.epochs[: len(expected.epochs) // 2]
    assert before.others[2:] == [(again, 8), "end"]


def test_the_best_epoch_is_a_pruned_one(images, tmp_path):
    def best(name):
        return keras.callbacks.ModelCheckpoint(
            tmp_path / name, monitor="val_loss", save_best_only=True
        )

    images = images[0], images[0][:, :3].argmax(1)  # can be learnt
    target = ks.TargetDensity(0.05)
    plain, once = best("plain.keras"), best("once.keras")
    callbacks = [ks.ProximalStep(), plain, target, ks.OnceMet(once, target)]
    pruned(images, callbacks, factor=1e-4)
    loaded = [
        keras.saving.load_model(tmp_path / f"{name}.keras")
        for name in ("plain", "once")
    ]
    densities = [density_of(model) for model in loaded]
    assert densities[1] <= 0.05 < densities[0]
    # With the loss that it was chosen for.
    model = loaded[1]
    for layer in model.layers:
        assert type(layer.kernel.regularizer) is ks.SGL0
    loss = model.evaluate(*images, verbose=0)
    assert loss == pytest.approx(once.best, rel=1e-4)


def test_early_stopping_begins_to_wait_once_the_target_is_met(images):
    target = ks.TargetDensity(0.05, settle=0.5)
    stopping = keras.callbacks.EarlyStopping(
        "weight_sparsity", patience=2, mode="max", restore_best_weights=True
    )
    epochs = Note()
    monitor = ks.SparsityMonitor(tolerance=0)
    callbacks = [
        monitor,
        ks.ProximalStep(),
        ks.OnceMet(stopping, target),
        target,
        epochs,
    ]
    model = pruned(images, callbacks, epochs=20)
    assert density_of(model) <= 0.05
    assert stopping.best_epoch >= 5
    assert epochs.epochs[-1] == stopping.stopped_epoch < 19


def test_a_target_that_is_never_met_keeps_nothing(images, tmp_path):
    model = two_gated_layers()
    constraint = ks.L0Constraint(0.1, learning_rate=1e-6)
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss", save_best_only=True
    )
    callbacks = [constraint, ks.OnceMet(best, constraint)]
    model.fit(*images, epochs=2, callbacks=callbacks, **OPTIONS)
    assert not any(tmp_path.iterdir())


def test_a_callback_sees_the_epochs_in_which_a_constraint_holds(images):
    model = two_gated_layers(keras.optimizers.Adam(0.05))
    constraint = ks.L0Constraint(0.4, learning_rate=0.2)
    note = Note()
    logs = model.fit(
        *images,
        epochs=15,
        callbacks=[ks.OnceMet(note, constraint), constraint],
        **OPTIONS,
    ).history
    met = np.flatnonzero(np.array(logs["density"]) <= 0.404).tolist()
    assert 0 < len(met) < 15
    assert note.epochs == met


def test_hooks_that_do_nothing_cost_nothing(images):
    target = ks.TargetDensity(0.3)

    def hooks(callback):
        return {
            name
            for name in dir(callback)
            if name.startswith("on_")
            and not getattr(getattr(callback, name), "_is_default", False)
        }

    stopping = keras.callbacks.EarlyStopping()
    once = ks.OnceMet(stopping, target)
    assert hooks(once) == hooks(stopping)
    twice = copy.deepcopy(ks.OnceMet(once, target))
    assert hooks(twice) == hooks(stopping)
    assert twice.callback.callback.on_train_end is not stopping.on_train_end


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((print, ks.TargetDensity(0.1)), "callback"),
        ((keras.callbacks.EarlyStopping(), ks.ProximalStep()), "target"),
        ((keras.callbacks.EarlyStopping(), ks.TargetDensity), "target"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        ks.OnceMet(*arguments)


def test_it_knows_what_other_callbacks_know(images):
    target = ks.TargetDensity(0.3)
    once = ks.OnceMet(Note(), target)
    assert once.model is None
    model = pruned(images, [ks.ProximalStep(), target, once], epochs=1)
    assert once.model is model
    assert once.params["epochs"] == 1
