"""The settings of one training run."""

import dataclasses

from keras_sgl0 import models
from keras_sgl0.callbacks.density_measures import COUNTED
from keras_sgl0.callbacks.l0_constraint import SCOPES
from keras_sgl0.callbacks.splitting import REFRESHES
from keras_sgl0.experiments.choices import AUGMENTATIONS, DATASETS, data_set
from keras_sgl0.experiments.penalties import PENALTIES, require_training
from keras_sgl0.experiments.recipe_fields import (
    COUPLED_GROUPS,
    DENSITY,
    GATES,
    GROWTH,
    KERNEL_GROUPS,
    MILESTONES,
    NO_CONSTRAINT,
    NO_DENSITY,
    NO_GATES,
    NO_SHARE,
    PENALTY,
    STRUCTURES,
    as_json,
    group_axis,
    number,
    number_or_none,
    numbers,
    optimized_by,
    penalty_name,
    rising_shares,
    setting,
    trained_by,
    true_or_false,
    whole_number,
    why_unused,
)
from keras_sgl0.gates.hard_concrete import TEST_GATES
from keras_sgl0.groups import Axis
from keras_sgl0.models.gated_layers import FANS
from keras_sgl0.utils.validation import require

_COUNT = whole_number(at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one training run, validated and immutable.

    The defaults are those of the paper for SGL0 with LeNet-5-Caffe on MNIST.
    The meaning of each field is in its `help` metadata, which
    `scripts/train.py --help` shows. `factor` is multiplied by the number N of
    training images: the paper's `.1/N` is `.1`. Points in time are given as
    shares of the run, so that a shorter run has the same schedule.

    Raises:
        ValueError: If a field is out of range, unused, or does not go with
            another.

    Example:
        >>> recipe = dataclasses.replace(RECIPES["mnist_sgl0"], seed=1)

    Reference:
        Bui et al., arXiv 1912.07868, section 5.1.
    """

    dataset: str = setting(
        "mnist",
        f"One of {', '.join(DATASETS)}, or a folder with one for each class.",
        check=data_set,
    )
    validation: float = setting(
        0.0,
        "Share of the training images held out for validation, drawn at "
        "random, the same in every run. All errors are then measured on them "
        "and the test images are not used. 0: none.",
        check=number(at_least=0, below=1),
    )
    model: str = setting("lenet5_caffe", "Network.", tuple(models.BY_NAME))
    depth: int = setting(
        0,
        "Number of layers of the network; 0: its default.",
        check=whole_number(at_least=0),
        argument="depth",
    )
    width: float = setting(
        0.0,
        "Multiplier of the network's channels; 0: its default.",
        check=number(at_least=0),
        argument="width",
    )
    dropout: float | None = setting(
        None,
        "Dropout rate; default: that of the network.",
        check=number_or_none(at_least=0, below=1),
        argument="dropout",
    )
    dense_fan: str = setting(
        "fan_in",
        "Fan in the initial standard deviation sqrt(2 / fan) of dense kernels.",
        FANS,
        argument="dense_fan",
    )
    model_weight_decay: float | None = setting(
        None,
        "Weight decay of the weights without a penalty; default: that of the "
        "network.",
        check=number_or_none(at_least=0, below=1),
        argument="weight_decay",
    )
    penalty: str = setting(
        "sgl0",
        f"Penalty on the kernels: one of {', '.join(PENALTIES)}, or your own "
        "as package.module:Class.",
        check=penalty_name,
    )
    groups: str = setting(
        "kernel",
        "Groups of the penalty, each with a gate for l0_gates: kernel, the "
        "neurons of each prunable kernel; or coupled, all channels that can be "
        "cut together, over all layers that they run through.",
        ("kernel", "coupled"),
        used_by=(PENALTY,),
    )
    group_weight: str = setting(
        "size",
        "What the penalty of a structure counts: size, the root of its number "
        "of weights; or this times the macs or parameters that it costs.",
        ("size", "macs", "parameters"),
        used_by=(PENALTY, NO_GATES, COUPLED_GROUPS),
    )
    factor: float = setting(
        0.1,
        "Coefficient of the penalty (lambda) times N.",
        check=number(above=0),
        used_by=(PENALTY, NO_CONSTRAINT, NO_SHARE),
    )
    layer_factors: tuple[float, ...] = setting(
        (1.0,),
        "Multiplier of the factor: one number for all layers with a penalty "
        "or gates, or one for each.",
        check=numbers(above=0),
        used_by=(PENALTY, NO_CONSTRAINT, KERNEL_GROUPS),
    )
    share_of_max: float = setting(
        0.0,
        "If above 0, the coefficient is this share of `factor_max`, the "
        "smallest coefficient at which group lasso sets every group to zero "
        "at the start. It replaces `factor`.",
        check=number(at_least=0),
        used_by=(PENALTY, NO_GATES, KERNEL_GROUPS),
    )
    axis: Axis = setting(  # noqa: RUF009
        "auto",
        "Group axis of the kernels: an integer, or auto for the neurons of "
        "Bui et al.",
        check=group_axis,
    )
    training: str = setting(
        "splitting",
        "How to train the penalty: by its subgradient, by variable splitting, "
        "by ADMM (splitting with a dual variable), or by its proximal operator "
        "after each step.",
        ("subgradient", "splitting", "admm", "proximal"),
    )
    beta_ratio: float = setting(
        25.0,
        "Initial coupling of W and V (beta), as a multiple of the coefficient.",
        check=number(above=0),
        used_by=(trained_by("splitting", "admm"),),
    )
    growth: float = setting(
        1.25,
        "Factor by which beta grows (sigma).",
        check=number(at_least=1),
        used_by=(trained_by("splitting", "admm"),),
    )
    grow_every: float = setting(
        0.2,
        "Interval between two growths of beta, as a share of the run.",
        check=number(above=0),
        used_by=(trained_by("splitting", "admm"), GROWTH),
    )
    growing: str = setting(
        "all",
        "Kernels whose beta grows: all, or as in the authors' code.",
        ("all", "convolutions"),
        used_by=(trained_by("splitting"), GROWTH),
    )
    refresh: str = setting(
        "step",
        "Whether V is computed in each step, or stored after each batch.",
        REFRESHES,
        used_by=(trained_by("splitting"),),
    )
    density: tuple[float, ...] = setting(
        (),
        "Target density, which controls the strength of the penalty: one "
        "number, or for l0_gates with scope=layer one for each gated layer.",
        check=numbers(may_be_empty=True, above=0, at_most=1),
        used_by=(PENALTY,),
    )
    density_of: str = setting(
        "weights",
        "Unit of the target density. With l0_gates: macs, the expected "
        "multiply-adds; weights, those behind gates, biases included; or for "
        "coupled groups in its place parameters, all that are expected.",
        COUNTED,
        used_by=(DENSITY,),
    )
    settle: float = setting(
        0.3,
        "Share of the run after which what misses the target is cut for good.",
        check=number(above=0, below=1),
        used_by=(NO_GATES, DENSITY),
    )
    round_to: int = setting(
        1,
        "Of what the channels of each layer that is cut are a multiple.",
        check=_COUNT,
        used_by=(NO_GATES, DENSITY, STRUCTURES),
    )
    scope: str = setting(
        "model",
        "Whether the target density is for the model or for each layer.",
        SCOPES,
        used_by=(GATES, DENSITY),
    )
    dual_learning_rate: float = setting(
        1e-4,
        "Learning rate of the Lagrange multipliers of the target density.",
        check=number(above=0),
        used_by=(GATES, DENSITY),
    )
    droprate: tuple[float, ...] = setting(
        (0.5,),
        "Initial share of closed gates: one number, or one for each layer.",
        check=numbers(at_least=0.01, at_most=0.99),
        used_by=(GATES,),
    )
    test_gate: str = setting(
        "median", "Value of a gate at test time.", TEST_GATES, used_by=(GATES,)
    )
    weight_decay: float = setting(
        0.0,
        "Weight decay of the weights behind open gates, times N.",
        check=number(at_least=0),
        used_by=(GATES, NO_DENSITY, KERNEL_GROUPS),
    )
    gate_learning_rate: float = setting(
        0.0,
        "Constant learning rate of the gates; 0: that of the weights.",
        check=number(at_least=0),
        used_by=(GATES,),
    )
    normalize: bool = setting(
        False,
        "Normalize the inputs to mean 0 and standard deviation 1.",
        check=true_or_false,
    )
    augment: str = setting(
        "none",
        "Augmentation of the training images: a random crop after padding by 4 "
        "pixels, and random mirroring.",
        AUGMENTATIONS,
    )
    optimizer: str = setting("adam", "Optimizer.", ("adam", "sgd"))
    momentum: float = setting(
        0.0,
        "Nesterov momentum.",
        check=number(at_least=0, below=1),
        used_by=(optimized_by("sgd"),),
    )
    learning_rate: float = setting(
        1e-3, "Initial learning rate.", check=number(above=0)
    )
    decay: float = setting(
        0.1,
        "Factor of the learning rate at each milestone.",
        check=number(above=0),
        used_by=(MILESTONES,),
    )
    milestones: tuple[float, ...] = setting(
        (0.2, 0.4, 0.6, 0.8),
        "Rising shares of the run, separated by commas, after which the "
        "learning rate is multiplied by `decay`.",
        check=rising_shares,
    )
    epsilon: float = setting(
        1e-8,
        "Epsilon in Adam's denominator.",
        check=number(above=0),
        used_by=(optimized_by("adam"),),
    )
    ema: float = setting(
        0.0,
        "Momentum of the moving average of the weights, with which errors are "
        "measured; 0: no average.",
        check=number(at_least=0, below=1),
        used_by=(NO_GATES,),
    )
    precision: str = setting(
        "float32",
        "Floating-point type of the layers; float64 is for comparing runs.",
        ("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )
    jit_compile: str = setting(
        "auto",
        "Whether to compile the steps with XLA; auto: on a single GPU or TPU.",
        ("auto", "on", "off"),
    )
    steps_per_execution: int = setting(
        1,
        "Number of steps per call; more may speed up small networks.",
        check=whole_number(at_least=1),
    )
    epochs: int = setting(200, "Number of epochs.", check=_COUNT)
    batch_size: int = setting(100, "Number of images in a batch.", check=_COUNT)
    shrink_every: int = setting(
        0,
        "Epochs between two cuts of what is dead while training; 0: no cuts.",
        check=whole_number(at_least=0),
        used_by=(PENALTY, NO_GATES),
    )
    seed: int = setting(
        0,
        "Seed of the initial weights and of the order of the images.",
        check=whole_number(at_least=0),
    )
    tolerance: float = setting(
        1e-5,
        "Weights smaller than this count as zero and are set to zero.",
        check=number(at_least=0),
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, check = field.name, field.metadata["check"]
            value = check(name, getattr(self, name))
            object.__setattr__(self, name, value)  # frozen: once, here
        require_training(self.penalty, self.training)
        self._require_use()

    def _require_use(self):
        """Raises if a field is set that this recipe does not use."""
        for field in dataclasses.fields(self):
            value, reason = getattr(self, field.name), why_unused(field, self)
            require(
                not reason or value == field.default,
                field.name,
                f"{field.default!r} {reason}",
                value,
            )
        require(
            len(self.density) <= 1 or self.scope == "layer",
            "density",
            "one number, unless for 'l0_gates' with scope='layer'",
            self.density,
        )
        if self.penalty == "l0_gates" and self.density:
            self._require_unit_of_gates()

    def _require_unit_of_gates(self):
        """Raises if gates cannot be constrained in the recipe's unit."""
        units = ["weights" if self.groups == "kernel" else "parameters"]
        if self.scope == "model":
            units.append("macs")
        require(
            self.density_of in units,
            "density_of",
            f"one of {units} for 'l0_gates' with groups={self.groups!r} and "
            f"scope={self.scope!r}",
            self.density_of,
        )

    def learning_rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        done = epoch / self.epochs + 1e-9
        passed = sum(done >= milestone for milestone in self.milestones)
        return self.learning_rate * self.decay**passed

    @property
    def model_settings(self) -> dict:
        """The arguments of the network that differ from their defaults."""
        return {
            field.metadata["argument"]: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["argument"]
            and getattr(self, field.name) != field.default
        }

    @property
    def epochs_between_growths(self) -> int:
        """The number of epochs between two growths of beta."""
        return max(1, round(self.grow_every * self.epochs))

    def to_dict(self) -> dict:
        """Returns the fields, ready for JSON."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: as_json(getattr(self, name)) for name in names}
