import keras
import networks
import numpy as np
import pytest
from helpers import QUICK, compile_quickly, to_numpy
from keras import layers, ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.joint_penalty import JointPenalty
from keras_sgl0.structures.members import Members

BACKEND = keras.backend.backend()
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def residual(**options):
    keras.utils.set_random_seed(0)
    return networks.residual(6, stream=4, inner=5, outputs=3, **options)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 6, 6, 3)).astype("float32"), np.arange(32) % 3


def joint(model, penalty, readers=False, weights=None):
    found = ks.structures(model)
    if weights is None:
        weights = np.ones(len(found.counts))
    return JointPenalty(model, Members(found, readers), penalty, weights)


def value_of(model, name):
    layer, attribute = name.split(".")
    return to_numpy(getattr(model.get_layer(layer), attribute))


STREAM = (
    *("stem.kernel", "stem_norm.gamma", "stem_norm.beta"),
    *("outer.kernel", "outer.bias", "outer_norm.gamma", "outer_norm.beta"),
)
INNER = ("inner.kernel", "inner.bias", "inner_norm.gamma", "inner_norm.beta")


def rows(model, names):
    """Returns the members of a family, one row a structure."""
    values = [np.moveaxis(value_of(model, n), -1, 0) for n in names]
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


def shift(model):
    rng = np.random.default_rng(3)
    for v in model.trainable_variables:
        v.assign(rng.normal(size=v.shape))


def expected_value(penalty, matrix):
    norms = np.linalg.norm(matrix, axis=1)
    sums = np.abs(matrix).sum(axis=1)
    if isinstance(penalty, ks.GroupLasso):
        return penalty.factor * matrix.shape[1] ** 0.5 * norms.sum()
    exclusive = 0.5 * (sums**2).sum()
    if isinstance(penalty, ks.ExclusiveLasso):
        return penalty.factor * exclusive
    both = (1 - penalty.mu) * norms.sum() + penalty.mu * exclusive
    return penalty.factor * both


PENALTIES = [ks.GroupLasso(0.1), ks.ExclusiveLasso(0.01), ks.CGES(0.02, mu=0.3)]


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_value_is_that_of_the_joined_members(penalty):
    model = residual()
    shift(model)
    value = float(joint(model, penalty, weights=np.array([1.0, 3.0])).value())
    expected = expected_value(penalty, rows(model, STREAM))
    expected += 3 * expected_value(penalty, rows(model, INNER))
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_joint_step_is_that_of_the_joined_members(penalty):
    model = residual()
    shift(model)
    step = 0.05
    coupling = joint(model, penalty)
    names, variables = (*STREAM, *INNER), {}
    for name in names:
        layer, attribute = name.split(".")
        variables[name] = getattr(model.get_layer(layer), attribute)
    expected = [
        to_numpy(
            type(penalty)
            .from_config(penalty.get_config() | {"axis": 0})
            .prox(ops.convert_to_tensor(rows(model, family)), step)
        )
        for family in (STREAM, INNER)
    ]
    head = value_of(model, "head.kernel")
    # As Keras does it: one variable after the other is computed and assigned.
    for variable in model.trainable_variables:
        variable.assign(coupling.prox(variable, variable, step))
    for family, matrix in zip((STREAM, INNER), expected, strict=True):
        np.testing.assert_allclose(rows(model, family), matrix, atol=1e-6)
    np.testing.assert_array_equal(value_of(model, "head.kernel"), head)


def best_of_sgl0(matrix, is_kernel, factor, step):
    """Returns the best of all ways to keep the k largest weights of a row."""
    price = step * factor * matrix.shape[1] ** 0.5
    out = []
    for w in matrix:
        order = np.argsort(-np.where(is_kernel, abs(w), np.inf), kind="stable")
        ways = []
        for k in range(is_kernel.sum() + 1):
            x = np.zeros_like(w)
            kept = order[: (~is_kernel).sum() + k]
            x[kept] = w[kept]
            norm = np.linalg.norm(x)
            x *= max(0, 1 - price / norm) if norm else 0
            zeros = np.count_nonzero(x[is_kernel])
            value = step * factor * zeros + price * np.linalg.norm(x)
            ways.append((value + 0.5 * ((x - w) ** 2).sum(), k, x))
        out.append(min(ways, key=lambda way: way[:2])[2])
    return np.array(out)


