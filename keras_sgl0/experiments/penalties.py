"""The penalties that a recipe can name, and how each can be trained."""

from keras_sgl0.gates.hard_concrete import ExpectedL0
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
