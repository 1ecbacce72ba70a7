"""Fits that end early, follow one another or have two lending callbacks."""

import copy
import pickle

import keras
import numpy as np
import pytest
from densities import WAYS, build, density_of, run, sgd, state, train
from helpers import (
    QUICK,
    slow_on_jax,
    to_numpy,
    two_gated_layers,
    two_layers,
)

import keras_sgl0 as ks
from keras_sgl0.callbacks.lending import unique
from keras_sgl0.callbacks.splitting import SplitPenalty


class StoppedError(Exception):
    pass


def stop_before(epoch):
    def stop(now, logs):
        if now == epoch:
            raise StoppedError

    return keras.callbacks.LambdaCallback(on_epoch_begin=stop)


@slow_on_jax
@pytest.mark.parametrize("of", ["weights", "neurons"])
@pytest.mark.parametrize("way", ["group_lasso", "sgl0_splitting"])
def test_a_resumed_run_is_the_uninterrupted_one(images, tmp_path, way, of):
    target = ks.TargetDensity(0.2 if of == "weights" else 0.5, of)
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    whole, logs = run(way, images, target, save)
    assert (logs["strength"][1] > 0, logs["strength"][7]) == (True, 0)
    for epoch in (2, 8):
        model = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        assert type(model.layers[0].kernel.regularizer) is type(WAYS[way][0])
        resumed = train(
            model,
            images,
            ks.TargetDensity(target.density, of),
            before=WAYS[way][2](),
            initial_epoch=epoch,
        )
        for name in ("loss", "density", "strength"):
            expected = logs[name][epoch:]
            np.testing.assert_allclose(resumed[name], expected, rtol=1e-4)
        np.testing.assert_allclose(state(model), state(whole), atol=1e-5)


def assert_given_back(model, penalty):
    for layer in model.layers:
        assert type(layer.kernel.regularizer) is penalty
        assert layer.kernel.constraint is None


def assert_met(model, density):
    """Steered once an epoch, as on JAX, the last kill may be too large."""
    below = 0.03 if keras.backend.backend() == "jax" else 1e-6
    assert density - below <= density_of(model) <= density + 1e-6


@slow_on_jax
def test_a_second_fit_meets_its_own_target(images):
    model, _ = run("sgl0_proximal", images, ks.TargetDensity(0.5))
    assert_given_back(model, ks.SGL0)
    target = ks.TargetDensity(0.2)
    again = train(model, images, target, before=[ks.ProximalStep()])
    assert again["strength"][0] > 0
    assert_met(model, 0.2)
    train(model, images, target, before=[ks.ProximalStep()], epochs=1)
    assert_met(model, 0.2)


def test_a_fit_without_it_is_free_again(images):
    model, _ = run("group_lasso", images, ks.TargetDensity(0.2))
    model.compile(sgd(), model.loss, **QUICK)
    clone = build("group_lasso")
    clone.compile(sgd(), clone.loss, **QUICK)
    clone.set_weights(model.get_weights())
    for each in (model, clone):
        train(each, images, keras.callbacks.Callback(), epochs=2)
    np.testing.assert_allclose(state(model), state(clone), atol=1e-6)
    assert density_of(model) > 0.2


def originals(variable):
    found = [variable.regularizer]
    while hasattr(found[-1], "original"):
        found.append(found[-1].original)
    return [type(regularizer).__name__ for regularizer in found]


