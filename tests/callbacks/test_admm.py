import itertools

import keras
import numpy as np
import pytest
from helpers import QUICK, to_numpy, two_layers, two_towers

import keras_sgl0 as ks

FACTOR = 0.05


@pytest.fixture(scope="module")
def subset_problem():
    """Returns correlated rows of 8 features and the best subset's support."""
    rng = np.random.default_rng(1)
    mixing = np.eye(8) + 0.3 * rng.normal(size=(8, 8))
    x = rng.normal(size=(200, 8)) @ mixing
    truth = np.array([1.0, 0, 0, -0.8, 0, 0.15, 0, 0.6])
    y = x @ truth + 0.1 * rng.normal(size=200)

    def cost(support):
        chosen = x[:, list(support)]
        w = np.linalg.lstsq(chosen, y, rcond=None)[0]
        return ((chosen @ w - y) ** 2).mean() + FACTOR * len(support)

    supports = itertools.chain.from_iterable(
        itertools.combinations(range(8), k) for k in range(9)
    )
    return x.astype("float32"), y.astype("float32"), min(supports, key=cost)


@pytest.mark.parametrize(
    "callback",
    [
        ks.ADMM(beta=2.0),
        ks.VariableSplitting(beta=1.0, growth=1.3, every=10),
    ],
    ids=["admm", "splitting"],
)
def test_the_support_is_the_best_of_all_subsets(subset_problem, callback):
    x, y, best = subset_problem
    assert 0 < len(best) < 4, "the penalty drops nothing that counts"
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(
        1, use_bias=False, kernel_regularizer=ks.L0(FACTOR)
    )
    model = keras.Sequential([keras.Input((8,)), dense])
    model.compile(keras.optimizers.SGD(0.05), "mse", **QUICK)
    model.fit(
        np.tile(x, (20, 1)),
        np.tile(y, 20)[:, None],
        batch_size=200,
        epochs=60,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )
    (v,) = callback.v.values()
    assert tuple(np.flatnonzero(to_numpy(v))) == best


def test_the_dual_closes_the_gap_that_splitting_leaves(images):
    def gap(callback):
        model = two_layers(ks.SparseGroupLasso(5e-3), "adam")
        model.fit(*images, epochs=40, verbose=0, callbacks=[callback])
        return sum(
            abs(to_numpy(layer.kernel) - to_numpy(v)).sum()
            for layer, v in zip(model.layers, callback.v.values(), strict=True)
        )

    admm = gap(ks.ADMM(beta=0.05))
    assert admm < 0.5 * gap(ks.VariableSplitting(beta=0.05, growth=1))


def test_one_epoch_of_updates():
    """V = prox(W + U) and U = U + W - V, with the W of the epoch's end."""
    images = np.zeros((16, 12), "float32"), np.zeros(16, "int64")
    model = two_layers(ks.SGL0(0.02), keras.optimizers.SGD(0.0))
    admm = ks.ADMM(beta=1.0)
    w = to_numpy(model.layers[0].kernel)
    threshold = 0.04**0.5

    def hard(w):
        return np.where(abs(w) > threshold, w, 0)

    v, u = hard(w), np.zeros_like(w)
    for epochs in (1, 2, 3):
        model.fit(*images, epochs=epochs, verbose=0, callbacks=[admm])
        v, u = hard(w), np.zeros_like(w)
        for _ in range(epochs):
            v = hard(w + u)
            u = u + w - v
        path = model.layers[0].kernel.path
        np.testing.assert_allclose(to_numpy(admm.v[path]), v, atol=1e-6)
        np.testing.assert_allclose(to_numpy(admm.u[path]), u, atol=1e-6)


def test_the_first_epoch_is_splitting_with_v_held(images):
    """With U = 0 and V = prox(W0) the loss is that of F_beta(V, W)."""
    model = two_layers(ks.SGL0(0.02), keras.optimizers.SGD(0.0))
    kernels = [to_numpy(layer.kernel) for layer in model.layers]
    penalties = 0
    for w in kernels:
        v = to_numpy(ks.L0(0.02).prox(w, 1 / 0.5))
        penalties += float(ks.GroupLasso(0.02)(w)) + float(ks.L0(0.02)(v))
        penalties += 0.25 * ((w - v) ** 2).sum()
    plain = two_layers(None).evaluate(*images, verbose=0)
    loss = model.fit(
        *images, batch_size=64, verbose=0, callbacks=[ks.ADMM(beta=0.5)]
    ).history["loss"]
    assert loss == [pytest.approx(plain + penalties, rel=1e-5)]