# Weak, some weights go; strong, whole structures go; and only biases stay.
@pytest.mark.parametrize(
    ("factor", "size"), [(0.5, 1.0), (4.0, 1.0), (4.0, 20.0)]
)
def test_the_joint_step_of_sgl0_keeps_the_best_weights(factor, size):
    model = residual()
    shift(model)
    model.get_layer("outer").bias.assign(np.full(4, size, "float32"))
    coupling = joint(model, ks.SGL0(factor))
    expected = {}
    for names in (STREAM, INNER):
        widths = [value_of(model, n).size for n in names]
        matrix = rows(model, names)
        kernel = np.repeat(
            ["kernel" in n for n in names], np.array(widths) // len(matrix)
        )
        expected[names] = best_of_sgl0(matrix, kernel, factor, 0.2)
    head = value_of(model, "head.kernel")
    for variable in model.trainable_variables:
        variable.assign(coupling.prox(variable, variable, 0.2))
    for names, matrix in expected.items():
        np.testing.assert_allclose(rows(model, names), matrix, atol=1e-5)
    # In no structure: the part on single weights alone.
    np.testing.assert_allclose(
        value_of(model, "head.kernel"),
        np.where(abs(head) > np.sqrt(0.4 * factor), head, 0),
    )
    dead = (expected[STREAM] == 0).all(axis=1)
    assert (expected[STREAM] == 0).any()
    assert dead.any() == (factor == 4.0 and size == 1.0)


def test_the_gradient_against_finite_differences():
    model = residual()
    shift(model)
    coupling = joint(model, ks.GroupLasso(0.1), readers=True)
    outer, rng = model.get_layer("outer").kernel, np.random.default_rng(5)
    direction = rng.normal(size=outer.shape).astype("float32")
    start = to_numpy(outer)

    def value(step):
        outer.assign(start + step * direction)
        return float(coupling.value())

    slope = (value(1e-2) - value(-1e-2)) / 2e-2
    # d/dw of sum_s c_s ||W_s|| is the sum of c_s w / ||W_s|| over both the
    # structures that a weight of `outer` belongs to.
    outer.assign(start)
    norms = to_numpy(coupling.members.norms())
    weights = 0.1 * np.sqrt(coupling.members.sizes()) / norms
    both = weights[:4][None, None, None, :] + weights[4:][None, None, :, None]
    assert slope == pytest.approx((both * start * direction).sum(), rel=1e-3)