@pytest.mark.parametrize("epoch", [2, 8])
@pytest.mark.parametrize("way", ["sgl0_splitting", "sgl0_proximal"])
def test_an_exception_in_fit_is_undone_by_the_next(images, way, epoch):
    class Chains(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            layer = self.model.layers[0]
            chains.append(originals(layer.kernel))

    chains = []
    model, target = build(way), ks.TargetDensity(0.2)
    others = WAYS[way][2]()
    with pytest.raises(StoppedError):
        train(model, images, target, stop_before(epoch), before=others)
    again = {"before": [*others, target], "epochs": 3}
    train(model, images, Chains(), **again)
    inner = "SplitPenalty" if "splitting" in way else "_ShownPenalty"
    assert chains == 3 * [["SteeredPenalty", inner, "SGL0"]]
    assert_given_back(model, ks.SGL0)
    assert density_of(model) <= 0.2


def test_what_is_refused_leaves_the_model_as_it_was(images):
    model = two_layers(ks.SparseGroupLasso(0.01), sgd())
    model.layers[1].kernel.regularizer = None
    with pytest.raises(ValueError, match="without a penalty"):
        train(model, images, ks.TargetDensity(0.1))
    kernel = model.layers[0].kernel
    assert type(kernel.regularizer) is ks.SparseGroupLasso
    assert kernel.constraint is None


def plain_loss(model, images):
    logits = model.predict(images[0], verbose=0)
    data = float(to_numpy(model.loss(images[1], logits)))
    penalties = [layer.kernel_regularizer for layer in model.layers]
    return data + sum(
        float(penalty(layer.kernel))
        for penalty, layer in zip(penalties, model.layers, strict=True)
    )


@pytest.mark.parametrize("way", ["group_lasso", "sgl0_splitting"])
def test_validation_and_evaluate_show_the_plain_penalty(images, way):
    class Plain(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            losses.append(plain_loss(self.model, images))

    losses = []
    target, plain = ks.TargetDensity(0.2), Plain()
    # The cut comes behind the validation on JAX, so it is that of the epoch.
    model, logs = run(
        way, images, target, plain, epochs=5, validation_data=images
    )
    np.testing.assert_allclose(logs["val_loss"], losses, rtol=1e-4)
    after = model.evaluate(*images, verbose=0)
    assert after == pytest.approx(plain_loss(model, images), rel=1e-5)
    assert min(logs["val_loss"]) > max(logs["loss"][-1:])


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [ks.VariableSplitting(0.1)],
        lambda: [ks.ProximalStep(), ks.TargetDensity(0.4)],
        lambda: [ks.VariableSplitting(0.1), ks.TargetDensity(0.4)],
    ],
    ids=["splitting", "proximal", "both"],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_evaluate_in_a_callback_shows_the_plain_penalty(
    images, callbacks, place
):
    class Evaluate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shown.append(self.model.evaluate(*images, verbose=0))
            expected.append(plain_loss(self.model, images))
            summed.append(sum(float(loss) for loss in self.model.losses))
            logits = self.model.predict(images[0], verbose=0)
            data = float(to_numpy(self.model.loss(images[1], logits)))
            penalties.append(expected[-1] - data)

    shown, expected, summed, penalties = [], [], [], []
    model = two_layers(ks.SGL0(0.01), sgd())
    mine = [Evaluate(), *callbacks()]
    if place == "after":
        mine = [*mine[1:], mine[0]]
    model.fit(*images, epochs=2, verbose=0, callbacks=mine)
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    np.testing.assert_allclose(summed, penalties, rtol=1e-4)


def interrupted(images, penalty, callback):
    """Returns a model whose `fit` was ended by an exception."""
    model = two_layers(penalty, keras.optimizers.SGD(0.1))
    with pytest.raises(StoppedError):
        model.fit(
            *images, epochs=3, verbose=0, callbacks=[callback, stop_before(1)]
        )
    return model


@pytest.mark.parametrize("end", ["release", "compile", "fit"])
@pytest.mark.parametrize(
    ("penalty", "callback"),
    [
        (ks.GroupLasso(0.05), ks.ProximalStep()),
        (ks.SGL0(0.05), ks.VariableSplitting(0.1)),
    ],
    ids=["proximal", "splitting"],
)
def test_a_plain_fit_after_an_exception_is_plain(
    images, penalty, callback, end
):
    model = interrupted(images, penalty, callback)
    if end == "release":
        ks.release(model)
        assert_given_back(model, type(penalty))
    if end == "compile":
        model.compile(keras.optimizers.SGD(0.1), model.loss, **QUICK)
    expected = two_layers(penalty, keras.optimizers.SGD(0.1))
    expected.set_weights(model.get_weights())
    for each in (model, expected):
        each.fit(*images, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_allclose(state(model), state(expected), atol=1e-6)


def test_a_new_penalty_after_an_exception_replaces_the_loan(images):
    model = interrupted(images, ks.GroupLasso(0.05), ks.ProximalStep())
    ks.regularize(model, ks.GroupLasso(1e-9, axis="auto"))
    assert_given_back(model, ks.GroupLasso)
    model.fit(*images, epochs=2, verbose=0)
    assert (to_numpy(model.layers[0].kernel) != 0).all()


@pytest.mark.parametrize(
    "function",
    [lambda model: ks.regularize(model, ks.L1(0.1)), ks.release],
    ids=["regularize", "release"],
)
def test_a_new_penalty_inside_fit_is_refused(images, function):
    def change(epoch, logs):
        function(model)

    model = two_layers(ks.GroupLasso(0.05), sgd())
    change = keras.callbacks.LambdaCallback(on_epoch_end=change)
    with pytest.raises(ValueError, match="cannot be called inside `fit`"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep(), change])


class OwnStep(keras.Model):
    """A train step that does without the losses of the model."""

    def __init__(self, penalty):
        super().__init__()
        self.dense = keras.layers.Dense(3, kernel_regularizer=penalty)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.own_loss(y, self(x))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}

    own_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.tensorflow
