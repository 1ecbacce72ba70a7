"""Calls of the public functions with one argument that is wrong."""

import inspect
import math
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

import keras_sgl0 as ks
from keras_sgl0 import deployment, gates, groups, models

NO_LIST: list = []
NO_DICT: dict = {}
NO_NUMBER = [None]
TEXT = "text"
# No number, name, bool, function, shape, model or penalty.
THINGS = (
    None,
    "",
    TEXT,
    b"1",
    1j,
    NO_LIST,
    NO_DICT,
    NO_NUMBER,
    {"a": 1},
    object(),
    np.zeros((2, 3)),
    np.array("a"),
)
NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, 0.5, 1e9)


def without(*valid):
    """Returns the things but for some."""
    return [x for x in THINGS if all(x is not one for one in valid)]


def real(above=-math.inf, at_least=-math.inf, below=math.inf, at_most=math.inf):
    """Returns what makes values that are no numbers in a range."""

    def wrong(rng):
        far = 1e-3 + rng.exponential()
        values = [*THINGS, True, math.nan, math.inf, -math.inf, [at_least]]
        low, high = max(above, at_least), min(below, at_most)
        values += [low - far] if low > -math.inf else []
        values += [high + far] if high < math.inf else []
        values += [x for x in (above, below) if math.isfinite(x)]
        return values

    return wrong


def whole(at_least):
    """Returns what makes values that are no integers of at least a number."""

    def wrong(rng):
        below = at_least - 1 - int(rng.integers(5))
        fraction = at_least + float(rng.uniform(0.1, 0.9))
        return [*THINGS, *NUMBERS[:3], True, below, fraction, str(at_least)]

    return wrong


def flag(rng):
    """Makes values that are no bools."""
    return [*THINGS, *NUMBERS, "True", 2]


def choice(*known):
    """Returns what makes values that are no known names."""

    def wrong(rng):
        one = known[int(rng.integers(len(known)))]
        return [*THINGS, *NUMBERS, True, one + "s", one.upper(), [one]]

    return wrong


def axis(rng):
    """Makes values that are no axes of any kernel."""
    return [*THINGS, *NUMBERS[:3], 0.5, True, "AUTO", [0]]


def axis_of(rng):
    """Makes values that are no axes of a kernel of less than five axes."""
    large = int(rng.integers(5, 99))
    return [*axis(rng), large, -large]


def function(rng):
    """Makes values that cannot be called."""
    return [*THINGS, *NUMBERS, True]


def instance(*others):
    """Returns what makes values that are no penalties, layers and the like.

    Args:
        others: Objects of other classes.
    """

    def wrong(rng):
        return [*THINGS, *NUMBERS, True, *others]

    return wrong


def sizes(least, *others):
    """Returns what makes values that are no tuples of positive integers.

    Args:
        least: How many numbers there are at least.
        others: More that is wrong.
    """

    def wrong(rng):
        values = list(THINGS) if least else without(NO_LIST)
        values += [*NUMBERS, True, (0, 8), (8, -1, 8), (8.5, 8), ("8", 8)]
        return [*values, (8, None), (True, 8), (math.nan, 8), *others]

    return wrong


def optional(kind):
    """Returns what makes the same values, but for `None`."""
    return lambda rng: [x for x in kind(rng) if x is not None]


class Call(NamedTuple):
    """A public function or class, and arguments with which it works.

    Args:
        function: It.
        valid: Arguments that are valid together. A `Model` stands for itself,
            made anew, and `"{folder}"` in a string for an empty folder.
        wrong: By argument what makes wrong values.
    """

    function: object
    valid: dict
    wrong: dict


class Model(NamedTuple):
    """Stands for a new model.

    Args:
        make: Makes it.
    """

    make: object


def network():
    """Returns a compiled classifier."""
    penalty = ks.GroupLasso(1e-3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "relu", kernel_regularizer=penalty, name="one"),
            layers.Dense(2, name="two"),
        ]
    )
    model.compile("sgd", "mse")
    return model


def normalized():
    """Returns a model with batch normalization."""
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])


def gated():
    """Returns a model with gates."""
    return ks.add_gates(network())


