"""Cuts the least important structures of a trained network."""

import dataclasses
import math
from collections.abc import Mapping

import keras
import numpy as np

from keras_sgl0.compression.budget import Budget
from keras_sgl0.compression.importance import (
    Importance,
    Sources,
    require_importance,
    scores,
)
from keras_sgl0.compression.repair import Repair
from keras_sgl0.compression.report import FamilyCut, PruneReport
from keras_sgl0.network.own_methods import require_no_preprocessing
from keras_sgl0.shrinking.deletion import WithZeros
from keras_sgl0.shrinking.report import ShrinkReport
from keras_sgl0.shrinking.shrink import shrink
from keras_sgl0.structures.costs import Measure
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.selection import PRECISION, Floor, select
from keras_sgl0.utils.validation import choice, finite_float, integer, require

SCOPES = ("family", "global", "cost")


def prune(
    model: keras.Model,
    *,
    macs: float | None = None,
    parameters: float | None = None,
    channels: float | None = None,
    importance: Importance = "l2",
    data: object = None,
    scope: str = "family",
    limits: float | Mapping[str, float] = 1.0,
    minimum: int = 1,
    round_to: int = 1,
    repair: object = None,
    batch_size: int = 32,
    seed: int = 0,
    verify: bool = True,
    inputs: object = None,
) -> tuple[keras.Model, PruneReport]:
    r"""Returns a model without its least important channels, and what went.

    What is cut are structures: channels with all channels that can only be
    cut with them, see `structures`. The smaller model computes what the model
    would compute if they were zero, so it needs training afterwards: call
    `fit`, or let `compress` do both. To prune in steps, call `prune` and `fit`
    in turn. The model passed in is not changed. Frozen layers are cut too.

    How important a structure is:

    | name | score | source |
    |---|---|---|
    | `"l1"` | `sum |w|` over its members | Li et al., 2017 |
    | `"l2"` | `sqrt(sum w^2)` over its members | Han et al., 2015 |
    | `"bn_scale"` | `sum |gamma|` | Liu et al., 2017, network slimming |
    | `"fpgm"` | `sum_j ||w - w_j||`, the distance of its filters to all
      others of the family | He et al., 2019, geometric median |
    | `"taylor"` | `mean (sum w * dL/dw)^2` over batches, the sum over what
      reads it: the first-order change of the loss | Molchanov et al., 2019 |
    | `"apoz"` | how often what is read of it is not zero: 1 - APoZ | Hu et
      al., 2016 |
    | `"dcp"` | the norm of the gradient, by the weights that read it, of the
      error of their outputs and of the loss of a linear classifier on the
      outputs' averages, starting without any channel | Zhuang et al., 2018,
      discrimination-aware channel pruning |
    | `"obs"` | the share of the outputs of its readers that is lost with it
      and all less important ones of its family, the rest being refit | Hassibi,
      Stork, 1992, optimal brain surgeon; Kurtic et al., 2023, ZipLM |
    | `"random"` | a random number | |

    Families that no dense layer or convolution reads, such as key dimensions
    or what an LSTM reads, have no `"dcp"`; their `"obs"` is the share of the
    squares of their weights.

    `"dcp"` has the two losses of the paper, in closed form, on every layer;
    the module `compression.discrimination` says what differs. Take it with
    `scope="family"`. `"obs"` is made for `repair`, which does the refit, needs
    no labels, and can be compared between families
    (`compression.brain_surgeon`). The paper's other rivals: magnitude pruning
    with retraining (Han et al., 2015) is `"l2"` and `fit` in turn, with
    `KeepZeros` for single weights; iterative hard thresholding keeps its
    masks by `KeepZeros`; Net-Trim's layer-wise fit on real inputs (Aghasi et
    al., 2017) is `repair`, by least squares.

    A function gets the members of one family: a list of matrices, one for each
    variable, in which each row is the slice of one structure. It returns one
    score for each row.

    Args:
        model: A built model of any kind.
        macs: The share of its multiply-adds to keep, in (0, 1]. Give exactly
            one of `macs`, `parameters` and `channels`.
        parameters: The share of its parameters to keep, likewise.
        channels: The share of the output channels of its layers to keep,
            likewise.
        importance: A name in the table, or a function.
        data: What `fit` takes, for `"taylor"` and `"dcp"` (inputs and labels),
            `"apoz"` and `"obs"`: a tuple of arrays, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another finite iterable of batches. Some
            hundred examples will do.
        scope: What scores are compared to. `"family"`: each relative to the
            mean of its family, so that all families shrink alike.
            `"global"`: as they are, over the whole network, which can nearly
            remove a layer. `"cost"`: each divided by what cutting it saves of
            the budget, which spares what is cheap.
        limits: The largest share of the channels of a layer that may be cut,
            in [0, 1], for all layers or by the name of a layer. 0 spares it.
        minimum: How many structures of each family are kept at least.
        round_to: Families that are cut keep a multiple of this many
            structures.
        repair: What `fit` takes, labels not used: the layers behind the cut
            are then refit by least squares, so that on these examples their
            outputs are as close as possible to those of the model. It takes
            minutes and replaces some of the training. Some hundred examples
            will do. Transposed convolutions and the second part of separable
            ones are refit, too. Grouped and depthwise convolutions, and
            layers other than dense ones and convolutions, keep their weights.
        batch_size: How many examples of arrays to take at a time.
        seed: The seed of `"random"`.
        verify: Whether to compare the outputs of the smaller model with those
            of the model with the same structures set to zero.
        inputs: Inputs to compare on, structured as the model wants them;
            `None` for two random examples.

    Returns:
        The smaller model, Functional and not compiled, and a `PruneReport`.
        It costs at most the budget, and at least 99 % of it where the
        structures are fine enough.

    Raises:
        ValueError: If the model is not built or preprocesses its data, as in
            `shrink`, if an argument is out of range, if not exactly one budget
            is given, if the budget is below what cannot be cut (the message
            names its share and its layers), or if a score is not finite or
            cannot be computed.

    Example:
        >>> small, report = prune(model, macs=0.5, importance="l2")
        >>> print(report)
        >>> small.compile("adam", "mse")
        >>> small.fit(x, y)
    """
    budget = Budget.one_of(macs=macs, parameters=parameters, channels=channels)
    integer("round_to", round_to, at_least=1)
    criteria = Criteria(importance, scope, limits, minimum, round_to, seed)
    integer("batch_size", batch_size, at_least=1)
    require_no_preprocessing(model)
    found = structures(model)
    criteria.require_reach(found, model, budget)
    own = criteria.scores(found, model, data, batch_size)
    kept = criteria.select(found, budget, own)
    return cut(
        found,
        kept,
        criteria.name,
        repair=repair,
        batch_size=batch_size,
        verify=verify,
        inputs=inputs,
    )


