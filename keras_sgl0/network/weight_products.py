"""Products with a block's own weights, as the layers of Keras that do the same.

`ops.matmul(x, self.w) + self.b` in the `call` of a block is what a `Dense`
does. Seen as one it has a kernel, with all that kernels have: a cost, rules,
penalties, a repair.

| operation                                  | layer               |
| ------------------------------------------ | ------------------- |
| Matmul, Dot or Tensordot, by a matrix      | Dense               |
| another Matmul or Tensordot, Einsum        | EinsumDense         |
| Conv, DepthwiseConv, ConvTranspose         | that of its name    |
| an Add of a bias to every call of a layer  | a part of the layer |

A weight that is read in any other way stays a table, see `own_weights`.
"""

import string
from typing import Any, NamedTuple

import keras
from keras import tree

from keras_sgl0.network.agreement import Recording
from keras_sgl0.network.calls import Call
from keras_sgl0.network.equations import Name, spelled
from keras_sgl0.network.own_weights import OwnWeights
from keras_sgl0.network.specs import mask_of

_CONVOLUTIONS = ("Conv", "DepthwiseConv", "ConvTranspose")


class _View(NamedTuple):
    """A tensor that is a weight, or a weight with its axes in another order.

    Args:
        variable: The weight.
        axes: Which axis of the weight each axis of the tensor is.
    """

    variable: keras.Variable
    axes: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the axes are in their order."""
        return self.axes == tuple(range(len(self.axes)))


class _Product(NamedTuple):
    """A call that a layer can take the place of.

    Args:
        call: The call.
        x: What the weight is applied to.
        kind: The class of the layer.
        config: What the layer is made from, but for its name and bias.
    """

    call: Call
    x: keras.KerasTensor
    kind: type[keras.layers.Layer]
    config: dict


def as_layers(recording: Recording, weights: OwnWeights) -> Recording:
    """Returns a recording with layers in place of products with weights.

    Args:
        recording: What a block does.
        weights: The weights of the block.
    """
    return _Merging(recording, weights).recording


class _Merging:
    """Finds the products in a recording and replaces them."""

    def __init__(self, recording: Recording, weights: OwnWeights):
        self._weights = weights
        self._views = _views(recording.calls, weights)
        self._readers: dict[int, list[Call]] = {}
        for call in recording.calls:
            for x in call.inputs:
                self._readers.setdefault(id(x), []).append(call)
        self._returned = {id(y) for y in tree.flatten(recording.outputs)}
        self._of_examples = _of_examples(recording, weights)
        # What replaces a call, `None` for a call that is a part of another.
        self._instead: dict[int, Call | None] = {}
        for variable in weights.variables:
            self._replace(variable)
        calls = [self._instead.get(id(c), c) for c in recording.calls]
        found = [call for call in calls if call is not None]
        used = _needed(found, recording.outputs)
        self.recording = recording._replace(calls=used)

    def _replace(self, variable):
        """Replaces the calls that read a weight, if all can be one layer."""
        readers = self._readers_of(variable)
        products = [self._product(call) for call in readers or ()]
        known = [p for p in products if p is not None]
        if not known or len(known) < len(products):
            return
        first = known[0]
        dtypes = {z.dtype for p in known for z in (p.x, *p.call.outputs)}
        if len(dtypes) > 1 or any(p[2:] != first[2:] for p in known):
            return
        bias = self._bias(known, variable)
        ends = [
            p.call if bias is None else self._readers[id(p.call.outputs[0])][0]
            for p in known
        ]
        pairs = list(zip(known, ends, strict=True))
        if any(self._hands_on_a_mask(p.x, end.outputs[0]) for p, end in pairs):
            return
        layer = self._weights.product(*first[2:], variable, bias, first.x)
        if layer is None:
            return
        for product, end in pairs:
            self._instead[id(end)] = None
            self._instead[id(product.call)] = Call(
                layer, (product.x,), {}, end.outputs
            )

    def _readers_of(self, variable) -> list[Call] | None:
        """Returns the calls that read a weight, `None` if it is an output."""
        found: dict[int, Call] = {}
        for key, view in self._views.items():
            if view.variable is not variable:
                continue
            if key in self._returned:
                return None
            for call in self._readers.get(key, ()):
                if id(call.outputs[0]) not in self._views:
                    found[id(call)] = call
        return list(found.values())

    def _product(self, call: Call) -> _Product | None:
        """Returns the product that a call is, `None` if it is none."""
        if len(call.args) != 2 or call.kwargs or len(call.outputs) != 1:
            return None
        kind = type(call.operation).__name__
        x, view = call.args[0], self._view(call.args[1])
        flipped = view is None and kind not in _CONVOLUTIONS
        if flipped:
            x, view = call.args[1], self._view(call.args[0])
        if view is None or id(x) not in self._of_examples:
            return None
        if kind in _CONVOLUTIONS:
            return _convolution(call, x, view)
        names = _names(call, flipped, view)
        return names and _dense(call, x, *names)

    def _hands_on_a_mask(self, x, y) -> bool:
        """Returns whether a layer from one to the other would do so wrongly.

        The operation that it replaces loses the mask of its input.
        """
        readers = [call.operation for call in self._readers.get(id(y), ())]
        returned = id(y) in self._returned and not self._weights.keeps_masks
        return mask_of(x) is not None and (
            returned or any(isinstance(r, keras.layers.Layer) for r in readers)
        )

    def _view(self, x) -> _View | None:
        return self._views.get(id(x))

    def _bias(self, products, kernel) -> keras.Variable | None:
        """Returns the weight that is added to each product and nothing else."""
        found = [self._addition(product.call) for product in products]
        if None in found:
            return None
        additions, biases = zip(*found, strict=True)
        bias, config = biases[0], products[0].config
        readers = {id(call) for call in self._readers_of(bias) or ()}
        if (
            any(own is not bias for own in biases)
            or readers != {id(call) for call in additions}
            or bias.trainable != kernel.trainable
            or config.get("data_format") == "channels_first"
        ):
            return None
        if "equation" in config:
            # What its last axis is may come from the inputs alone.
            table, result = config["equation"].split(",")[1].split("->")
            return bias if result[-1] in table else None
        return bias

    def _addition(self, call: Call) -> tuple[Call, keras.Variable] | None:
        """Returns the one call that reads a product, and the bias it adds."""
        (y,) = call.outputs
        readers = self._readers.get(id(y), [])
        if id(y) in self._returned or len(readers) != 1:
            return None
        (reader,) = readers
        views = [self._views.get(id(x)) for x in reader.args if x is not y]
        if type(reader.operation).__name__ != "Add" or len(views) != 1:
            return None
        (view,) = views
        if view is None or view.variable.shape != y.shape[-1:]:
            return None
        return reader, view.variable


def _views(calls: list[Call], weights: OwnWeights) -> dict[int, _View]:
    """Returns the tensors that are weights, by their `id`."""
    found: dict[int, _View] = {}
    tables: dict[int, keras.Variable] = {}
    for call in calls:
        variable = weights.variable_of(call.operation)
        kind = type(call.operation).__name__
        x = call.args[0] if call.args else None
        (y, *_) = call.outputs
        if variable is not None:
            tables[id(y)] = variable
        elif kind == "Reshape" and id(x) in tables:
            variable = tables[id(x)]
        elif kind == "Transpose" and id(x) in found:
            before = found[id(x)]
            order = call.operation.axes
            order = range(len(before.axes))[::-1] if order is None else order
            axes = tuple(before.axes[i] for i in order)
            found[id(y)] = _View(before.variable, axes)
        if variable is not None and tuple(y.shape) == tuple(variable.shape):
            axes = tuple(range(len(y.shape)))
            found[id(y)] = _View(variable, axes)
    return found


def _of_examples(recording: Recording, weights: OwnWeights) -> set[int]:
    """Returns the tensors that come from the inputs of the block."""
    found = {id(x) for x in recording.given if x is not weights.zero}
    for call in recording.calls:
        if any(id(x) in found for x in call.inputs):
            found.update(map(id, call.outputs))
    return found


def _needed(calls: list[Call], outputs: Any) -> list[Call]:
    """Returns the calls that outputs depend on."""
    wanted = {id(y) for y in tree.flatten(outputs)}
    found = []
    for call in reversed(calls):
        if any(id(y) in wanted for y in call.outputs):
            wanted.update(id(x) for x in call.inputs)
            found.append(call)
    return found[::-1]


def _names(call, flipped, view) -> tuple[list, list, list] | None:
    """Returns the names of the axes of input, weight and output.

    Those of the weight are in its own order. Nothing is returned where the
    operation is no product, or sizes of 1 are broadcast.
    """
    first, second = (x.shape for x in call.args)
    ranks = len(first), len(second)
    kind = type(call.operation).__name__
    if kind == "Tensordot":
        names = _of_tensordot(call.operation.axes, *ranks)
    elif kind == "Dot" and ranks[0] > 1 and len(view.axes) == ranks[1] == 2:
        names = _of_tensordot(1, *ranks)
    else:
        names = spelled(call.operation, [*ranks, len(call.outputs[0].shape)])
    if not names:
        return None
    sizes: dict[Name, set] = {}
    for name, size in zip(names[0] + names[1], first + second, strict=True):
        sizes.setdefault(name, set()).add(size)
    if any(len(found) > 1 for found in sizes.values()):
        return None
    own, table = names[1::-1] if flipped else names[:2]
    stored = [name for _, name in sorted(zip(view.axes, table, strict=True))]
    return own, stored, names[2]


def _of_tensordot(axes, first: int, second: int) -> list[list[Name]]:
    """Returns the names of the axes of two operands and their product."""
    if isinstance(axes, int):
        axes = [range(first - axes, first), range(axes)]
    pair = [[axis] if isinstance(axis, int) else list(axis) for axis in axes]
    names: list[list[Name]] = []
    for letter, rank, summed in zip("ab", (first, second), pair, strict=True):
        own: list[Name] = [f"{letter}{i}" for i in range(rank)]
        for i, axis in enumerate(summed):
            own[axis] = f"sum{i}"
        names.append(own)
    rest = [n for n in names[0] + names[1] if not str(n).startswith("sum")]
    return [*names, rest]


def _dense(call, x, own, table, result) -> _Product | None:
    """Returns a product as a `Dense` or an `EinsumDense`."""
    repeated = any(len(set(n)) < len(n) for n in (own, table, result))
    # The examples come first, and the weight has none.
    if min(len(own), len(result)) < 2 or repeated:
        return None
    if own[0] != result[0] or own[0] in table:
        return None
    if own == [*result[:-1], own[-1]] and table == [own[-1], result[-1]]:
        config: dict[str, Any] = {"units": call.outputs[0].shape[-1]}
        return _Product(call, x, keras.layers.Dense, config)
    every = {*own, *table, *result}
    read_once = all(
        sum(name in names for names in (own, table, result)) > 1
        for name in every
    )
    if not read_once:
        return None
    named = dict.fromkeys([*own, *table])
    letters = dict(zip(named, string.ascii_letters, strict=False))
    spelt = ["".join(letters[n] for n in names) for names in (own, table)]
    equation = ",".join(spelt) + "->" + "".join(letters[n] for n in result)
    config = {"equation": equation, "output_shape": call.outputs[0].shape[1:]}
    return _Product(call, x, keras.layers.EinsumDense, config)


def _convolution(call, x, view) -> _Product | None:
    """Returns a convolution as the layer that does the same."""
    operation, shape = call.operation, tuple(view.variable.shape)
    kind = type(operation).__name__
    rank = len(shape) - 2
    name = kind.replace("Conv", f"Conv{rank}D")
    layer = getattr(keras.layers, name, None)
    if layer is None or not view.is_plain or len(x.shape) != rank + 2:
        return None
    places = operation.data_format or keras.config.image_data_format()
    config: dict[str, Any] = {
        "kernel_size": shape[:rank],
        "strides": _each(operation.strides, rank),
        "padding": operation.padding,
        "data_format": places,
        "dilation_rate": _each(operation.dilation_rate, rank),
    }
    if kind == "Conv":
        config |= {"filters": shape[-1]}
    elif kind == "DepthwiseConv":
        config |= {"depth_multiplier": shape[-1]}
    else:
        config |= {"filters": shape[-2]}
        if operation.output_padding is not None:
            config["output_padding"] = _each(operation.output_padding, rank)
    return _Product(call, x, layer, config)


def _each(value, rank: int) -> tuple[int, ...]:
    """Returns a number for each axis."""
    return (value,) * rank if isinstance(value, int) else tuple(value)
