"""Puts a penalty on the kernels of an existing model.

A penalty whose `axis` is `-1` ("the output axis") or `"auto"` is given the axis
of each kernel it is put on, see `network.layer_table`. Any other integer is
used as it is (`axis=0` makes every token of an embedding a group).
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

import keras

from keras_sgl0.network.layer_table import (
    WEIGHTS,
    Layout,
    Weights,
    layouts,
    parts,
    walk_layers,
)
from keras_sgl0.network.loans import give_back, require_no_fit, retrace
from keras_sgl0.network.output_kernels import (
    OutputKernels,
    output_kernels,
)
from keras_sgl0.network.penalties import (
    SavedParts,
    describe,
    keepers,
    set_penalty,
    with_axis_of,
)
from keras_sgl0.network.penalty_report import (
    NO_KERNEL,
    NO_KERNEL_OF_ITS_OWN,
    LayerEntry,
    RegularizationReport,
)
from keras_sgl0.utils.validation import choice, require, require_built

_Penalty: TypeAlias = keras.regularizers.Regularizer
_Selection: TypeAlias = Iterable[str | keras.layers.Layer] | Callable | None
_MAKES_OUTPUTS = "makes the model's outputs: each group would be one of them"
_MAY_MAKE_OUTPUTS = "may make the model's outputs: its calls are not known"


def regularize(
    model: keras.Model,
    penalty: _Penalty | Callable[[float], _Penalty] | None,
    layers: _Selection = None,
    weights: Weights | Collection[Weights] = "kernel",
) -> RegularizationReport:
    """Puts a penalty on the kernels of an existing model, in place.

    The model may be one of `keras.applications` or one loaded from disk,
    Functional, Sequential or subclassed, with models in it. Each kernel gets a
    copy of the penalty with the axis its layer needs (`network.layer_table`);
    a penalty without `axis` (`L0`, `keras.regularizers.L2`) goes on
    as it is. A penalty that was there is replaced. Both the variable, which
    training reads, and the layer, which saving and cloning read, are set, and
    a compiled model traces its steps anew.

    *What makes the model's outputs* is left alone where the penalty's groups
    lie on its output axis, since each group would be a whole output: a class
    of a classifier. That is a dense head with the default `axis=-1`, or a
    convolution whose maps are the outputs, be it through activations, pooling
    or reshaping. It is not a dense head with `axis="auto"`, whose groups are
    input rows, nor a penalty without groups. Put it there by naming the layer
    in `layers`. Inside a layer or model that cannot be traced it is not known
    what makes the outputs: everything gets the penalty, and the report says so.

    A frozen layer gets its penalty too, but Keras ignores it until the layer
    is trainable. An attention layer has one penalty, and one depth, for all
    its kernels. A layer inside a custom layer or model trains with its penalty
    and loses it when saved, unless the owner puts it into its own config; the
    report says so. If the model is part of a compiled one, pass that one
    instead and choose by `layers`: only the model passed is traced anew.

    Args:
        model: A built model.
        penalty: A regularizer, or a function that returns one, given the depth
            `l / L` of kernel `l = 0, ..., L - 1` in the order of the model's
            layers, a number in [0, 1). What is left alone for making the
            outputs counts, too. `None` removes what there is.
        layers: `None` for every layer with a known kernel; or a function that
            says of a layer whether to take it; or a list of layers or their
            names, where a model stands for all that is in it and
            `"outer/inner"` names a layer of a nested model. A list is taken at
            its word: what it names gets the penalty even if it makes the
            model's outputs.
        weights: Which weights get it, one or several of: `"kernel"`, the
            kernels of layers that are not recurrent; `"recurrent"`, both
            kernels of SimpleRNN, GRU, LSTM and ConvLSTM layers; `"gamma"`, the
            scales of normalizations, for which each entry is a group.

    Returns:
        A `RegularizationReport` on every layer of the model.

    Raises:
        ValueError: If the model is not built, `penalty` is not as described,
            `layers` names what has no kernel or selects nothing, the axis of
            the penalty does not exist in a kernel, `weights` are none of
            those, or all that is selected
            makes the model's outputs, or inside the model's `fit`. The model
            is as it was then.

    Example:
        >>> model = keras.applications.MobileNetV2(weights=None)
        >>> report = regularize(model, SGL0(1e-6))
        >>> report = regularize(model, lambda depth: CGES(1e-6, mu=depth))
        >>> report = regularize(model, L1(1e-5), layers=["predictions"])
        >>> report = regularize(model, None)
        >>> report = regularize(model, L1(1e-5), weights="gamma")

    Reference:
        Yoon, Hwang, ICML 2017, where mu varies with the depth of the layer.
    """
    require_built(model)
    chosen = _kinds(weights)
    require_no_fit(model, "regularize")
    give_back(model)  # an exception may have ended the last `fit`
    places = [_Place(line, chosen) for line in walk_layers(model)]
    selected = _selector(places, layers)
    trainable = {id(v) for v in model.trainable_variables}
    shared: dict[int, str] = {}
    slots: list[tuple[int, _Slot]] = []
    entries: list[LayerEntry] = []
    for place in places:
        kernels = list(place.kernels())
        if not kernels:
            entries.append(
                LayerEntry(place.path, place.type, note=place.reason())
            )
        for kernel, layout in kernels:
            slot = _Slot(place, kernel, layout)
            if not slot.is_plain:
                note = "its kernel is quantized or adapted (LoRA)"
            elif id(kernel) in shared:
                note = f"shares the kernel of `{shared[id(kernel)]}`"
            elif not selected(place):
                note = "not selected"
            else:
                note = ""
                slots.append((len(entries), slot))
            shared.setdefault(id(kernel), place.path)
            entries.append(slot.entry(note=note))
    if layers is None:
        require(slots, "model", "a model with a kernel", model)
    require(slots, "layers", "a selection of layers with a kernel", layers)
    penalties = _penalties([slot for _, slot in slots], penalty)
    outputs = OutputKernels(set(), set())
    if layers is None or callable(layers):  # a list is taken at its word
        outputs = output_kernels(model)
    wanted = []
    for (row, slot), own in zip(slots, penalties, strict=True):
        risky = slot.has_groups_of_outputs(own)
        if risky and id(slot.kernel) in outputs.known:
            entries[row] = slot.entry(note=_MAKES_OUTPUTS)
        else:
            unclear = risky and id(slot.kernel) in outputs.unclear
            wanted.append((row, slot, own, unclear))
    require(
        wanted,
        "penalty",
        "one whose groups are no whole outputs of the model, or the names of "
        "the layers to penalise all the same by `layers`",
        penalty,
    )
    saved = SavedParts()
    for row, slot, own, unclear in wanted:
        notes = slot.put(own)
        if unclear:
            notes.append(_MAY_MAKE_OUTPUTS)
        if own and id(slot.kernel) not in trainable:
            notes.append("frozen: Keras ignores the penalty")
        lost = saved.why_lost(slot.place.keepers) if own else ""
        if lost:
            notes.append(lost)
        entries[row] = slot.entry(own, "; ".join(notes))
    if model.compiled:
        retrace(model)
        model.make_test_function(force=True)
    return RegularizationReport(tuple(entries))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A layer and the line of its owners, the model first, itself last."""

    line: tuple[keras.layers.Layer, ...]
    weights: tuple[Weights, ...]

    @property
    def layer(self):
        return self.line[-1]

    @property
    def path(self):
        return "/".join(layer.name for layer in self.line[1:])

    @property
    def type(self):
        return type(self.layer).__name__

    @property
    def keepers(self):
        """The line down to the layer whose config keeps the penalty."""
        return keepers(self.line)

    def kernels(self):
        """Yields each of the weights that are asked for and its layout."""
        for layout in layouts(self.line, self.weights):
            yield getattr(self.layer, layout.kernel), layout

    def reason(self) -> str:
        """Returns why a layer without known kernel is left alone."""
        if not self.layer.built:
            return "not built"
        inner = {id(v) for part in parts(self.layer) for v in part.weights}
        own = [v for v in self.layer.weights if id(v) not in inner]
        wide = [v.name for v in own if len(v.shape) > 1]
        if wide:
            known = layouts(self.line, WEIGHTS)
            why = "not among the `weights`" if known else "unknown layout"
            return f"{why}: {', '.join(wide)}"
        return NO_KERNEL_OF_ITS_OWN if inner else NO_KERNEL


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A kernel and where it is."""

    place: _Place
    kernel: keras.Variable
    layout: Layout

    @property
    def is_plain(self) -> bool:
        """Whether the kernel is a variable of floating point numbers."""
        return isinstance(
            self.kernel, keras.Variable
        ) and keras.backend.is_float_dtype(self.kernel.dtype)

    @property
    def unit(self):
        """What shares one depth, as all kernels of an attention layer do."""
        return id(self.place.keepers[-1]), self.layout.regularizer

    def entry(self, penalty=None, note="") -> LayerEntry:
        """Returns the row of the report."""
        return LayerEntry(
            layer=self.place.path,
            type=self.place.type,
            kernel=self.layout.kernel,
            shape=tuple(getattr(self.kernel, "shape", ())),
            penalty="" if penalty is None else describe(penalty),
            axis=getattr(penalty, "axis", None),
            note=note,
        )

    def adapt(self, penalty: _Penalty) -> _Penalty:
        """Returns a copy of the penalty with the axis of this kernel."""
        shape = tuple(self.kernel.shape)
        return with_axis_of(penalty, self.layout, shape, self.place.path)

    def has_groups_of_outputs(self, penalty: _Penalty | None) -> bool:
        """Whether each group of a penalty is all that makes some outputs.

        Args:
            penalty: One with the axis of this kernel.
        """
        axis = getattr(penalty, "axis", None)
        if axis is None:
            return False
        rank = len(self.kernel.shape)
        return axis % rank - rank in self.layout.output_axes

    def put(self, penalty: _Penalty | None) -> list[str]:
        """Sets the penalty and returns what to know about it."""
        before = self.kernel.regularizer
        set_penalty(self.place.line, self.layout, penalty)
        if before is None:
            return [] if penalty else ["had no penalty"]
        does = "replaces" if penalty else "removes"
        return [f"{does} {describe(before)}"]


def _kinds(weights) -> tuple[Weights, ...]:
    """Returns the kinds of weights that are asked for."""
    several = isinstance(weights, list | tuple | set) and weights
    for kind in several or [weights]:
        choice("weights", kind, WEIGHTS)
    return tuple(several or [weights])


def _selector(places: list[_Place], layers: _Selection) -> Callable:
    """Returns the function that says of a place whether the caller means it."""
    if layers is None:
        return lambda place: True
    # A layer is callable and a name is iterable, but neither is a selection.
    single = isinstance(layers, str | keras.layers.Layer)
    require(
        not single
        and (callable(layers) or isinstance(layers, Iterable))
        and getattr(layers, "ndim", 1) == 1,
        "layers",
        "None, a list of layers or of their names, or a function of a layer",
        layers,
    )
    if callable(layers):
        chosen: Callable = layers
        return lambda place: bool(chosen(place.keepers[-1]))

    def keys(place):
        line = place.keepers[1:]
        for i, layer in enumerate(line):
            yield from (id(layer), layer.name)
            yield "/".join(owner.name for owner in line[: i + 1])

    layers = list(layers)
    known = {k for p in places if any(p.kernels()) for k in keys(p)}
    wanted = {w if isinstance(w, str) else id(w): w for w in layers}
    unknown = [w for key, w in wanted.items() if key not in known]
    names = sorted(k for k in known if isinstance(k, str))
    require(not unknown, "layers", f"layers with a kernel: {names}", unknown)
    return lambda place: not wanted.keys().isdisjoint(keys(place))


def _penalties(slots: list[_Slot], penalty) -> list[_Penalty | None]:
    """Returns the penalty of every slot, before any is put on."""
    if penalty is None:
        return [None] * len(slots)
    expected = "a regularizer, or a function of the depth that returns one"
    others = type | keras.layers.Layer  # they can be called, too
    is_function = callable(penalty) and not isinstance(penalty, others)
    require(is_function, "penalty", expected, penalty)
    units = list(dict.fromkeys(slot.unit for slot in slots))
    own = {}
    for index, unit in enumerate(units):
        own[unit] = (
            penalty
            if isinstance(penalty, keras.regularizers.Regularizer)
            else penalty(index / len(units))
        )
        require(
            isinstance(own[unit], keras.regularizers.Regularizer),
            "penalty",
            expected,
            own[unit],
        )
    return [slot.adapt(own[slot.unit]) for slot in slots]