def test_a_plain_step_of_sgd_moves_all_members(data):
    """The gradient reaches kernels, biases, gammas and betas alike."""
    model = residual()
    shift(model)
    before = {n: value_of(model, n) for n in (*STREAM, *INNER, "head.kernel")}
    norms = np.linalg.norm(rows(model, STREAM), axis=1)
    size = rows(model, STREAM).shape[1]

    def no_loss(y, outputs):
        return 0.0 * ops.sum(outputs)

    model.compile(keras.optimizers.SGD(0.1), no_loss, **QUICK)
    model.fit(
        *data,
        batch_size=32,
        verbose=0,
        callbacks=[ks.CoupledGroups(ks.GroupLasso(0.2))],
    )
    scale = 1 - 0.1 * 0.2 * size**0.5 / norms
    for name in STREAM:
        np.testing.assert_allclose(
            value_of(model, name), before[name] * scale, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(
        value_of(model, "head.kernel"), before["head.kernel"]
    )


WAYS = {
    "subgradient": (ks.GroupLasso(0.02), lambda: []),
    "proximal": (ks.GroupLasso(0.05), lambda: [ks.ProximalStep()]),
    "sparse": (ks.SparseGroupLasso(0.02), lambda: [ks.ProximalStep()]),
    "matrix": (ks.CGES(0.02), lambda: [ks.ProximalStep()]),
    "sparse l0": (ks.SGL0(0.005), lambda: [ks.ProximalStep()]),
    "splitting": (ks.SGL0(0.003), lambda: [ks.VariableSplitting(0.075)]),
    "admm": (ks.SGL0(0.003), lambda: [ks.ADMM(0.075)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_meets_the_target_after_shrink(way, data):
    penalty, others = WAYS[way]
    model = residual(kernel_regularizer="l2")
    compile_quickly(model, keras.optimizers.SGD(0.05, momentum=0.9), LOSS)
    target = ks.TargetDensity(0.5, of="macs")
    whole = ks.count_macs(model).macs
    logs = model.fit(
        *data,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[ks.CoupledGroups(penalty), *others(), target],
    ).history
    small, report = ks.shrink(model, tolerance=0.0)
    share = ks.count_macs(small).macs / whole
    assert share <= 0.5
    assert logs["density"][-1] == pytest.approx(share)
    assert report.relative_difference < 1e-5
    assert np.isfinite(logs["loss"]).all()
    # The layers have their own regularizers back, and no constraint.
    kernel = model.get_layer("inner").kernel
    assert isinstance(kernel.regularizer, keras.regularizers.L2)
    assert all(v.constraint is None for v in model.trainable_variables)


NETWORKS = {
    "resnet_20": lambda penalty: ks.models.ResNet(kernel_regularizer=penalty),
    "mobilenet_v2": lambda penalty: ks.models.MobileNetV2(
        kernel_regularizer=penalty
    ),
    "lenet": lambda penalty: ks.models.LeNet5Caffe(kernel_regularizer=penalty),
    "wrn_16_1": lambda penalty: ks.models.WideResNet(
        depth=16, width=1, kernel_regularizer=penalty
    ),
}


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("density", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("coupled", [True, False], ids=["coupled", "kernels"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_what_the_target_says(name, coupled, density):
    penalty = ks.GroupLasso(1e-4, "auto")
    model = NETWORKS[name](None if coupled else penalty)
    if not coupled:
        # On all kernels but the last: what has no penalty cannot be cut.
        ks.regularize(model, penalty)
    rng = np.random.default_rng(0)
    images = rng.random((32, *model.input_shape[1:]), "float32")
    labels = rng.integers(0, 10, 32)
    model.compile(keras.optimizers.SGD(0.01), LOSS, jit_compile=False)
    callbacks = [ks.ProximalStep(), ks.TargetDensity(density, of="macs")]
    if coupled:
        callbacks.insert(0, ks.CoupledGroups(penalty))
    model.fit(
        images, labels, batch_size=4, epochs=2, verbose=0, callbacks=callbacks
    )
    _, report = ks.shrink(model, tolerance=0.0)
    assert report.relative_difference < 1e-5
    assert 0.99 * density <= report.macs_after / report.macs <= density


def test_strong_joint_steps_kill_whole_structures(data):
    model = residual()
    model.compile(keras.optimizers.SGD(0.1), LOSS, **QUICK)
    model.fit(
        *data,
        batch_size=8,
        epochs=12,
        verbose=0,
        callbacks=[ks.CoupledGroups(ks.GroupLasso(0.1)), ks.ProximalStep()],
    )
    dead = [(rows(model, family) == 0) for family in (STREAM, INNER)]
    assert any(matrix.all(axis=1).any() for matrix in dead)
    for matrix in dead:
        np.testing.assert_array_equal(matrix.all(axis=1), matrix[:, -1])


def test_weight_decay_beside_the_penalty_keeps_its_gradient(data):
    """Under a proximal step the L2 of a layer still trains."""
    ends = []
    for decay in (None, keras.regularizers.L2(1.0)):
        model = residual(kernel_regularizer=decay)
        model.compile(keras.optimizers.SGD(0.05), LOSS, **QUICK)
        penalty = ks.CoupledGroups(ks.GroupLasso(1e-6))
        callbacks = [penalty, ks.ProximalStep()]
        model.fit(*data, epochs=3, verbose=0, callbacks=callbacks)
        ends.append(np.abs(value_of(model, "inner.kernel")).sum())
    assert ends[1] < 0.9 * ends[0]


def test_a_group_over_two_heads_reaches_the_solution():
    """Features shared by two dense heads: multi-task lasso, in float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 12))
    truth = np.zeros((12, 5))
    truth[:4] = rng.normal(size=(4, 5))
    y = x @ truth + 0.1 * rng.normal(size=(80, 5))
    factor = 0.15
    # An independent solver: block coordinate descent on 1/(2n) ||y - xW||^2 +
    # factor * sqrt(5) * sum_i ||W_i||.
    w = np.zeros((12, 5))
    for _ in range(300):
        for i in range(12):
            rest = y - x @ w + np.outer(x[:, i], w[i])
            z = x[:, i] @ rest / 80
            norm, level = np.linalg.norm(z), factor * 5**0.5
            scale = max(0.0, 1 - level / norm)
            w[i] = scale * z / (x[:, i] @ x[:, i] / 80)
    assert 0 < (w == 0).all(1).sum() < 12

    inputs = keras.Input((12,))
    features = layers.Dense(12, use_bias=False, name="features")(inputs)
    first = layers.Dense(2, use_bias=False, name="first")(features)
    second = layers.Dense(3, use_bias=False, name="second")(features)
    model = keras.Model(inputs, [first, second])
    model.get_layer("features").kernel.assign(np.eye(12))
    model.get_layer("features").trainable = False

    def half(y, out):
        return 0.5 * ops.sum(ops.square(y - out), axis=-1)

    step = 0.9 / np.linalg.eigvalsh(x.T @ x / 80)[-1]
    model.compile(keras.optimizers.SGD(step), [half, half], **QUICK)
    # 400 steps on all rows. An epoch takes longer than the steps in it.
    x, y = np.tile(x, (40, 1)), np.tile(y, (40, 1))
    model.fit(
        x,
        [y[:, :2], y[:, 2:]],
        batch_size=80,
        epochs=10,
        shuffle=False,
        verbose=0,
        callbacks=[
            ks.CoupledGroups(ks.GroupLasso(factor), readers=True),
            ks.ProximalStep(),
        ],
    )
    found = np.hstack(
        [value_of(model, "first.kernel"), value_of(model, "second.kernel")]
    )
    np.testing.assert_allclose(found, w, atol=1e-4)
    np.testing.assert_array_equal((found == 0).all(1), (w == 0).all(1))


@pytest.mark.parametrize("readers", [False, True])
def test_what_is_frozen_has_no_penalty(readers, data):
    model = residual()
    model.get_layer("inner").trainable = False
    members = Members(ks.structures(model), readers)
    assert members.removable[:4].all()
    assert members.removable[4:].any() == readers
    model.compile("sgd", LOSS, **QUICK)
    model.fit(
        *data, verbose=0, callbacks=[ks.CoupledGroups(ks.GroupLasso(0.1))]
    )


def test_what_a_structure_costs_may_weigh_it():
    model = residual()
    callback = ks.CoupledGroups(ks.GroupLasso(0.1), weight="macs")
    callback.set_model(model)
    callback.survey()
    saved = callback.structures.savings("macs")
    weights = callback._joint._norm_weights
    size = callback._joint.members.sizes()
    ratio = weights / (0.1 * np.sqrt(size))
    assert ratio[4] / ratio[0] == pytest.approx(saved[1] / saved[0])
    assert ratio.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "compiled_with",
    [
        {"steps_per_execution": 2},
        {"jit_compile": True},
        {"run_eagerly": True},
        {"loss_scale": True},
    ],
    ids=str,
)
@pytest.mark.skipif(BACKEND == "torch", reason="torch compiles otherwise")
def test_every_way_to_compile_ends_alike(compiled_with, data):
    ends = []
    for options in ({}, compiled_with):
        if BACKEND == "jax" and "run_eagerly" in options:
            pytest.skip("slow without compiling")
        model = residual()
        optimizer = keras.optimizers.SGD(0.05)
        options = dict(options)
        if options.pop("loss_scale", False):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, LOSS, **(QUICK | options))
        callbacks = [ks.CoupledGroups(ks.GroupLasso(0.03)), ks.ProximalStep()]
        model.fit(
            *data,
            batch_size=8,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        ends.append(rows(model, STREAM))
    np.testing.assert_allclose(*ends, atol=1e-4)


def test_mixed_precision(data):
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = residual()
    finally:
        keras.config.set_dtype_policy(policy)
    model.compile(keras.optimizers.SGD(0.05), LOSS, **QUICK)
    target = ks.TargetDensity(0.5, of="parameters")
    penalty = ks.CoupledGroups(ks.GroupLasso(0.05))
    whole = model.count_params()
    callbacks = [penalty, ks.ProximalStep(), target]
    model.fit(*data, epochs=3, verbose=0, callbacks=callbacks)
    small, _ = ks.shrink(model, tolerance=0.0)
    assert small.count_params() <= 0.5 * whole


def test_a_second_fit_goes_on_with_what_is_dead(data):
    model = residual()
    model.compile(keras.optimizers.SGD(0.05), LOSS, **QUICK)

    def fit():
        model.fit(
            *data,
            epochs=2,
            verbose=0,
            callbacks=[
                ks.CoupledGroups(ks.GroupLasso(0.01)),
                ks.ProximalStep(),
                ks.TargetDensity(0.5, of="channels"),
            ],
        )
        return (rows(model, INNER) == 0).all(axis=1)

    np.testing.assert_array_equal(fit(), fit())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": ks.L1(0.1)}, "`penalty`. Expected a penalty with a part"),
        ({"penalty": 0.1}, "`penalty`. Expected a penalty with a part"),
        ({"penalty": ks.GroupLasso(1), "readers": 1}, "`readers`. Expected"),
        ({"penalty": ks.GroupLasso(1), "weight": "x"}, "`weight`. Expected"),
        ({"penalty": ks.GroupLasso(1), "inside": "x"}, "`inside`. Expected"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match="Invalid value for argument") as error:
        ks.CoupledGroups(**arguments)
    assert message in str(error.value)


def dense(units):
    return keras.Sequential([keras.Input((3,)), layers.Dense(units)])


def fit(model, *callbacks):
    model.compile("sgd", "mse", **QUICK)
    shape = model.output_shape[1:]
    x = np.zeros((4, *model.input_shape[1:]))
    model.fit(x, np.zeros((4, *shape)), verbose=0, callbacks=list(callbacks))


def test_models_that_cannot_be_coupled():
    coupled = ks.CoupledGroups(ks.GroupLasso(0.1))
    with pytest.raises(ValueError, match="a model with channels that can be"):
        fit(dense(2), coupled)
    frozen = residual()
    for layer in frozen.layers[:-1]:
        layer.trainable = False
    with pytest.raises(ValueError, match="of which all members can be trained"):
        fit(frozen, coupled)
    twice = residual(kernel_regularizer=ks.GroupLasso(0.1))
    with pytest.raises(ValueError, match="which has a penalty of its own"):
        fit(twice, coupled)


@pytest.mark.parametrize(
    ("penalty", "readers", "message"),
    [
        (
            ks.SparseGroupTransformedL1(0.1),
            False,
            "of GroupLasso on structures and TransformedL1 on kernels",
        ),
        (ks.GroupLasso(0.1), True, "A weight of .* is in two structures"),
    ],
)
def test_joint_steps_that_are_not_known(penalty, readers, message):
    coupled = ks.CoupledGroups(penalty, readers=readers)
    with pytest.raises(ValueError, match=message):
        fit(residual(), coupled, ks.ProximalStep())


def attention():
    x = inputs = keras.Input((5, 6))
    x = layers.Dense(6)(x)
    x = layers.MultiHeadAttention(4, 3, name="mha")(x, x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("inside", ["heads", "dimensions"])
def test_joint_steps_for_heads_or_for_their_dimensions(inside):
    model = attention()
    shift(model)
    with pytest.raises(ValueError, match="in a head and in a dimension"):
        fit(model, ks.CoupledGroups(ks.GroupLasso(0.1)), ks.ProximalStep())
    coupled = ks.CoupledGroups(ks.GroupLasso(0.2), inside=inside)
    coupled.set_model(model)
    coupled.survey()
    members = coupled._joint.members
    found = coupled.structures
    before, sizes = to_numpy(members.norms()), members.sizes()
    labelled = [":" in found.names(f)[0] for f in found.families]
    own = [inside in found.names(f)[0] for f in found.families]
    taken = ~np.array(labelled) | own
    np.testing.assert_array_equal(members.removable, taken)
    np.testing.assert_array_equal(before > 0, taken)
    for variable in members.variables:
        variable.assign(coupled._joint.prox(variable, variable, 0.5))
    expected = np.maximum(before - 0.5 * 0.2 * np.sqrt(sizes), 0)
    np.testing.assert_allclose(to_numpy(members.norms()), expected, rtol=1e-5)
    fit(
        model,
        ks.CoupledGroups(ks.GroupLasso(1e3), inside=inside),
        ks.ProximalStep(),
    )
    dead = to_numpy(members.norms())[np.array(own)] == 0
    assert dead.all()


def test_one_strength_for_all_members(data):
    """A target of multiply-adds does not weigh the members of a structure."""
    model = residual()
    model.compile("sgd", LOSS, **QUICK)
    target = ks.TargetDensity(0.5, of="macs")
    penalty = ks.CoupledGroups(ks.GroupLasso(1e-3))
    model.fit(*data, verbose=0, callbacks=[penalty, ks.ProximalStep(), target])
    assert set(target._relative_prices.values()) == {1.0}


def test_a_target_below_what_is_frozen_is_refused():
    model = residual()
    model.get_layer("inner").trainable = False
    target = ks.TargetDensity(0.2, of="macs")
    penalty = ks.CoupledGroups(ks.GroupLasso(0.1))
    with pytest.raises(ValueError) as error:
        fit(model, penalty, target)
    text = str(error.value)
    assert "the share of the macs that cannot be cut" in text
    assert "`inner`" in text and "`head`" in text
    assert "density=0.2" in text


def test_a_target_of_one_needs_nothing_that_can_be_cut():
    model = dense(2)
    model.layers[0].kernel.regularizer = ks.GroupLasso(0.1)
    fit(model, ks.TargetDensity(1.0, of="macs"))
    assert ks.count_macs(ks.shrink(model, verify=False)[0]).macs == 6