def test_v_stays_from_the_end_of_an_epoch_to_the_next(images):
    seen = []

    def look(epoch, logs=None):
        (v, _) = admm.v.values()
        seen.append(to_numpy(v).copy())

    looker = keras.callbacks.LambdaCallback(
        on_epoch_begin=look, on_epoch_end=look
    )
    admm = ks.ADMM(beta=1.0)
    model = two_layers(ks.SGL0(0.02))
    model.fit(*images, epochs=3, verbose=0, callbacks=[admm, looker])
    np.testing.assert_array_equal(seen[2], seen[1])
    np.testing.assert_array_equal(seen[4], seen[3])
    # Not only as V has not changed at all.
    assert (seen[5] != seen[3]).any()


def test_defaults_and_variables(images):
    admm = ks.ADMM(beta=1.0)
    assert [admm.beta_at(epoch) for epoch in (0, 40, 400)] == [1.0] * 3
    growing = ks.ADMM(beta=1.0, growth=2.0)
    assert [growing.beta_at(e) for e in (39, 40, 79, 80)] == [1, 2, 2, 4]
    model = two_layers(ks.SGL0(0.02))
    model.fit(*images, verbose=0, callbacks=[admm])
    for w, u in zip(model.layers, admm.u.values(), strict=True):
        assert (u.name, u.dtype) == ("splitting_u_kernel", "float32")
        assert u.shape == w.kernel.shape
        assert not u.trainable


def test_what_is_kept_has_these_names(images):
    admm, kept = ks.ADMM(beta=1.0), {}
    admm.save_own_variables(kept)
    assert kept == {}
    model = two_layers(ks.SGL0(0.02))
    model.fit(*images, verbose=0, callbacks=[admm])
    admm.save_own_variables(kept)
    values = {"beta": admm.beta}
    values |= {f"v/{path}": v for path, v in admm.v.items()}
    values |= {f"u/{path}": u for path, u in admm.u.items()}
    assert len(values) == 5
    assert set(kept) == set(values)
    for name, variable in values.items():
        np.testing.assert_array_equal(kept[name], to_numpy(variable))


def test_growing_beta_scales_the_dual():
    images = np.zeros((16, 12), "float32"), np.zeros(16, "int64")
    model = two_layers(ks.SGL0(0.02), keras.optimizers.SGD(0.0))
    admm = ks.ADMM(beta=1.0, growth=2.0, every=1)
    seen = []

    def look(epoch, logs=None):
        (u, _) = admm.u.values()
        seen.append(to_numpy(u).copy())

    looker = keras.callbacks.LambdaCallback(
        on_epoch_begin=look, on_epoch_end=look
    )
    logs = model.fit(
        *images, epochs=2, verbose=0, callbacks=[admm, looker]
    ).history
    assert logs["beta"] == [1.0, 2.0]
    np.testing.assert_allclose(seen[2], seen[1] / 2, rtol=1e-6)
    assert abs(seen[1]).max() > 0


def test_beta_too_small_for_a_penalty_is_refused(images):
    model = two_layers(ks.MCP(0.1, gamma=3.0))
    with pytest.raises(ValueError, match=r"`beta` greater than 0\.333"):
        model.fit(*images, verbose=0, callbacks=[ks.ADMM(beta=0.3)])


def test_kernels_of_one_path_have_a_dual_each(images):
    admm = ks.ADMM(0.05, growth=4.0, every=1)
    model = two_towers(ks.SGL0(FACTOR))
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(*images, epochs=1, callbacks=[admm], **fit)
    assert list(admm.u) == list(admm.v) == ["fc/kernel", "fc/kernel_1"]
    store = {}
    admm.save_own_variables(store)
    again = ks.ADMM(0.05, growth=4.0, every=1)
    again.load_own_variables(store)
    halves = []

    def look(epoch, logs):
        halves.extend(to_numpy(u) for u in again.u.values())

    look = keras.callbacks.LambdaCallback(on_epoch_begin=look)
    model.fit(
        *images, epochs=2, initial_epoch=1, callbacks=[again, look], **fit
    )
    for name, half in zip(("fc/kernel", "fc/kernel_1"), halves, strict=True):
        assert store[f"u/{name}"].any()
        np.testing.assert_allclose(half, store[f"u/{name}"] / 4, rtol=1e-6)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_v_follows_weights_that_are_restored_as_fit_begins(
    images, tmp_path, first
):
    def fit(model, *more):
        admm = ks.ADMM(5.0, growth=2.0, every=1)
        backup = keras.callbacks.BackupAndRestore(
            tmp_path, delete_checkpoint=False
        )
        callbacks = [backup, admm] if first else [admm, backup]
        model.fit(*images, epochs=3, verbose=0, callbacks=[*callbacks, *more])
        return admm

    class StoppedError(Exception):
        pass

    def stop(epoch, logs):
        if epoch == 2:
            raise StoppedError

    stop = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(StoppedError):
        fit(two_layers(ks.SGL0(FACTOR)), stop)
    found = {}

    def look(epoch, logs):
        kernel = model.layers[0].kernel
        penalty = kernel.regularizer
        found["v"] = to_numpy(penalty.held)
        found["expected"] = to_numpy(penalty.v_step(kernel))

    look = keras.callbacks.LambdaCallback(on_epoch_begin=look)
    model = two_layers(ks.SGL0(FACTOR), seed=5)
    fit(model, look)
    np.testing.assert_array_equal(found["v"], found["expected"])
    assert 0 < np.count_nonzero(found["v"]) < found["v"].size


