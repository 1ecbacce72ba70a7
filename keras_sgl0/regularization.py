"""Putting a penalty on the kernels of a model that exists already.

Which axis of a kernel holds the outputs of its layer differs from layer type to
layer type. A penalty whose `axis` is `-1` ("the output axis") or `"auto"` is
given the axis of each kernel it is put on:

| layer                      | kernel                   | `-1` | `"auto"` |
| -------------------------- | ------------------------ | ---- | -------- |
| Dense                      | `(in, out)`              | -1   | 0        |
| Conv1D, 2D, 3D             | `(..., cin, cout)`       | -1   | -1       |
| Conv1DTranspose, 2D, 3D    | `(..., cout, cin)`       | -2   | -2       |
| DepthwiseConv1D, 2D        | `(..., cin, multiplier)` | -2   | -2       |
| SeparableConv1D, 2D        | the depthwise kernel     | -2   | -2       |
|                            | the pointwise kernel     | -1   | -1       |
| EinsumDense                | by its equation          | last output axis  | last summed axis |
| (GroupedQuery)Attention    | four kernels or five     | -1   | -1       |
| Embedding                  | `(tokens, dimension)`    | -1   | -1       |

So a group of a depthwise kernel is one input channel with all its multipliers,
and a group of an embedding is one of its dimensions, a column; `axis=0` makes
every token a group. Any integer but `-1` is used as it is.
"""

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator

import keras
import rich.box
import rich.console
import rich.table

from keras_sgl0.groups import resolve_axis
from keras_sgl0.validation import InputError, require

_Penalty = keras.regularizers.Regularizer
_Selection = Iterable[str | keras.layers.Layer] | Callable | None

_ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupedQueryAttention,
)
# Layer types, then per kernel: its attribute, that of its regularizer, and
# the axes that -1 and "auto" stand for.
_LAYOUTS = (
    (
        (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
        (("kernel", "kernel_regularizer", -1, -1),),
    ),
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        (("kernel", "kernel_regularizer", -2, -2),),
    ),
    (
        (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
        (("kernel", "depthwise_regularizer", -2, -2),),
    ),
    (
        (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
        (
            ("depthwise_kernel", "depthwise_regularizer", -2, -2),
            ("pointwise_kernel", "pointwise_regularizer", -1, -1),
        ),
    ),
    (keras.layers.Dense, (("kernel", "kernel_regularizer", -1, 0),)),
    (
        keras.layers.Embedding,
        (("embeddings", "embeddings_regularizer", -1, -1),),
    ),
)


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """What `regularize` did to one kernel, or to one layer without any.

    Attributes:
        layer: The layer's name, after those of the layers it is part of.
        type: The layer's class.
        kernel: The name of the kernel, empty where the layer has none.
        shape: The kernel's shape.
        penalty: The penalty it carries now, empty where it was left alone.
        axis: The group axis of that penalty, `None` where it has none.
        note: Why the layer was left alone, or what to know about the penalty.
    """

    layer: str
    type: str
    kernel: str = ""
    shape: tuple[int, ...] = ()
    penalty: str = ""
    axis: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class RegularizationReport:
    """What carries a penalty in a model after `regularize`, and what does not.

    `print(report)` shows a table, `to_dict()` gives plain values.

    Attributes:
        entries: One entry a kernel, and one a layer without kernel, for every
            layer of the model, those of nested models and layers too.
    """

    entries: tuple[LayerEntry, ...]

    @property
    def regularized(self) -> tuple[LayerEntry, ...]:
        """The kernels that got the penalty."""
        return tuple(e for e in self.entries if e.penalty)

    @property
    def left_alone(self) -> tuple[LayerEntry, ...]:
        """The layers and kernels that did not, each with the reason."""
        return tuple(e for e in self.entries if not e.penalty)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "layers": [
                {**dataclasses.asdict(entry), "shape": list(entry.shape)}
                for entry in self.entries
            ],
            "regularized": len(self.regularized),
            "left_alone": len(self.left_alone),
        }

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for header in ("layer", "type", "kernel", "axis", "penalty", "note"):
            table.add_column(header, overflow="fold")
        for e in self.entries:
            table.add_row(
                e.layer,
                e.type,
                f"{e.kernel} {'x'.join(map(str, e.shape))}".strip(),
                "" if e.axis is None else str(e.axis),
                e.penalty,
                e.note,
            )
        out = io.StringIO()
        console = rich.console.Console(file=out, width=140, markup=False)
        console.print(table)
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        summary = (
            f" {len(self.regularized)} kernels carry a penalty, "
            f"{len(self.left_alone)} layers or kernels were left alone"
        )
        return "\n".join([*filter(None, lines), summary])


def regularize(
    model: keras.Model,
    penalty: _Penalty | Callable[[float], _Penalty],
    layers: _Selection = None,
) -> RegularizationReport:
    """Puts a penalty on the kernels of an existing model, in place.

    The model may be one of `keras.applications` or one loaded from disk,
    Functional, Sequential or subclassed, with models in it. Each kernel gets a
    copy of the penalty with the axis its layer needs, see the module's
    docstring; a penalty without `axis` (`L0`, `keras.regularizers.L2`) goes on
    as it is. A penalty that was there is replaced. Both the variable, which
    training reads, and the layer, which saving and cloning read, are set, and
    a compiled model traces its steps anew.

    A frozen layer gets its penalty too, but Keras ignores it until the layer
    is trainable. An attention layer keeps one penalty for all its kernels. A
    layer inside a custom layer or model trains with its penalty and loses it
    when saved, unless the owner puts it into its own config; the report says
    so. If the model is part of a compiled one, pass that one instead and
    choose by `layers`: only the model passed is traced anew.

    Args:
        model: A built model.
        penalty: A regularizer, or a function that returns one, given the depth
            `l / L` of kernel `l = 0, ..., L - 1` in the order of the model's
            layers, a number in [0, 1).
        layers: `None` for every layer with a known kernel; or a list of layers
            or their names, where a model stands for all that is in it and
            `"outer/inner"` names a layer of a nested model; or a function that
            says of a layer whether to take it.

    Returns:
        A `RegularizationReport` on every layer of the model.

    Raises:
        ValueError: If the model is not built, `penalty` is not as described,
            `layers` names what has no kernel or selects nothing, or the axis
            of the penalty does not exist in a kernel. The model is as it was
            then.

    Example:
        >>> model = keras.applications.MobileNetV2(weights=None)
        >>> report = regularize(model, SGL0(1e-6))
        >>> report = regularize(model, lambda depth: CGES(1e-6, mu=depth))
        >>> report = regularize(model, L1(1e-5), layers=["predictions"])

    Reference:
        Yoon, Hwang: Combined Group and Exclusive Sparsity for Deep Neural
        Networks, ICML 2017, section 3.3, for parameters that vary with depth.
    """
    require(
        isinstance(model, keras.Model) and model.built,
        "model",
        "a built model",
        model,
    )
    _require_penalty(penalty, "penalty", or_function=True)
    places = list(_walk(model))
    chosen = _chosen(places, layers)
    slots, entries = _slots(places, chosen)
    require(slots, "layers", "a selection with a kernel", layers)
    _assign_penalties(slots, penalty)
    trainable = {id(v) for v in model.trainable_variables}
    saved = _Saved()
    for slot in slots:
        entries[slot.row] = slot.apply(trainable, saved)
    if model.compiled:
        # Keras traces a step once and keeps it, with the penalties of then.
        model.make_train_function(force=True)
        model.make_test_function(force=True)
    return RegularizationReport(tuple(entries))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A layer and where in the model it is."""

    layer: keras.layers.Layer
    path: str
    owners: tuple[keras.layers.Layer, ...]

    @property
    def attention(self):
        """The attention layer that it is a projection of, or `None`."""
        owner = self.owners[-1]
        projects = isinstance(self.layer, keras.layers.EinsumDense)
        return owner if projects and isinstance(owner, _ATTENTION) else None

    def kernels(self):
        """Yields `(kernel, its name, regularizer attribute, two axes)`."""
        if isinstance(self.layer, keras.layers.EinsumDense):
            output, auto = _einsum_axes(self.layer.equation)
            if self.attention:
                auto = output
            layout = (("kernel", "kernel_regularizer", output, auto),)
        else:
            layout = next(
                (rows for types, rows in _LAYOUTS if _is(self.layer, types)),
                (),
            )
        for name, *rest in layout if self.layer.built else ():
            yield getattr(self.layer, name), name, *rest


@dataclasses.dataclass
class _Slot:
    """A kernel that gets a penalty."""

    place: _Place
    row: int
    name: str
    kernel: keras.Variable
    attribute: str
    output: int | None
    auto: int | None
    penalty: _Penalty | None = None

    @property
    def unit(self):
        """What has one depth: a kernel, or an attention layer with all its."""
        return id(self.place.attention or self.kernel)

    def adapt(self, penalty: _Penalty) -> _Penalty:
        """Returns a copy of the penalty with the axis of this kernel."""
        if not hasattr(penalty, "axis"):
            return penalty
        return type(penalty).from_config(self._config(penalty.get_config()))

    def _config(self, config: dict) -> dict:
        adapted = {}
        for name, value in config.items():
            if name == "axis":
                value = self._axis(value)
            elif isinstance(value, dict) and isinstance(
                value.get("config"), dict
            ):
                value = {**value, "config": self._config(value["config"])}
            adapted[name] = value
        return adapted

    def _axis(self, axis):
        translated = {-1: self.output, "auto": self.auto}.get(axis, axis)
        shape = tuple(self.kernel.shape)
        try:
            require(translated is not None, "axis", "an integer", axis)
            resolve_axis(shape, translated)
        except ValueError as error:
            raise InputError(
                f"The kernel of layer `{self.place.path}`, of shape {shape}, "
                f"cannot be grouped by axis={axis!r}. Leave the layer out by "
                "`layers`, or give it a penalty with another `axis`."
            ) from error
        return translated

    def apply(self, trainable: set, saved: "_Saved") -> LayerEntry:
        """Sets the penalty and returns what the report says of it."""
        before = self.kernel.regularizer
        before = getattr(before, "original", before)  # one that was lent
        place = self.place
        self.kernel.regularizer = self.penalty
        setattr(place.layer, self.attribute, self.penalty)
        keepers = (*place.owners, place.layer)
        if place.attention:
            # It makes its parts from its own config when it is loaded.
            name = "_kernel_regularizer"
            private = hasattr(place.attention, name)
            setattr(
                place.attention,
                name if private else name.lstrip("_"),
                self.penalty,
            )
            keepers = place.owners
        notes = []
        if before is not None:
            notes.append(f"replaces {_describe(before)}")
        if id(self.kernel) not in trainable:
            notes.append("frozen: Keras ignores the penalty")
        loser = saved.first_loser(keepers)
        if loser is not None:
            notes.append(
                f"lost when saved: {type(loser).__name__} `{loser.name}` does "
                "not keep its layers in its config"
            )
        axis = getattr(self.penalty, "axis", None)
        return LayerEntry(
            layer=place.path,
            type=type(place.layer).__name__,
            kernel=self.name,
            shape=tuple(self.kernel.shape),
            penalty=_describe(self.penalty),
            axis=axis,
            note="; ".join(notes),
        )


class _Saved:
    """Finds which layers are in the configs of their owners."""

    def __init__(self):
        self._names = {}

    def first_loser(self, chain):
        """Returns the first of a chain of owners that leaves out the next."""
        for owner, part in zip(chain, chain[1:], strict=False):
            if part.name not in self._in_config(owner):
                return owner
        return None

    def _in_config(self, owner):
        if id(owner) not in self._names:
            try:
                config = owner.get_config()
            except NotImplementedError:
                config = {}
            self._names[id(owner)] = set(_layer_names(config))
        return self._names[id(owner)]


def _layer_names(config) -> Iterator[str]:
    """Yields the names of the layers that are serialized in a config."""
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config and isinstance(inner, dict):
            yield inner.get("name")
            # Not deeper: the parts of this layer are its own affair.
            return
        config = config.values()
    if not isinstance(config, str) and isinstance(config, Iterable):
        for value in config:
            yield from _layer_names(value)


def _walk(owner, prefix="", owners=(), seen=None) -> Iterator[_Place]:
    """Yields every layer below `owner` once, owners before their parts."""
    seen = set() if seen is None else seen
    owners = (*owners, owner)
    if isinstance(owner, keras.Model):
        parts = owner.layers
    else:
        parts = owner._flatten_layers(include_self=False, recursive=False)
    for layer in parts:
        if id(layer) not in seen:
            seen.add(id(layer))
            yield _Place(layer, prefix + layer.name, owners)
            yield from _walk(layer, f"{prefix}{layer.name}/", owners, seen)


def _is(layer, types) -> bool:
    return isinstance(layer, types)


def _einsum_axes(equation: str) -> tuple[int | None, int | None]:
    """Returns what -1 and "auto" stand for in the kernel of an EinsumDense.

    The last axis that is in the output and not in the input; and the last one
    that is summed over, or else the former.
    """
    operands, result = equation.split("->")
    inputs, kernel = operands.split(",")
    kernel = kernel.strip()
    made = [a for a in kernel if a in result and a not in inputs]
    summed = [a for a in kernel if a not in result]
    output = kernel.index(made[-1]) - len(kernel) if made else None
    auto = kernel.index(summed[-1]) - len(kernel) if summed else output
    return output, auto


def _chosen(places: list[_Place], layers: _Selection) -> set[int]:
    """Returns the ids of the layers that the caller means."""
    able = [place for place in places if any(place.kernels())]
    if layers is None:
        return {id(place.layer) for place in able}
    if callable(layers):
        return {
            id(place.layer)
            for place in able
            if layers(place.attention or place.layer)
        }
    expected = "None, a list of layers or names, or a function of a layer"
    is_list = isinstance(layers, Iterable) and not isinstance(layers, str)
    require(is_list, "layers", expected, layers)
    chosen, known = set(), {}
    for place in able:
        for depth, layer in enumerate((*place.owners[1:], place.layer)):
            path = "/".join(place.path.split("/")[: depth + 1])
            if layer is place.layer:
                path = place.path
            if place.attention is not layer and place.attention and (
                layer is place.layer
            ):
                continue
            for key in (id(layer), layer.name, path):
                known.setdefault(key, set()).add(id(place.layer))
    for wanted in layers:
        key = wanted if isinstance(wanted, str) else id(wanted)
        names = sorted({k for k in known if isinstance(k, str)})
        require(
            key in known,
            "layers",
            f"layers with a kernel, which are {names}",
            wanted,
        )
        chosen |= known[key]
    return chosen
