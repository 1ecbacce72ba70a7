"""A smaller model with the same outputs."""

import keras

from keras_sgl0.gates.folding import fold_gates
from keras_sgl0.gates.hard_concrete import HardConcrete
from keras_sgl0.network.copying import shared_weights
from keras_sgl0.network.cost import count_parameters, layer_cost
from keras_sgl0.network.graph import Graph, Node
from keras_sgl0.network.own_methods import require_no_preprocessing
from keras_sgl0.network.probing import Difference, compare
from keras_sgl0.network.sparsity import TOLERANCE
from keras_sgl0.network.unfolding import trace
from keras_sgl0.shrinking.report import KeptChannels, ShrinkReport, ShrunkLayer
from keras_sgl0.shrinking.rewrite import Rebuilt
from keras_sgl0.structures.flat_copy import NotCopied
from keras_sgl0.structures.liveness import Cuts, analyse
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.structures.values import ThresholdedArrays
from keras_sgl0.utils.validation import boolean, choice, integer


def shrink(
    model: keras.Model,
    tolerance: float = TOLERANCE,
    round_to: int | None = None,
    on_constant: str = "keep",
    minimum: int = 1,
    verify: bool = True,
    inputs: object = None,
) -> tuple[keras.Model, ShrinkReport]:
    """Returns a smaller model with the same outputs, and what was cut.

    First, in a copy, gates are folded into the weights (`fold_gates`), and
    what counts as zero is set to zero, as `apply_threshold` does it: every
    trainable parameter with `|w| < tolerance`, then every group of a kernel
    with a mean of `|w|` below `tolerance`. The smaller model has these values.
    Frozen layers are not changed; their exact zeros count.

    Then two kinds of channels are cut: those that no output depends on, and
    those that are the same number for every input, if the layers that read
    them can do without. Dense layers and convolutions without padding add
    the constant to their biases; batch normalization and activations turn it
    into another constant. A channel that nothing reads is cut together with
    all that only it reads, back to the inputs. The inputs and outputs of the
    model keep their shapes. Channels that meet in `Add`, `Multiply` and the
    like are cut together or not at all, and so are those of all calls of a
    layer that is called more than once. A layer that is unknown stays whole,
    and the report names it.

    The smaller model is Functional and not compiled. Models in it are
    unfolded, and so are layers that you have made of other layers: their
    `call` is run on symbolic tensors. One whose `call` depends on the values
    stays whole. A weight of its own becomes an `Embedding`. The layers are
    made from the configs of the model's layers, without the penalties and
    constraints of this package; others stay. The model passed in is not
    changed.

    Args:
        model: A built model of any kind.
        tolerance: Below this a weight counts as zero. At least 0; `0` counts
            exact zeros.
        round_to: Every layer keeps a multiple of this many channels, which
            some hardware prefers. `None` for no rounding.
        on_constant: What to do with a constant, not zero, that meets the zeros
            of 'same' padding, so that the outputs near the border differ.
            `"keep"` keeps its channel and reports it. `"fold"` treats the zeros
            as if they were the constant too, `"drop"` treats the constant as
            zero; both change the outputs, and the report says by how much.
        minimum: A layer keeps this many channels even if none is needed, and
            the report names it as a dead branch. With 0 that is an error.
        verify: Whether to compare the outputs of both models. The change
            from setting small weights to zero is part of the difference.
        inputs: Inputs to compare on, structured as the model wants them;
            `None` for two random examples.

    Returns:
        The smaller model and a `ShrinkReport`.

    Raises:
        ValueError: If the model is not built, cannot be traced or has a
            `preprocessor`, as tasks of KerasHub have, an argument is out of
            range, `minimum` is 0 and a layer would lose all channels, or the
            model cannot be called on random inputs and none are given.

    Example:
        >>> small, report = shrink(apply_threshold(model))
        >>> print(report)
        >>> small.save("small.keras")
    """
    verify = boolean("verify", verify)
    choice("on_constant", on_constant, ("keep", "fold", "drop"))
    integer("minimum", minimum, at_least=0)
    if round_to is not None:
        integer("round_to", round_to, at_least=1)
    require_no_preprocessing(model)
    graph = trace(model)
    if any(isinstance(n.operation, HardConcrete) for n in graph.nodes):
        model = fold_gates(model)
        graph = trace(model)
    values = ThresholdedArrays(model, tolerance)
    opaque = shared_weights(graph)
    while True:
        cuts = analyse(graph, values, on_constant, round_to, minimum, opaque)
        try:
            rebuilt = Rebuilt(graph, cuts, values, model.name)
            break
        except NotCopied as error:
            # What else can be cut depends on it, so the analysis starts over.
            opaque[error.node] = error.reason
    found = Difference(None, None)
    if verify:
        found = compare(model, rebuilt.model, inputs)
    report = ShrinkReport(
        layers=_layers(graph, cuts, rebuilt),
        kept=tuple(
            KeptChannels(node.path, tuple(channels), reason)
            for node, by_reason in cuts.dead_but_kept.items()
            for reason, channels in by_reason.items()
        ),
        dead_branches=tuple(node.path for node in cuts.dead_branches),
        difference=found.absolute,
        relative_difference=found.relative,
        remark=found.remark,
        tolerance=float(tolerance),
    )
    return rebuilt.model, report


def _layers(
    graph: Graph, cuts: Cuts, rebuilt: Rebuilt
) -> tuple[ShrunkLayer, ...]:
    """Returns the layers before and after."""
    graph_after = trace(rebuilt.model)
    calls_after = graph_after.by_operation()
    needed = {id(node.operation) for node in graph.needed()}
    entries = []
    # What layers share counts once, at the first of them.
    counted: set[int] = set()
    counted_after: set[int] = set()
    for calls in graph.by_operation().values():
        node = calls[0]
        parameters = count_parameters(node.operation, counted)
        note = _note(node, cuts, rebuilt)
        if not parameters and not note:
            continue
        new_layer = rebuilt.layers[node]
        output = node.outputs[0]
        left = id(node.operation) in needed
        cost = layer_cost(calls)
        # A layer may be followed in the new model alone, where sizes differ.
        own = calls_after.get(id(new_layer))
        entries.append(
            ShrunkLayer(
                layer=node.path,
                type=node.type,
                channels=output.channels,
                channels_after=int(cuts.kept_channels[output].sum()) * left,
                parameters=parameters,
                parameters_after=left
                * count_parameters(new_layer, counted_after),
                macs=cost.macs,
                macs_after=_macs_after(own, left),
                note=note,
                not_counted=cost.note,
            )
        )
    return tuple(entries)


def _macs_after(calls: list[Node] | None, left: bool) -> int | None:
    """Returns the multiply-adds of a layer, `None` where they are not known."""
    if not left:
        return 0
    return layer_cost(calls).macs if calls else None


def _note(node: Node, cuts: Cuts, rebuilt: Rebuilt) -> str:
    """Returns why a layer stays as it is, empty if it may be cut."""
    reasons = []
    rule = cuts.rules[node]
    # What is computed from constants alone has no channels to lose.
    if isinstance(rule, Opaque) and not node.unbatched:
        reasons.append(rule.reason)
    # A layer without weights is copied for each call, hence by path.
    if any(node.path == shared.path for shared in rebuilt.shared):
        reasons.append("in both models, as it cannot be copied")
    return "; ".join(reasons)