def run(model, images, admm, *callbacks, epochs=6, **arguments):
    return model.fit(
        *images,
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[admm, *callbacks],
        **arguments,
    ).history


def admm_with(backup):
    return ks.ADMM(beta=0.5, growth=1.5, every=2, backup=backup)


def trained(model, admm):
    found = [*model.get_weights()]
    found += [to_numpy(x) for x in (*admm.v.values(), *admm.u.values())]
    return np.concatenate([np.ravel(x) for x in found])


def uninterrupted(images, optimizer):
    model, admm = two_layers(ks.SGL0(0.02), optimizer), admm_with(None)
    logs = run(model, images, admm)
    assert abs(trained(model, admm)).max() > 0
    return logs, trained(model, admm)


def test_a_model_of_a_checkpoint_and_the_backup_go_on(images, tmp_path):
    logs, expected = uninterrupted(images, "adam")
    backup = tmp_path / "new" / "admm.npz"
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model = two_layers(ks.SGL0(0.02), "adam")
    run(model, images, admm_with(backup), save, epochs=3)
    assert [p.name for p in backup.parent.iterdir()] == ["admm.npz"]
    # The last two epochs are there.
    for done in (2, 3):
        again = keras.saving.load_model(tmp_path / f"{done}.keras")
        admm = admm_with(backup)
        kept = backup.read_bytes()
        found = run(again, images, admm, initial_epoch=done)
        backup.write_bytes(kept)
        for name in ("loss", "beta", "threshold"):
            np.testing.assert_allclose(found[name], logs[name][done:], 1e-5)
        np.testing.assert_allclose(trained(again, admm), expected, atol=1e-5)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("before", [True, False])
def test_a_run_of_backup_and_restore_goes_on(images, tmp_path, before):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3:
                raise StoppedError

    _, expected = uninterrupted(images, "adam")
    backup = tmp_path / "admm.npz"

    def callbacks(*others):
        restore = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        found = [*others, restore]
        return found if before else found[::-1]

    model = two_layers(ks.SGL0(0.02), "adam")
    with pytest.raises(StoppedError):
        run(model, images, admm_with(backup), *callbacks(Stop()))
    # The file is one epoch ahead of the model if it stopped before the other.
    again, admm = two_layers(ks.SGL0(0.02), "adam"), admm_with(backup)
    run(again, images, admm, *callbacks())
    np.testing.assert_allclose(trained(again, admm), expected, atol=1e-5)
    # A new run begins at the beginning.
    new, admm = two_layers(ks.SGL0(0.02), "adam"), admm_with(backup)
    run(new, images, admm, *callbacks())
    np.testing.assert_allclose(trained(new, admm), expected, atol=1e-5)


def test_a_backup_of_another_epoch_or_model_is_refused(images, tmp_path):
    model = two_layers(ks.SGL0(0.02))
    backup = tmp_path / "admm.npz"
    with pytest.warns(UserWarning, match="state after 2 epochs is not known"):
        run(model, images, admm_with(backup), epochs=5, initial_epoch=2)
    with pytest.raises(ValueError, match=r"10 epochs done.*after \[4, 5\]"):
        run(model, images, admm_with(backup), epochs=11, initial_epoch=10)
    other = two_towers(ks.SGL0(0.02))
    with pytest.raises(ValueError, match="a run of this model"):
        run(other, images, admm_with(backup), initial_epoch=5)


def test_what_another_model_has_kept_is_refused(images):
    admm, store = ks.ADMM(0.5), {}
    run(two_layers(ks.SGL0(0.02)), images, admm, epochs=1)
    admm.save_own_variables(store)
    again = ks.ADMM(0.5)
    again.load_own_variables(store)
    with pytest.raises(ValueError, match="kept of this model"):
        run(two_towers(ks.SGL0(0.02)), images, again, epochs=1)
