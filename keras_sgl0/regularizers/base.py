"""What every penalty says about itself.

Callbacks, counts and recipes treat penalties by what they say here, never by
their class, so that a penalty of your own works wherever ours do.
"""

import abc
from typing import Literal

import keras

from keras_sgl0.groups import Axis
from keras_sgl0.utils.validation import InputError, require

Ranking = Literal["weight", "group", "both"]
Training = Literal["subgradient", "splitting", "admm", "proximal"]


class Penalty(keras.regularizers.Regularizer, abc.ABC):
    """Base class of all penalties `r(W)` on a kernel `W`.

    A subclass gives the value, and `prox` where it has a proximal operator.
    What it leaves as it is here holds for a plain penalty on single weights.
    Most penalties derive from `GroupPenalty`, `ElementwisePenalty` or
    `SparseGroup`, which set the rest.

    Attributes:
        factor: The coefficient, lambda in the papers; `None` for a sum whose
            parts have different ones.
        axis: The axis of the kernel whose every index is one group, `None`
            without groups.
        group: The part on groups, `None` without one.
        element: The part on single weights, which `VariableSplitting` and
            `ADMM` hand to V; `None` without one.
        has_subgradient: Whether the gradient of the value trains the penalty.
        depth_argument: The argument of the constructor that is to be given
            the depth `l / L` of the layer, `None` without one.
        ranks_by: What says which weights matter least when some must go: the
            size of the `"weight"`, the mean size over its `"group"`, or
            `"both"`, their geometric mean.

    Example:
        >>> class Ridge(Penalty):
        ...     def __init__(self, factor):
        ...         self.factor = factor
        ...
        ...     def __call__(self, w):
        ...         return 0.5 * self.factor * keras.ops.sum(w**2)
        ...
        ...     def prox(self, w, step):
        ...         return w / (1 + step * self.factor)
        >>> trainings(Ridge(1e-4))
        ('subgradient', 'proximal')
    """

    factor: float | None = None
    axis: Axis | None = None
    group: "Penalty | None" = None
    element: "Penalty | None" = None
    depth_argument: str | None = None
    has_subgradient: bool = True
    ranks_by: Ranking = "weight"

    @abc.abstractmethod
    def __call__(self, w):
        """Returns the penalty of `w` as a scalar in at least float32.

        Args:
            w: Tensor or variable, a kernel.
        """

    @property
    def has_prox(self) -> bool:
        """Whether the proximal operator is known."""
        return type(self).prox is not Penalty.prox

    def prox(self, w, step):
        """Returns `argmin_x step * r(x) + ||x - w||^2 / 2` in the dtype of `w`.

        Args:
            w: Tensor or variable, a kernel.
            step: A number or scalar tensor greater than 0. The penalty's own
                `factor` is part of `r` and must not be multiplied in again.

        Raises:
            ValueError: If it is not known.
        """
        raise InputError(
            f"The proximal operator of {type(self).__name__} is not known. "
            "Train this penalty by its subgradient or with "
            "`VariableSplitting` instead."
        )

    def resized(
        self, before: tuple[int, ...], after: tuple[int, ...]
    ) -> "Penalty":
        """Returns the penalty of the same strength on a smaller kernel.

        `fit_shrinking` asks for it. What is left of a kernel, all else being
        zero, has the penalty that the kernel had.

        Args:
            before: The shape of the kernel.
            after: The shape of what is left of it.
        """
        return self


def trainings(penalty: Penalty) -> tuple[Training, ...]:
    """Returns the ways to train a penalty, the usual one first.

    Args:
        penalty: A penalty.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> trainings(SGL0(1e-5))
        ('splitting', 'admm', 'proximal')
    """
    is_penalty = isinstance(penalty, Penalty)
    require(is_penalty, "penalty", "a `Penalty` such as `SGL0`", penalty)
    ways: list[Training] = []
    if penalty.has_subgradient:
        ways.append("subgradient")
    if penalty.element is not None:
        ways += ["splitting", "admm"]
    if penalty.has_prox:
        ways.append("proximal")
    return tuple(ways)


def keeps_methods(penalty: Penalty, base: type, *names: str) -> bool:
    """Returns whether a penalty has certain methods of a base class unchanged.

    What was derived for the base class holds for a subclass only as long as
    it does not override what the derivation is about.

    Args:
        penalty: A penalty.
        base: The class that the methods are from.
        *names: The methods' names.
    """
    own = type(penalty)
    return isinstance(penalty, base) and all(
        getattr(own, name) is getattr(base, name) for name in names
    )
