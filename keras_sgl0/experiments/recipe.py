"""The settings of one training run, and what goes together."""

import dataclasses
import inspect

from keras_sgl0.callbacks.density_measures import MEASURES
from keras_sgl0.callbacks.l0_constraint import SCOPES
from keras_sgl0.callbacks.splitting import REFRESHES
from keras_sgl0.experiments.choices import AUGMENTATIONS, DATASETS
from keras_sgl0.gates.hard_concrete import TEST_GATES, ExpectedL0
from keras_sgl0.groups import Axis, validate_axis
from keras_sgl0.models import MLP, LeNet5Caffe, MobileNetV2, WideResNet
from keras_sgl0.models.gated_layers import FANS
from keras_sgl0.regularizers import (
    CGES,
    SGL0,
    ExclusiveLasso,
    GroupLasso,
    IntegratedTransformedL1,
    SparseGroupL1MinusL2,
    SparseGroupLasso,
    SparseGroupLHalf,
    SparseGroupTransformedL1,
)
from keras_sgl0.utils.validation import choice, finite_float, integer, require

MODELS = {
    "lenet5_caffe": LeNet5Caffe,
    "mlp": MLP,
    "wide_resnet": WideResNet,
    "mobilenet_v2": MobileNetV2,
}
PENALTIES = {
    "none": None,
    "group_lasso": GroupLasso,
    "exclusive_lasso": ExclusiveLasso,
    "cges": CGES,
    "sparse_group_lasso": SparseGroupLasso,
    "sgl0": SGL0,
    "sparse_group_transformed_l1": SparseGroupTransformedL1,
    "sparse_group_l_half": SparseGroupLHalf,
    "sparse_group_l1_minus_l2": SparseGroupL1MinusL2,
    "integrated_transformed_l1": IntegratedTransformedL1,
    "l0_gates": ExpectedL0,
}
_SPLIT = ("splitting", "admm")
# What goes together. The l0 part has no subgradient; a group penalty alone has
# nothing to split off; of sums only these two have a known proximal operator.
TRAININGS = {
    "none": ("subgradient",),
    "group_lasso": ("subgradient", "proximal"),
    "exclusive_lasso": ("subgradient", "proximal"),
    "cges": ("subgradient", "proximal"),
    "sparse_group_lasso": ("subgradient", *_SPLIT, "proximal"),
    "sgl0": (*_SPLIT, "proximal"),
    "sparse_group_transformed_l1": ("subgradient", *_SPLIT),
    "sparse_group_l_half": ("subgradient", *_SPLIT),
    "sparse_group_l1_minus_l2": ("subgradient", *_SPLIT),
    "integrated_transformed_l1": ("subgradient", *_SPLIT),
    "l0_gates": ("subgradient",),
}
OPTIMIZERS = ("adam", "sgd")
GROWING = ("all", "convolutions")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
JIT_COMPILE = ("auto", "on", "off")
_FOR_GATES = (
    "scope",
    "dual_learning_rate",
    "droprate",
    "test_gate",
    "weight_decay",
    "gate_learning_rate",
)
# Settings that are arguments of the networks that know them.
_OF_MODELS = {
    "depth": "depth",
    "width": "width",
    "dropout": "dropout",
    "dense_fan": "dense_fan",
    "model_weight_decay": "weight_decay",
}
_NOT_FOR_GATES = ("share_of_max", "density_of", "settle", "ema")