def centred():
    """Returns a model with layer normalization."""
    dense = layers.Dense(3)
    norm = layers.LayerNormalization()
    return keras.Sequential([keras.Input((4,)), dense, norm, layers.Dense(2)])


def _model_without(*features):
    """Returns what makes values that are no models with all features."""
    lacking = {
        "inputs": lambda: keras.Sequential([layers.Dense(2)]),
        "kernel": lambda: keras.Sequential(
            [keras.Input((4,)), layers.Dropout(0.5)]
        ),
        "gates": network,
        "norms": network,
        "no gates": gated,
        "penalty": lambda: models.MLP((4,), 2, widths=(3,)),
        "structures": lambda: keras.Sequential(
            [keras.Input((4,)), layers.Dense(2)]
        ),
    }

    def wrong(rng):
        others = [lacking[name]() for name in ("inputs", *features)]
        others += [keras.Model, layers.Dense(2), keras.Input((4,))]
        return [*THINGS, *NUMBERS, True, *others]

    return wrong


def arrays(*shapes, more=()):
    """Returns what makes values that are no inputs of the shape (?, 4).

    Args:
        shapes: Of arrays that are wrong.
        more: More that is wrong.
    """

    def wrong(rng):
        things = [x for x in THINGS if x is not None]
        made = [rng.normal(size=shape).astype("float32") for shape in shapes]
        return [*things, *NUMBERS, True, *made, *more]

    return wrong


FACTOR = {"factor": real(above=0)}
TOLERANCE = {"tolerance": real(at_least=0)}
BUILT = {"model": _model_without("kernel")}
SIZED = {"model": _model_without()}
PENALTY = instance(ks.GroupLasso, keras.regularizers.L2, layers.Dense(2))
REGULARIZER = optional(instance(layers.Dense(2), layers.Dense))
CLASSES = {
    "input_shape": sizes(1),
    "num_classes": whole(1),
    "kernel_regularizer": REGULARIZER,
    "gate": optional(function),
}
# What a network of images takes beside.
IMAGES = CLASSES | {
    "input_shape": sizes(3, (32, 32), (2, 32, 3), (32, 32, 3, 3)),
    "weight_decay": real(at_least=0),
}
SMALL = {"input_shape": (16, 16, 1), "num_classes": 2}
SHAPE = {"shape": sizes(1), "axis": axis_of}
KERNEL = {"kernel": lambda rng: [*THINGS[:-2], *NUMBERS, True], "axis": axis_of}
ones = np.ones((3, 4), "float32")


def _penalty(kind, **more):
    """Returns the call of a penalty's class.

    Args:
        kind: The class.
        more: By argument what makes wrong values, beside `factor`.
    """
    return Call(kind, {"factor": 0.1}, FACTOR | more)


def _call(function, valid, **wrong):
    return Call(function, valid, wrong)


CRITERIA = {
    "importance": lambda rng: [
        *choice("l1", "l2", "bn_scale", "fpgm", "taylor", "dcp", "obs")(rng),
        # Without data, and without gamma.
        *("taylor", "apoz", "dcp", "obs", "bn_scale"),
    ],
    "scope": choice("family", "global", "cost"),
    "limits": lambda rng: [
        *(x for x in real(at_least=0, at_most=1)(rng) if x is not NO_DICT),
        *({"none": 0.5}, {"one": 2}, {"one": None}),
    ],
    "minimum": whole(1),
    "round_to": whole(1),
    "seed": whole(0),
}
WRONG_EXAMPLES = ((), [], (ones[:, 1:],), [ones, ones])
EXAMPLES = instance(*WRONG_EXAMPLES)
LABELLED = instance(*WRONG_EXAMPLES, (ones,), (ones, ones))
_model = {"model": Model(network)}
_gates = {"model": Model(gated)}
_share = real(above=0, at_most=1)