@dataclasses.dataclass(frozen=True)
class Criteria:
    """By what structures are chosen; the arguments are those of `prune`.

    Attributes:
        importance: How important a structure is.
        scope: What scores are relative to.
        limits: The largest shares that may be cut.
        minimum: How many structures of a family are kept at least.
        round_to: Families that are cut keep a multiple of this many; `None`
            where it is still to be chosen.
        seed: The seed of random scores.
    """

    importance: Importance
    scope: str
    limits: float | Mapping[str, float]
    minimum: int
    round_to: int | None
    seed: int

    def __post_init__(self):
        require_importance(self.importance)
        choice("scope", self.scope, SCOPES)
        integer("minimum", self.minimum, at_least=1)
        if self.round_to is not None:
            integer("round_to", self.round_to, at_least=1)
        integer("seed", self.seed, at_least=0)

    @property
    def name(self) -> str:
        """What to call the importance in a report."""
        own = self.importance
        return own if isinstance(own, str) else "a function"

    def require_reach(
        self, found: Structures, model: keras.Model, budget: Budget
    ):
        """Raises where a budget cannot be counted or met.

        Args:
            found: The structures of the model.
            model: The model.
            budget: What it may cost.

        Raises:
            ValueError: If so.
        """
        budget.require_counts(found, model)
        self._floor(found).require_reach(
            found,
            budget.measure,
            budget.share,
            budget.measure,
            "are spared by `limits`, cannot be cut, or make the model's "
            "outputs",
        )

    def least(self, found: Structures, measure: Measure) -> float:
        """Returns the share of a model's cost that cannot be cut.

        Args:
            found: The structures of the model.
            measure: What is counted.
        """
        counts = self._floor(found).counts(found)
        return found.cost_of(counts).of(measure) / found.cost().of(measure)

    def scores(
        self,
        found: Structures,
        model: keras.Model,
        data: object,
        batch_size: int,
    ) -> np.ndarray:
        """Returns how important each structure is.

        Args:
            found: The structures of the model.
            model: The model.
            data: What `fit` takes, for the scores that need it.
            batch_size: How many examples of arrays to take at a time.
        """
        sources = Sources(model, found, data, batch_size, self.seed)
        return scores(self.importance, sources)

    def select(
        self,
        found: Structures,
        budget: Budget,
        scores: np.ndarray,
        alive: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns flags, which structures are kept.

        Args:
            found: The structures of the model.
            budget: What it may cost.
            scores: How important each is.
            alive: Flags, which may be kept at all; `None` for all.
        """
        if alive is None:
            alive = np.ones(found.size, bool)
        if budget.share == 1:
            return alive
        most = budget.share * found.cost().of(budget.measure)
        if self.scope == "cost":
            scores = scores / found.savings(budget.measure)[found.families]
        return select(
            found,
            scores,
            alive,
            ((1 - PRECISION) * most, most),
            budget.measure,
            self._floor(found),
            relative=self.scope == "family",
        )

    def _floor(self, found: Structures) -> Floor:
        """Returns what must stay, by the limits of layers."""
        by_layer = self.limits if isinstance(self.limits, Mapping) else {}
        everywhere = 1.0
        if not isinstance(self.limits, Mapping):
            everywhere = finite_float(
                "limits", self.limits, at_least=0, at_most=1
            )
        makers = [found.made_by(family) for family in range(len(found.counts))]
        known = {name for names in makers for name in names}
        for layer, limit in by_layer.items():
            require(
                layer in known,
                "limits",
                "names of layers that make channels that can be cut, such as "
                f"{sorted(known)[:3]}",
                layer,
            )
            finite_float(f"limits[{layer!r}]", limit, at_least=0, at_most=1)
        least = np.zeros(len(found.counts), int)
        for family, count in enumerate(found.counts.tolist()):
            own = [by_layer.get(name, everywhere) for name in makers[family]]
            # Rounded first: .9 of 10 channels is 9.000000000000002 otherwise.
            stay = math.ceil(round((1 - min(own, default=1.0)) * count, 6))
            least[family] = max(stay, self.minimum)
        spared = least >= found.counts
        return Floor(~spared[found.families], least, self.round_to or 1)


def cut(
    found: Structures,
    kept: np.ndarray,
    importance: str,
    repair: object = None,
    batch_size: int = 32,
    verify: bool = True,
    inputs: object = None,
) -> tuple[keras.Model, PruneReport]:
    """Returns a model with some of its structures alone, and what went.

    Args:
        found: The structures of the model.
        kept: Flags, which are kept.
        importance: By what they were chosen, for the report.
        repair: As in `prune`.
        batch_size: As in `prune`.
        verify: As in `prune`.
        inputs: As in `prune`.

    Raises:
        ValueError: If a layer stays whole that could be cut by the structures.
    """
    zeroed = WithZeros(found, ~kept)
    if repair is not None:
        Repair(found, ~kept, zeroed, repair, batch_size).run()
    small, shrunk = shrink(
        zeroed.model, tolerance=0, verify=verify, inputs=inputs
    )
    _require_cut(found, kept, shrunk)
    after = np.bincount(found.families[kept], minlength=len(found.counts))
    families = tuple(
        FamilyCut(found.names(family), before, left)
        for family, (before, left) in enumerate(
            zip(found.counts.tolist(), after.tolist(), strict=True)
        )
    )
    return small, PruneReport(families, importance, shrunk)


def _require_cut(found: Structures, kept: np.ndarray, shrunk: ShrinkReport):
    """Raises if more is left than the structures say, as of a broken config."""
    wanted, left = found.cost(kept), shrunk.macs_after
    most = wanted.macs
    if left is None or most is None:
        # Biases may have come that hold constants, one number a channel.
        more = sum(entry.channels_after for entry in shrunk.layers)
        left, most = shrunk.parameters_after, wanted.parameters + more
    whole = [f"`{entry.layer}`: {entry.note}" for entry in shrunk.whole]
    require(
        left <= most,
        "model",
        f"a model that is cut to {most:,}, as its structures can be",
        f"one of which {left:,} are left; {'; '.join(whole) or shrunk.kept}",
    )