def _field(default, help_text, choices=None):
    return dataclasses.field(
        default=default, metadata={"help": help_text, "choices": choices}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one training run, validated and never changed.

    The defaults are the paper's for SGL0 with LeNet-5-Caffe on MNIST. Each
    field's meaning stands in its `help` metadata, which is also the text that
    `scripts/train.py --help` shows. `factor` is given times the number N of
    training images, as the paper writes it (`.1/N` is `.1`).
    What belongs to epochs is given in shares of the run, so a shortened run
    keeps every drop of the learning rate while the epochs are enough for it.

    Raises:
        ValueError: If a field is out of range or does not go with another.

    Example:
        >>> recipe = dataclasses.replace(RECIPES["mnist_sgl0"], seed=1)

    Reference:
        Bui et al., arXiv 1912.07868, section 5.1.
    """

    dataset: str = _field("mnist", "Data set.", DATASETS)
    validation: float = _field(
        0.0,
        "Share of the training images that is held out, a random one but the "
        "same in every run; all errors are then those of these images, and the "
        "test images are not looked at. 0: none.",
    )
    model: str = _field("lenet5_caffe", "Network.", tuple(MODELS))
    depth: int = _field(
        0, "Layers of the network, 0: its own default; for wide_resnet."
    )
    width: float = _field(
        0.0,
        "What the network's channels are multiplied by, 0: its own default; "
        "for wide_resnet and mobilenet_v2.",
    )
    dropout: float | None = _field(
        None,
        "Share that is dropped in training; default: the network's own; not "
        "for mlp.",
    )
    dense_fan: str = _field(
        "fan_in",
        "What the initial standard deviation of dense kernels, sqrt(2 / fan), "
        "goes by; for lenet5_caffe.",
        FANS,
    )
    model_weight_decay: float | None = _field(
        None,
        "Weight decay of all that the penalty is not on; default: the "
        "network's own; for wide_resnet and mobilenet_v2.",
    )
    penalty: str = _field("sgl0", "Penalty on the kernels.", tuple(PENALTIES))
    factor: float = _field(
        0.1,
        "Coefficient of the penalty (lambda) times N; unused by none, and by "
        "l0_gates with a density.",
    )
    layer_factors: tuple[float, ...] = _field(
        (1.0,),
        "What the factor is multiplied by: one number, or one for each layer "
        "with a penalty or gates.",
    )
    share_of_max: float = _field(
        0.0,
        "If above 0, the coefficient is this share of `factor_max`, the "
        "smallest at which group lasso zeroes every group at the start; "
        "`factor` is unused then.",
    )
    axis: Axis = _field(  # noqa: RUF009
        "auto",
        "Group axis of the kernels: an integer, or auto for the neurons of "
        "Bui et al.",
    )
    training: str = _field(
        "splitting",
        "How the penalty is trained: by its subgradient, by variable "
        "splitting, by ADMM (splitting with a dual variable), or by its "
        "proximal operator after each step.",
        ("subgradient", "splitting", "admm", "proximal"),
    )
    beta_ratio: float = _field(
        25.0,
        "Coupling of W and V at the start (beta), as a multiple of the "
        "coefficient; for splitting and admm.",
    )
    growth: float = _field(
        1.25, "What beta is multiplied by (sigma); for splitting and admm."
    )
    grow_every: float = _field(
        0.2,
        "Share of the run between two growths of beta; for splitting and admm.",
    )
    growing: str = _field(
        "all",
        "The kernels whose beta grows, the others keep that of the start: all, "
        "as the paper has it, or convolutions, as its authors' code; for "
        "splitting.",
        GROWING,
    )
    refresh: str = _field(
        "step",
        "V inside the train step, or held and updated after each batch; for "
        "splitting.",
        REFRESHES,
    )
    density: tuple[float, ...] = _field(
        (),
        "Target density, to which the penalty is steered: one number; for "
        "l0_gates with scope=layer also one for each gated layer.",
    )
    density_of: str = _field(
        "weights",
        "What a target density counts; for all penalties but l0_gates.",
        tuple(MEASURES),
    )
    settle: float = _field(
        0.3,
        "Share of the run after which a target density is met by a cut and "
        "the support is fixed; for all penalties but l0_gates.",
    )
    scope: str = _field(
        "model", "What a target density is for; for l0_gates.", SCOPES
    )
    dual_learning_rate: float = _field(
        1e-4, "Of the multipliers of a target density; for l0_gates."
    )
    droprate: tuple[float, ...] = _field(
        (0.5,),
        "Share of the gates closed at the start: one number, or one for each "
        "gated layer; for l0_gates.",
    )
    test_gate: str = _field(
        "median", "The gates of test time; for l0_gates.", TEST_GATES
    )
    weight_decay: float = _field(
        0.0, "Of the weights behind open gates, times N; for l0_gates."
    )
    gate_learning_rate: float = _field(
        0.0,
        "Learning rate of the gates, constant; 0: that of the weights; for "
        "l0_gates.",
    )
    normalize: bool = _field(
        False, "Shift and scale inputs to mean 0 and standard deviation 1."
    )
    augment: str = _field(
        "none",
        "How training images are varied: cropped at a random place after "
        "padding by 4 pixels, and mirrored at random.",
        AUGMENTATIONS,
    )
    optimizer: str = _field("adam", "Optimizer.", OPTIMIZERS)
    momentum: float = _field(0.0, "Nesterov momentum; for sgd.")
    learning_rate: float = _field(1e-3, "Learning rate at the start.")
    decay: float = _field(
        0.1, "What the learning rate is multiplied by at each milestone."
    )
    milestones: tuple[float, ...] = _field(
        (0.2, 0.4, 0.6, 0.8),
        "Shares of the run after which the learning rate is multiplied by "
        "`decay`, rising, separated by commas.",
    )
    epsilon: float = _field(1e-8, "Epsilon in the denominator; for adam.")
    ema: float = _field(
        0.0,
        "Momentum of the weights' moving average, with which errors are "
        "measured, 0: none; not for l0_gates.",
    )
    precision: str = _field(
        "float32",
        "What the layers compute in; float64 is for comparing runs.",
        PRECISIONS,
    )
    jit_compile: str = _field(
        "auto",
        "Whether XLA compiles the steps, auto: on one device that is no CPU.",
        JIT_COMPILE,
    )
    steps_per_execution: int = _field(
        1, "Steps a call; more may help small networks."
    )
    epochs: int = _field(200, "Epochs.")
    batch_size: int = _field(100, "Images a step.")
    seed: int = _field(0, "Seed of the weights and of the order of images.")
    tolerance: float = _field(
        1e-5, "A weight counts as zero, and is cut, below this."
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.metadata["choices"]:
                value = getattr(self, field.name)
                choice(field.name, value, field.metadata["choices"])
        allowed = TRAININGS[self.penalty]
        require(
            self.training in allowed,
            "training",
            f"one of {allowed} for the penalty {self.penalty!r}, since these "
            f"go together: {_pairs()}",
            self.training,
        )
        checked = {"axis": validate_axis(self.axis)}
        for name in (
            "factor",
            "beta_ratio",
            "grow_every",
            "learning_rate",
            "decay",
            "epsilon",
            "dual_learning_rate",
        ):
            checked[name] = finite_float(name, getattr(self, name), above=0)
        for name, least in (
            ("growth", 1),
            ("tolerance", 0),
            ("share_of_max", 0),
            ("weight_decay", 0),
            ("gate_learning_rate", 0),
            ("width", 0),
        ):
            value = getattr(self, name)
            checked[name] = finite_float(name, value, at_least=least)
        for name, optional in (
            ("momentum", False),
            ("ema", False),
            ("validation", False),
            ("dropout", True),
            ("model_weight_decay", True),
        ):
            value = getattr(self, name)
            if not (optional and value is None):
                checked[name] = finite_float(name, value, at_least=0, below=1)
        for name, least in (
            ("depth", 0),
            ("epochs", 1),
            ("batch_size", 1),
            ("steps_per_execution", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            checked[name] = integer(name, value, at_least=least)
        is_bool = isinstance(self.normalize, bool)
        require(is_bool, "normalize", "True or False", self.normalize)
        checked["milestones"] = _rising_shares("milestones", self.milestones)
        checked["density"] = _numbers(
            "density", self.density, above=0, at_most=1
        )
        checked["droprate"] = _numbers(
            "droprate", self.droprate, at_least=0.01, at_most=0.99
        )
        checked["layer_factors"] = _numbers(
            "layer_factors", self.layer_factors, above=0
        )
        for name in ("droprate", "layer_factors"):
            value = getattr(self, name)
            require(value, name, "at least one number", value)
        checked["settle"] = finite_float(
            "settle", self.settle, above=0, below=1
        )
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # frozen: once, here
        self._require_use()

    def _require_use(self):
        """Raises if a field is set that this recipe would not look at."""
        gated = self.penalty == "l0_gates"
        unused = {
            name: f"with the penalty {self.penalty!r}"
            for name in (_NOT_FOR_GATES if gated else _FOR_GATES)
        }
        known = inspect.signature(MODELS[self.model]).parameters
        unused |= {
            name: f"for the model {self.model!r}, which has no {argument}"
            for name, argument in _OF_MODELS.items()
            if argument not in known
        }
        if self.penalty == "none":
            unused |= dict.fromkeys(
                ("density", "share_of_max", "layer_factors"),
                "without a penalty",
            )
        if self.density:
            unused.setdefault("weight_decay", "with a density")
            if gated:
                unused["layer_factors"] = "with a density"
        else:
            unused.setdefault("scope", "without a density")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(
                field.name not in unused or value == field.default,
                field.name,
                f"{field.default!r} {unused.get(field.name)}",
                value,
            )
        require(
            len(self.density) <= 1 or self.scope == "layer",
            "density",
            "one number, unless for 'l0_gates' with scope='layer'",
            self.density,
        )

    def learning_rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        done = epoch / self.epochs + 1e-9
        passed = sum(done >= milestone for milestone in self.milestones)
        return self.learning_rate * self.decay**passed

    @property
    def model_settings(self) -> dict:
        """The arguments of the network's builder that are not its default."""
        return {
            _OF_MODELS[field.name]: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in _OF_MODELS
            and getattr(self, field.name) != field.default
        }

    @property
    def epochs_between_growths(self) -> int:
        """The number of epochs between two growths of beta."""
        return max(1, round(self.grow_every * self.epochs))

    def to_dict(self) -> dict:
        """Returns the fields, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


def upgrade_settings(settings: dict) -> dict:
    """Returns the settings of a run of any age as a recipe has them today.

    Those that came after the run get their defaults, by which nothing is
    different from what was before.

    Args:
        settings: What `Recipe.to_dict` returned when the run was made.

    Raises:
        KeyError: If they never were those of a recipe.
    """
    settings = dict(settings)
    if "beta" in settings:  # until beta_ratio took its place
        ratio = settings.pop("beta") / settings["factor"]
        settings["beta_ratio"] = round(ratio, 9)
    return Recipe().to_dict() | settings


def _pairs():
    return "; ".join(f"{p}: {', '.join(t)}" for p, t in TRAININGS.items())


def _numbers(name, values, **bounds):
    is_list = isinstance(values, list | tuple)
    require(is_list, name, "a tuple of numbers", values)
    return tuple(finite_float(name, value, **bounds) for value in values)


def _rising_shares(name, values):
    expected = "rising shares of the run, each between 0 and 1"
    is_list = isinstance(values, list | tuple)
    require(
        is_list
        and all(isinstance(v, float) and 0 < v < 1 for v in values)
        and list(values) == sorted(values),
        name,
        expected,
        values,
    )
    return tuple(values)