def test_a_train_step_without_the_models_losses_is_refused(images):
    model = OwnStep(ks.SGL0(0.01))
    model(images[0])
    model.compile("sgd", **QUICK)
    expected = "`VariableSplitting` cannot train this model, since its `train_"
    with pytest.raises(ValueError, match=expected):
        model.fit(*images, verbose=0, callbacks=[ks.VariableSplitting(0.1)])
    # A proximal step needs no loss.
    model.fit(*images, epochs=2, verbose=0, callbacks=[ks.ProximalStep()])
    # Nothing was lent to it any more.
    model.fit(*images, verbose=0)


@pytest.mark.tensorflow
def test_a_train_step_without_constraints_is_refused(images):
    class Bare(OwnStep):
        def train_step(self, data):
            x, y = data
            return {"loss": self.own_loss(y, self(x))}

    model = Bare(ks.SGL0(0.01))
    model(images[0])
    model.compile("sgd", **QUICK)
    with pytest.raises(ValueError, match="does not apply the constraints"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])


@pytest.mark.parametrize("constraint_first", [True, False])
def test_gates_and_a_penalty_in_one_fit(images, constraint_first):
    class Lent(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernels = [self.model.get_layer(n).kernel for n in names]
            lent.append([type(k.regularizer) for k in kernels])

    names, lent = ("first", "second"), []
    model = two_gated_layers()
    for name in names:
        model.get_layer(name).kernel.regularizer = ks.SGL0(2e-3)

    def callbacks():
        both = [
            ks.L0Constraint(0.3, learning_rate=0.5),
            ks.VariableSplitting(0.1, growth=2, every=2),
        ]
        return both if constraint_first else both[::-1]

    with pytest.raises(StoppedError):
        train(model, images, stop_before(2), before=callbacks())
    logs = train(
        model,
        images,
        Lent(),
        before=callbacks(),
        epochs=4,
        validation_data=images,
    )
    assert lent == 4 * [2 * [SplitPenalty]]
    assert logs["beta"] == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert logs["multiplier"] == sorted(logs["multiplier"])
    data = float(
        to_numpy(model.loss(images[1], model.predict(images[0], verbose=0)))
    )
    penalty = sum(
        float(ks.SGL0(2e-3)(model.get_layer(n).kernel)) for n in names
    )
    assert logs["val_loss"][-1] == pytest.approx(data + penalty, rel=1e-5)
    assert {
        type(v.regularizer).__name__ for v in model.trainable_variables
    } == {"SGL0", "NoneType"}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "callback",
    [
        ks.VariableSplitting(0.1),
        ks.ADMM(0.1),
        ks.ProximalStep(),
        ks.TargetDensity(0.5),
        ks.SparsityMonitor(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_a_model_that_is_not_built_is_refused(images, callback):
    dense = keras.layers.Dense(3, kernel_regularizer=ks.SGL0(1e-3))
    model = keras.Sequential([dense])
    model.compile("sgd", "sparse_categorical_crossentropy", **QUICK)
    with pytest.raises(ValueError, match="Expected a built model, which beg"):
        model.fit(*images, verbose=0, callbacks=[callback])
    model(images[0])
    model.fit(*images, verbose=0, callbacks=[callback])


def test_the_order_of_two_callbacks_is_named(images):
    model = two_layers(ks.SGL0(1e-3))
    callbacks = [ks.TargetDensity(0.5), ks.VariableSplitting(0.1)]
    expected = "`VariableSplitting` found that a callback before it"
    with pytest.raises(ValueError, match=expected):
        model.fit(*images, verbose=0, callbacks=callbacks)


def test_what_was_frozen_after_an_exception_is_given_back_too(images):
    model = two_layers(ks.SGL0(1e-3))
    callbacks = [ks.ProximalStep(), stop_before(1)]
    with pytest.raises(StoppedError):
        model.fit(*images, epochs=2, verbose=0, callbacks=callbacks)
    model.layers[0].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", **QUICK)
    model.fit(*images, verbose=0, callbacks=[ks.ProximalStep()])
    model.layers[0].trainable = True
    assert_given_back(model, ks.SGL0)


def test_names_are_made_unique():
    assert unique(["a", "b", "a", "a_1", "a"]) == [
        "a",
        "b",
        "a_1",
        "a_1_1",
        "a_2",
    ]


@pytest.mark.parametrize("wrapped", [False, True], ids=["", "loss scale"])
@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [ks.ProximalStep()],
        lambda: [ks.TargetDensity(0.4)],
        lambda: [ks.ProximalStep(), ks.TargetDensity(0.3, settle=0.5)],
        lambda: [
            ks.CoupledGroups(ks.GroupLasso(0.03)),
            ks.ProximalStep(),
            ks.TargetDensity(0.5, of="macs"),
        ],
    ],
    ids=["proximal", "target", "both", "coupled"],
)
def test_averages_keep_the_zeros(images, callbacks, wrapped):
    class Raw(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raw.append(state(self.model))

    raw = []
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    mine = callbacks()
    coupled = isinstance(mine[0], ks.CoupledGroups)
    model = two_layers(None if coupled else ks.GroupLasso(0.3), optimizer)
    model.fit(
        *images, epochs=6, batch_size=16, verbose=0, callbacks=[*mine, Raw()]
    )
    zeros = raw[-1] == 0
    assert zeros.sum() > 20
    after = state(model)
    assert (after[zeros] == 0).all()
    # The others are the averages.
    assert np.abs(after - raw[-1])[~zeros].max() > 1e-4


CALLBACKS = [
    lambda: [ks.VariableSplitting(0.1)],
    lambda: [ks.ADMM(0.1)],
    lambda: [ks.ProximalStep(), ks.TargetDensity(0.4)],
    lambda: [ks.TargetDensity(0.4, of="macs")],
    lambda: [ks.SparsityMonitor()],
    lambda: [ks.KeepZeros()],
]


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("callbacks", CALLBACKS)
def test_a_copy_of_a_used_callback_is_as_new(images, callbacks, copied):
    def trained(callbacks):
        model = two_layers(ks.SGL0(0.01), keras.optimizers.SGD(0.1))
        kernel = to_numpy(model.layers[0].kernel)
        model.layers[0].kernel.assign(kernel * (abs(kernel) > 0.1))
        model.fit(
            *images, epochs=3, shuffle=False, verbose=0, callbacks=callbacks
        )
        return state(model)

    used = callbacks()
    first = trained(used)
    again = trained([copied(callback) for callback in used])
    np.testing.assert_allclose(first, again, atol=1e-6)
    assert trained([copied(callback) for callback in callbacks()]).shape


def test_sklearn_wrappers_copy_callbacks(images):
    base = pytest.importorskip("sklearn.base")

    def build(X, y):  # noqa: N803
        model = two_layers(ks.SGL0(0.01))
        model.compile("sgd", "categorical_crossentropy", **QUICK)
        return model

    callbacks = [ks.VariableSplitting(0.1)]
    classifier = keras.wrappers.SKLearnClassifier(
        build, fit_kwargs={"verbose": 0, "callbacks": callbacks}
    )
    classifier.fit(*images)
    again = base.clone(classifier)
    again.fit(*images)
    assert again.predict(images[0]).shape[0] == len(images[0])
