"""Experiments by name: what the papers ran, as plain settings."""

import dataclasses

from keras_sgl0.datasets import DATASETS
from keras_sgl0.groups import Axis, validate_axis
from keras_sgl0.models import LeNet5Caffe
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
from keras_sgl0.validation import choice, finite_float, integer, require

MODELS = {"lenet5_caffe": LeNet5Caffe}
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
}
OPTIMIZERS = ("adam", "sgd")
REFRESHES = ("step", "batch")


def _field(default, help_text, choices=None):
    return dataclasses.field(
        default=default, metadata={"help": help_text, "choices": choices}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one training run, validated and never changed.

    The defaults are the paper's for SGL0 with LeNet-5-Caffe on MNIST. Each
    field's meaning stands in its `help` metadata, which is also the text that
    `scripts/train.py --help` shows. `factor` and `beta` are given times the
    number N of training images, as the paper writes them (`.1/N` is `.1`).
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
    model: str = _field("lenet5_caffe", "Network.", tuple(MODELS))
    penalty: str = _field("sgl0", "Penalty on the kernels.", tuple(PENALTIES))
    factor: float = _field(
        0.1, "Coefficient of the penalty (lambda) times N; unused by `none`."
    )
    share_of_max: float = _field(
        0.0,
        "If above 0, the coefficient is this share of `factor_max`, the "
        "smallest at which group lasso zeroes every group at the start; "
        "`factor` is unused then, and beta keeps its ratio to it.",
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
    beta: float = _field(
        2.5,
        "Coupling of W and V at the start, times N; for splitting and admm.",
    )
    growth: float = _field(
        1.25, "What beta is multiplied by (sigma); for splitting and admm."
    )
    grow_every: float = _field(
        0.2,
        "Share of the run between two growths of beta; for splitting and admm.",
    )
    refresh: str = _field(
        "step",
        "V inside the train step, or held and updated after each batch; for "
        "splitting.",
        REFRESHES,
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
            "beta",
            "grow_every",
            "learning_rate",
            "decay",
            "epsilon",
        ):
            checked[name] = finite_float(name, getattr(self, name), above=0)
        for name, least in (
            ("growth", 1),
            ("tolerance", 0),
            ("share_of_max", 0),
            ("momentum", 0),
        ):
            value = getattr(self, name)
            checked[name] = finite_float(name, value, at_least=least)
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            checked[name] = integer(name, value, at_least=least)
        require(
            checked["momentum"] < 1,
            "momentum",
            "a number in [0, 1)",
            self.momentum,
        )
        checked["milestones"] = _rising_shares("milestones", self.milestones)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # frozen: once, here

    def learning_rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        done = epoch / self.epochs + 1e-9
        passed = sum(done >= milestone for milestone in self.milestones)
        return self.learning_rate * self.decay**passed

    @property
    def epochs_between_growths(self) -> int:
        """The number of epochs between two growths of beta."""
        return max(1, round(self.grow_every * self.epochs))

    def to_dict(self) -> dict:
        """Returns the fields, ready for JSON."""
        return dataclasses.asdict(self) | {"milestones": list(self.milestones)}


def _pairs():
    return "; ".join(f"{p}: {', '.join(t)}" for p, t in TRAININGS.items())


def _rising_shares(name, values):
    require(
        isinstance(values, list | tuple)
        and all(isinstance(v, float) and 0 < v < 1 for v in values)
        and list(values) == sorted(values),
        name,
        "rising shares of the run, each between 0 and 1",
        values,
    )
    return tuple(values)


_MNIST = Recipe()
_DIGITS = Recipe(
    dataset="digits", factor=0.3, beta=7.5, batch_size=32, epochs=60
)
# With Adam the factor would need to be larger by orders of magnitude, since
# the proximal step is not rescaled as the gradient is. A proximal step moves
# by the learning rate, so the rate falls late.
_PROXIMAL = {
    "training": "proximal",
    "factor": 0.7,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "milestones": (0.6, 0.8),
}


def _variants(name, base):
    """Returns a data set's recipes: each penalty in each way that applies."""

    def recipe(penalty, **settings):
        settings = {"training": TRAININGS[penalty][0]} | settings
        return dataclasses.replace(base, penalty=penalty, **settings)

    return {
        f"{name}_plain": recipe("none"),
        f"{name}_group_lasso": recipe("group_lasso"),
        f"{name}_group_lasso_proximal": recipe("group_lasso", **_PROXIMAL),
        f"{name}_cges": recipe("cges"),
        f"{name}_sparse_group_lasso": recipe("sparse_group_lasso"),
        f"{name}_sparse_group_lasso_splitting": recipe(
            "sparse_group_lasso", training="splitting"
        ),
        f"{name}_sparse_group_lasso_proximal": recipe(
            "sparse_group_lasso", **_PROXIMAL
        ),
        f"{name}_sgl0": recipe("sgl0"),
        f"{name}_sgl0_admm": recipe("sgl0", training="admm", growth=1.0),
        f"{name}_sgl0_proximal": recipe("sgl0", **_PROXIMAL | {"factor": 0.5}),
    }


RECIPES = (
    {"digits": _DIGITS}
    | _variants("digits", _DIGITS)
    | _variants("mnist", _MNIST)
)
del RECIPES["digits_sgl0"]  # it is "digits"