CALLS = [
    *(_penalty(kind) for kind in (ks.L0, ks.L1, ks.LHalf)),
    *(
        _penalty(kind, axis=axis)
        for kind in (
            ks.ExclusiveLasso,
            ks.GroupLasso,
            ks.SGL0,
            ks.SparseGroupLasso,
            ks.SparseGroupLHalf,
        )
    ),
    _penalty(ks.CGES, axis=axis, mu=real(at_least=0, at_most=1)),
    _penalty(ks.MCP, gamma=real(above=0)),
    _penalty(ks.SCAD, a=real(above=2)),
    _penalty(ks.TransformedL1, a=real(above=0)),
    _penalty(ks.L1MinusL2, alpha=_share),
    _penalty(ks.SparseGroupL1MinusL2, axis=axis, alpha=_share),
    _penalty(ks.SparseGroupTransformedL1, axis=axis, a=real(above=0)),
    _penalty(
        ks.IntegratedTransformedL1,
        axis=axis,
        a=real(above=0),
        mu=real(above=0, below=1),
    ),
    _call(
        ks.SparseGroup,
        {"group": ks.GroupLasso(0.1), "element": ks.L1(0.1)},
        group=instance(ks.L1(0.1), ks.GroupLasso, ks.SGL0(0.1)),
        element=instance(ks.GroupLasso(0.1), ks.L1, ks.SGL0(0.1)),
    ),
    _call(
        ks.ExpectedL0,
        {"factor": 0.1, "group_size": 3},
        factor=real(above=0),
        group_size=whole(1),
        weight_decay=real(at_least=0),
        temperature=real(above=0),
        stretch=instance((0.1, 1.1), (-0.1,), (-0.1, 0.9), (math.nan, 2)),
    ),
    _call(
        ks.HardConcrete,
        {},
        droprate_init=real(at_least=0.01, at_most=0.99),
        test_gate=choice("median", "mean"),
        temperature=real(above=0),
        stretch=instance((0.1, 1.1), (-0.1,), (-0.1, 0.9), (-0.1, "2")),
        regularizer=REGULARIZER,
        seed=optional(whole(0)),
        group_size=optional(whole(1)),
    ),
    # Callbacks.
    _call(
        ks.ADMM,
        {"beta": 1.0},
        backup=lambda rng: [x for x in THINGS[2:] if x is not TEXT],
        beta=real(above=0),
        growth=real(at_least=1),
        every=whole(1),
    ),
    _call(
        ks.VariableSplitting,
        {"beta": 1.0},
        beta=real(above=0),
        growth=real(at_least=1),
        every=whole(1),
        refresh=choice("step", "batch"),
        grows=optional(function),
    ),
    _call(
        ks.CoupledGroups,
        {"penalty": ks.GroupLasso(0.1)},
        penalty=instance(ks.L1(0.1), ks.GroupLasso, keras.regularizers.L2()),
        readers=flag,
        weight=choice("size", "macs", "parameters"),
        inside=choice("all", "heads", "dimensions"),
    ),
    _call(ks.FactorScheduler, {"schedule": float}, schedule=function),
    _call(ks.KeepZeros, {}),
    _call(
        ks.L0Constraint,
        {"density": 0.5},
        density=real(above=0, at_most=1),
        scope=choice("model", "layer"),
        learning_rate=real(above=0),
        restart=flag,
        of=choice("parameters", "macs"),
    ),
    _call(
        ks.OnceMet,
        {
            "callback": keras.callbacks.EarlyStopping(),
            "target": ks.TargetDensity(0.1),
        },
        callback=instance(keras.callbacks.EarlyStopping, layers.Dense(2)),
        target=instance(ks.TargetDensity, ks.ProximalStep()),
    ),
    _call(
        ks.ProximalStep,
        {},
        optimizer=optional(instance(keras.optimizers.SGD, network)),
    ),
    _call(
        ks.SparsityMonitor,
        {},
        tolerance=real(at_least=0),
        axis=optional(axis),
    ),
    _call(
        ks.TargetDensity,
        {"density": 0.5},
        density=_share,
        of=choice("weights", "parameters", "neurons", "macs", "channels"),
        settle=real(above=0, below=1),
        minimum=whole(1),
        round_to=whole(1),
    ),
    # Functions of a model.
    _call(
        ks.add_gates,
        _model,
        model=_model_without("no gates", "structures"),
        droprate=real(at_least=0.01, at_most=0.99),
        test_gate=choice("median", "mean"),
        factor=real(at_least=0),
        seed=optional(whole(0)),
    ),
    *(
        _call(f, _model, **BUILT, **TOLERANCE, axis=optional(axis_of))
        for f in (ks.apply_threshold, ks.neuron_sparsity, ks.sparsity_report)
    ),
    _call(ks.weight_sparsity, _model, **BUILT, **TOLERANCE),
    _call(
        ks.count_macs,
        _model,
        **SIZED,
        elementwise=flag,
        # `None`, also for one input, leaves the sizes as they are.
        input_shapes=lambda rng: [
            *without(None, NO_DICT, NO_NUMBER),
            *((4, 4), (5,), [(4,), (4,)], (0.5,), (-4,)),
        ],
    ),
    _call(ks.macs_per_weight, _model, **SIZED),
    _call(
        ks.export,
        _model | {"path": "{folder}/model.keras"},
        **SIZED,
        path=lambda rng: [
            *without(TEXT),
            *("{folder}/model.doc", "{folder}/model.onnx.zip", 1, True),
        ],
        format=optional(choice("keras", "litert", "onnx")),
        quantize=optional(choice("float16", "int8")),
        inputs=arrays((2, 5), (2, 4, 4), (4,)),
        verify=flag,
    ),
    _call(
        ks.factor_max,
        _model | {"data": (ones, ones[:, :2])},
        model=_model_without("kernel", "penalty"),
        data=instance((), [], (ones,), (ones[:, 1:], ones), [ones, ones]),
        batch_size=whole(1),
    ),
    _call(ks.fold_gates, _gates, model=_model_without("gates")),
    _call(ks.gate_report, _gates, model=_model_without("gates")),
    _call(
        ks.regularize,
        _model | {"penalty": ks.GroupLasso(0.1)},
        **BUILT,
        penalty=optional(PENALTY),
        layers=optional(
            instance(["none"], "one", [0], [layers.Dense(2)], lambda x: False)
        ),
        weights=lambda rng: [
            *choice("kernel", "gamma")(rng)[:-1],
            *(["kernels"], ["kernel", None], ()),
        ],
    ),
    _call(
        ks.to_rms_normalization,
        {"model": Model(centred)},
        model=_model_without("norms"),
    ),
    _call(ks.release, _model, model=instance(keras.Model, layers.Dense(2))),
    _call(
        ks.shrink,
        _model,
        **SIZED,
        **TOLERANCE,
        round_to=optional(whole(1)),
        on_constant=choice("keep", "fold", "drop"),
        minimum=whole(0),
        verify=flag,
        inputs=arrays((2, 5), (2, 4, 4), (4,)),
    ),
    _call(
        ks.delete_channels,
        _model | {"channels": {"one": [0]}},
        **SIZED,
        channels=lambda rng: [
            *without(NO_DICT),
            *({"one": 0}, {"one": [3]}, {"one": [0.5]}, {"two": [0]}, [0]),
        ],
        verify=flag,
        inputs=arrays((2, 5), (2, 4, 4), (4,)),
    ),
    _call(
        ks.fit_shrinking,
        _model | {"x": ones, "y": ones[:, :2], "verbose": 0},
        **SIZED,
        shrink_every=whole(1),
        least=real(at_least=0, below=1),
        tolerance=real(at_least=0),
        minimum=whole(1),
        round_to=optional(whole(1)),
        backup=lambda rng: [*without(None, TEXT), *NUMBERS, True],
    ),
    _call(
        ks.check_rule,
        {"layer": layers.ReLU(), "input_shape": (4,)},
        layer=lambda rng: THINGS,
        input_shape=lambda rng: [*without(), (0,), [(3,), (-1,)], (None,)],
        trials=whole(1),
        seed=whole(0),
    ),
    _call(
        ks.prune,
        _model | {"parameters": 0.7},
        model=_model_without("structures"),
        macs=optional(_share),
        parameters=_share,
        channels=optional(_share),
        **CRITERIA,
        batch_size=whole(1),
        verify=flag,
        inputs=arrays((2, 5), (2, 4, 4), (4,)),
        repair=optional(EXAMPLES),
    ),
    _call(
        ks.reestimate_batch_norm,
        {"model": Model(normalized), "data": (ones,)},
        model=_model_without("penalty"),
        data=EXAMPLES,
        batch_size=whole(1),
    ),
    *(
        _call(
            function,
            _model
            | {
                "train": (ones, ones[:, :2]),
                "parameters": share,
                "epochs": 0,
                "verbose": 0,
            },
            model=_model_without("structures"),
            train=LABELLED,
            validation=optional(LABELLED),
            macs=optional(shares),
            parameters=shares,
            channels=optional(shares),
            epochs=optional(whole(0)),
            learning_rate=optional(real(above=0)),
            distillation=real(at_least=0, below=1),
            distill=choice("outputs", "features"),
            method=choice("importance"),
            # "taylor" and "apoz" have the training data.
            **CRITERIA
            | {
                "importance": choice("l1", "taylor"),
                "round_to": multiple,
            },
            batch_size=whole(1),
            runtime=choice("keras", "litert", "onnx"),
            workdir=lambda rng: [*without(None, TEXT), *NUMBERS, True],
            verbose=lambda rng: [*THINGS, *NUMBERS[:4], 0.5, 3, "1"],
        )
        for function, share, shares, multiple in (
            (ks.compress, 0.7, _share, optional(whole(1))),
            (
                ks.path,
                [0.9, 0.7],
                lambda rng: [*THINGS, *NUMBERS, [0.5, 0.7], [2], [0], ["a"]],
                whole(1),
            ),
        )
    ),
    _call(
        ks.compress,
        _model
        | {
            "train": (ones, ones[:, :2]),
            "validation": (ones, ones[:, :2]),
            "max_drop": 9.0,
            "epochs": 0,
            "verbose": 0,
        },
        max_drop=optional(real(at_least=0)),
        metric=optional(instance("accuracy")),
        latency=optional(_share),
    ),
    *(
        _call(
            ks.prune,
            _model
            | {
                "parameters": 0.7,
                "importance": importance,
                "data": (ones, ones[:, :2]),
            },
            data=instance((), [], (ones,), (ones[:, 1:], ones), [ones, ones]),
        )
        for importance in ("taylor", "dcp")
    ),
    _call(ks.structures, _model, **SIZED),
    _call(ks.Structures, _model, **SIZED),
    # Deployment.
    _call(
        ks.compare,
        {
            "before": Model(network),
            "after": Model(network),
            "folder": "{folder}",
            "format": "keras",
            "batch_sizes": (1,),
            "rounds": 1,
        },
        before=SIZED["model"],
        after=SIZED["model"],
        folder=lambda rng: [
            x for x in (*without(None), *NUMBERS, True) if type(x) is not str
        ],
        format=lambda rng: [*without(NO_LIST), "doc", ["doc"], (1,)],
        inputs=arrays((2, 5), (2, 4, 4), (4,)),
        error=optional(function),
        batch_sizes=sizes(0),
        rounds=whole(1),
    ),
    _call(
        deployment.compare_latency,
        {"name": "a", "before": dict, "after": dict, "rounds": 1},
        name=lambda rng: [x for x in THINGS if not isinstance(x, str)],
        before=function,
        after=function,
        rounds=whole(1),
    ),
    _call(
        deployment.take_turns,
        {"functions": {"a": dict}, "rounds": 1, "calls": 1, "clock": None},
        functions=lambda rng: [
            *without(NO_DICT),
            *({"a": None}, {"a": 1}, [dict], dict),
        ],
        rounds=whole(1),
        calls=optional(whole(1)),
        clock=optional(function),
    ),
    # Models.
    _call(
        models.MLP,
        {"input_shape": (4,), "num_classes": 2, "widths": (3,)},
        **CLASSES,
        widths=sizes(0),
    ),
    _call(
        models.LeNet5Caffe,
        SMALL,
        **{k: v for k, v in IMAGES.items() if k != "weight_decay"},
        dropout=real(at_least=0, below=1),
        dense_fan=choice("fan_in", "fan_out"),
        widths=sizes(3),
    ),
    _call(
        models.MobileNetV2,
        SMALL | {"width": 0.1},
        **IMAGES,
        width=real(above=0),
        dropout=real(at_least=0, below=1),
    ),
    _call(
        models.ResNet,
        SMALL | {"depth": 8, "width": 0.1},
        **IMAGES,
        depth=lambda rng: [*whole(8)(rng), 9, 13, 21],
        width=real(above=0),
    ),
    _call(
        models.WideResNet,
        SMALL | {"depth": 10, "width": 0.125},
        **IMAGES,
        depth=lambda rng: [*whole(10)(rng), 11, 15, 21],
        width=lambda rng: [*real(above=0)(rng), 0.1, 1.01],
        dropout=optional(real(at_least=0, below=1)),
    ),
    # Gates.
    _call(gates.AllOpen, {"gates": 2}, gates=whole(1)),
    _call(
        gates.GateChannels,
        {"places": [0, 1]},
        places=instance([], [-1], [0.5], [None], [True]),
        axis=lambda rng: [*THINGS, *NUMBERS[:3], 0.5, True],
    ),
    _call(
        gates.ExpectedCost,
        _gates | {"counted": "macs"},
        **SIZED,
        counted=choice("macs", "parameters"),
    ),
    _call(gates.gates, _gates, model=_model_without("gates")),
    *(
        _call(
            f,
            {"gate": ks.HardConcrete(group_size=3)},
            gate=instance(layers.Dense(2), ks.HardConcrete),
        )
        for f in (
            gates.gate_group_size,
            gates.gated_layer,
            gates.ruled_by,
        )
    ),
    _call(
        gates.gated_by,
        {"gate": ks.HardConcrete(group_size=3)},
        gate=instance(ks.HardConcrete),
    ),
    # Groups and penalties.
    *(
        _call(f, {"shape": (3, 4)}, **SHAPE)
        for f in (
            groups.resolve_axis,
            groups.num_groups,
            groups.group_size,
            groups.other_axes,
        )
    ),
    _call(groups.validate_axis, {"axis": 0}, axis=axis),
    *(
        _call(f, {"kernel": ones}, **KERNEL)
        for f in (groups.group_norms, groups.group_means, groups.by_group)
    ),
    _call(
        ks.regularizers.trainings,
        {"penalty": ks.L1(0.1)},
        penalty=PENALTY,
    ),
]
# Made by the library, or base classes.
OTHERS = {
    "Change",
    "Comparison",
    "CompressReport",
    "CostReport",
    "ElementwisePenalty",
    "ExportReport",
    "GateReport",
    "GatedWeights",
    "GatesOfLayer",
    "GroupPenalty",
    "Path",
    "PathReport",
    "Penalty",
    "PruneReport",
    "RegularizationReport",
    "RuleCheck",
    "ShrinkReport",
    "SparsityReport",
    "StructureReport",
}


class BadInput:
    """A call with one wrong argument, the same for the same seed.

    Args:
        seed: The seed.
        folder: An empty folder.

    Attributes:
        call: The `Call`.
        arguments: Its arguments.
        name: The name of the wrong one.
        models: The models among the valid arguments.
    """

    def __init__(self, seed, folder):
        rng = np.random.default_rng(seed)
        with_arguments = [c for c in CALLS if c.wrong]
        self.call = with_arguments[int(rng.integers(len(with_arguments)))]
        names = list(self.call.wrong)
        self.name = names[int(rng.integers(len(names)))]
        values = self.call.wrong[self.name](rng)
        wrong = values[int(rng.integers(len(values)))]
        self.arguments = made(self.call.valid | {self.name: wrong}, folder)
        self.models = [
            self.arguments[name]
            for name, value in self.call.valid.items()
            if isinstance(value, Model) and name != self.name
        ]

    def __str__(self):
        function = self.call.function.__name__
        return f"{function}({self.name}={self.arguments[self.name]!r})"


def made(arguments, folder):
    """Returns arguments with models and the folder in place."""
    return {
        name: value.make()
        if isinstance(value, Model)
        else value.replace("{folder}", str(folder))
        if isinstance(value, str)
        else value
        for name, value in arguments.items()
    }


def arguments_of(function):
    """Returns the names of the arguments of a function or class."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind not in kinds
    }
