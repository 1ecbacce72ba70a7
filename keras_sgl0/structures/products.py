"""The rules of products of tensors, as in an attention that is written out.

Every axis has a name, as in the equation of `einsum`. A tensor is cut along
one of its channel axes: along the heads `n` of `btnh,bsnh->bnts`, which both
operands and the output have, or where there are none along the last, as `h`
of `bth,bsh->bts`. What has one index of one name is cut together. If a name is
not what all are cut along that have it, the channels stay.
"""

import itertools

import keras
import numpy as np

from keras_sgl0.network.equations import Name, names_of
from keras_sgl0.network.graph import Tensor
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Rule
from keras_sgl0.structures.slices import Rewrite


@rule("Einsum", "Matmul", keras.layers.Dot)
class Product(Rule):
    """A sum of products of the entries of several tensors."""

    several_axes = True
    needs_channels = False

    def bind(self, node, values):
        """Returns the rule, applied to one call."""
        super().bind(node, values)
        self.reason, self.names = "", names_of(node)
        if not self.names:
            self.reason = "one of its operands is an array, or it has no `->`"
        elif getattr(self.layer, "normalize", False):
            self.reason = "it normalizes its inputs"
        else:
            self._find_channels()
        return self

    def refusal(self):
        if self.reason:
            return self.reason
        *operands, y = self.names
        sizes: dict[Name, int | None] = {}
        for x, names in zip(self.node.inputs, operands, strict=True):
            if names[0] != y[0] or len(set(names)) < len(names):
                return "it mixes examples, or takes a diagonal"
            for axis in x.axes:
                size = x.shape[axis]
                if size is None or sizes.setdefault(names[axis], size) != size:
                    return "its inputs have no known channels"
        return ""

    @property
    def why_outputs_stay(self) -> str:
        """Why no output can be cut, empty where it can."""
        if self.along[-1] is None:
            return f"`{self.node.path}` makes them of what is no channel"
        return ""

    def fixed_inputs(self):
        """Returns the operands that cannot be cut along one axis."""
        pairs = zip(self.node.inputs, self.along[:-1], strict=True)
        return [x for x, name in pairs if name is None]

    def axes(self):
        """Returns where the channel axes of the operands are, or the last."""
        names = self.names[-1]
        axes = tuple(names.index(a) for a in self.channels[-1])
        return axes or (len(names) - 1,)

    def ties(self):
        """Returns that what has one index of one name is cut together."""
        every = [*self.node.inputs, *self.node.outputs]
        size = max(max(x.sizes) for x in every)
        numbers = {a: size * i for i, a in enumerate(dict.fromkeys(self.along))}
        found: list[np.ndarray | None] = []
        for x, names, along in zip(every, self.names, self.along, strict=True):
            if along is None:
                found.append(None)
                continue
            place = x.axes.index(names.index(along))
            found.append(numbers[along] + np.indices(x.sizes)[place].ravel())
        return None if all(own is None for own in found) else found

    def constants(self, input_constants):
        """Returns zero for what is a sum of zeros."""
        operands = list(enumerate(self._may_differ_from_zero(input_constants)))
        nonzero = self._join(operands, len(operands))
        return np.where(nonzero, np.nan, 0.0)

    def reads(self, live, input_constants):
        """Returns what meets something that is not zero in a live output."""
        operands = list(enumerate(self._may_differ_from_zero(input_constants)))
        y = self.node.outputs[0]
        if self.channels[-1]:
            operands.append((len(operands), live.reshape(y.sizes)))
        elif not live.any():
            return [np.zeros(x.channels, bool) for x in self.node.inputs]
        return [
            self._join([own for own in operands if own[0] != i], i)
            for i in range(len(self.node.inputs))
        ]

    def _find_channels(self):
        """Finds the channel axes by name, and what each is cut along."""
        *operands, y = self.names
        inputs = zip(self.node.inputs, operands, strict=True)
        channels = [[names[i] for i in x.axes] for x, names in inputs]
        pairs = list(zip(operands, channels, strict=True))
        # The names that are a channel axis of every operand that has them.
        good = {
            a
            for _, own in pairs
            for a in own
            if all(a in others for names, others in pairs if a in names)
        }
        # The channel axes of operands and output, by name.
        self.channels = [*channels, [a for a in y if a in good]]
        heads = [
            a for a in y if a in good and sum(a in n for n in operands) > 1
        ]
        along = []
        for own in self.channels:
            among = [a for a in own if a in good]
            first = [a for a in among if a in heads] or among[-1:]
            along.append(first[0] if first else None)
        spread = {
            a
            for names, own in zip(self.names, along, strict=True)
            for a in names
            if a != own
        }
        self.along = [None if a in spread else a for a in along]

    def _may_differ_from_zero(self, constants) -> list[np.ndarray]:
        pairs = zip(self.node.inputs, constants, strict=True)
        return [(own != 0).reshape(x.sizes) for x, own in pairs]

    def _join(self, operands, target: int) -> np.ndarray:
        """Returns which channels of one tensor meet only flags that are set.

        Args:
            operands: Pairs of the place of a tensor and its flags.
            target: The place of the tensor.
        """
        every = dict.fromkeys(itertools.chain(*self.channels))
        numbers = {a: i for i, a in enumerate(every)}
        wanted = self.channels[target]
        sizes = (*self.node.inputs, *self.node.outputs)[target].sizes
        # What no other tensor has is met everywhere.
        terms: list = [
            (np.ones(sizes if wanted else ()), [numbers[a] for a in wanted])
        ]
        terms += [
            (flags.astype("float64"), [numbers[a] for a in self.channels[i]])
            for i, flags in operands
        ]
        flat = itertools.chain(*terms)
        result = np.einsum(*flat, [numbers[a] for a in wanted], optimize=True)
        flags = np.broadcast_to(result > 0, sizes)
        return flags.ravel()


@rule("DotProductAttention")
class DotProductAttention(Rule):
    """Attention of heads to heads; whole heads are cut.

    Several heads of the query may share one of the keys and values, and are
    cut with it.
    """

    several_axes = True
    needs_channels = False

    def refusal(self):
        given = self.node.args[:3]
        if not all(isinstance(x, Tensor) and _has_heads(x) for x in given):
            return "the heads are no channels of its inputs"
        if any(None in x.shape[2:] for x in given):
            return "its inputs have no known channels"
        heads, keys, _ = (x.shape[2] for x in given)
        if keys == 1 < heads:
            # A head without a query takes the mean of the values.
            return "all heads share one key, so that none is zero alone"
        if keys < heads and keras.backend.backend() == "tensorflow":
            return "Keras on TensorFlow fails if all heads share one key"
        # Of scores with the axes `(batch, heads, queries, keys)`.
        shapes = [np.shape(x) for x in self._others() if x is not None]
        if any(len(s) > 3 and s[1] != 1 for s in shapes):
            return "its mask or bias has a value for each head"
        return ""

    def axes(self):
        """Returns those of the query."""
        return self.node.args[0].axes

    def fixed_inputs(self):
        """Returns masks and the like."""
        given = self.node.args[:3]
        return [x for x in self.node.inputs if x not in given]

    def ties(self):
        """Returns that a head is cut with all that it meets."""
        number = self.node.args[1].shape[2]
        found: list[np.ndarray | None] = []
        fixed = self.fixed_inputs()
        for x in (*self.node.inputs, *self.node.outputs):
            if x in fixed:
                found.append(None)
                continue
            own, size = _by_head(x, np.zeros(x.channels)).shape
            head = np.arange(own) * number // own
            found.append(np.repeat(head, size))
        return found

    def constants(self, input_constants):
        """Returns the constants of the values, whose weights sum to 1."""
        value = self._of(input_constants)[2]
        if any(x is not None for x in self._others()):
            value = np.where(value == 0, 0, np.nan)
        return self._repeated(_by_head(self.node.args[2], value)).ravel()

    def reads(self, live, input_constants):
        """Returns the heads that live, but not what the scores can ignore."""
        query, key, value = self.node.args[:3]
        live = _by_head(query, live)
        head = live.any(1, keepdims=True)
        own = self._of(input_constants)
        zero = _by_head(query, own[0] == 0)
        same = self._repeated(_by_head(key, ~np.isnan(own[1])))
        found = {x: np.ones(x.channels, bool) for x in self.fixed_inputs()}
        for x, wanted in (
            (query, head & ~same),
            (key, head & ~zero),
            (value, live),
        ):
            # Of all heads of the query that share one.
            sharing = wanted.reshape(x.shape[2], -1, x.shape[3])
            read = sharing.any(1).ravel()
            found[x] = found.get(x, False) | read
        return [found[x] for x in self.node.inputs]

    def _of(self, input_constants) -> list[np.ndarray]:
        """Returns the constants of query, key and value."""
        given = dict(zip(self.node.inputs, input_constants, strict=True))
        return [given[x] for x in self.node.args[:3]]

    def _repeated(self, grid):
        """Returns one row a head of the query, of one a head of the key."""
        return np.repeat(grid, self.node.args[0].shape[2] // len(grid), 0)

    def _others(self) -> list:
        """Returns bias, mask and scale."""
        return [*self.node.args[3:], *self.node.kwargs.values()]


@rule(keras.layers.Attention)
class Attention(Rule):
    """Attention of one head, without projections.

    It is called on `[query, value]`, or on `[query, value, key]`.
    """

    def refusal(self):
        if len(self.node.outputs) > 1:
            return "it returns its attention scores"
        if self.layer.score_mode != "dot":
            return "its scores are no products"
        if any(x.axes != (x.rank - 1,) for x in self.node.inputs):
            return "the channels of its inputs are not at the last axis"
        return ""

    def axes(self):
        """Returns the last axis."""
        return (self.node.outputs[0].rank - 1,)

    def ties(self):
        """Returns that query and key are cut alike, and value and output."""
        query, value, *key = self.node.inputs
        pair = np.arange(query.channels)
        # Without a key, the value is the key.
        own = len(pair) * bool(key) + np.arange(value.channels)
        return [pair, own, *(pair for _ in key), own]

    def constants(self, input_constants):
        """Returns the constants of the value, whose weights sum to 1."""
        return input_constants[1]

    def reads(self, live, input_constants):
        """Returns the live values, and what differs between keys."""
        query, value, *key = input_constants
        (same,) = key or [value]
        found = [live.any() & np.isnan(same), live]
        meets = live.any() & (query != 0)
        return [*found, meets] if key else [found[0], live | meets]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with its scale."""
        scale = self.layer.scale
        return Rewrite(
            {}, {} if scale is None else {"scale": self.values(scale)}
        )


def _has_heads(x) -> bool:
    """Returns whether channels run over heads, if there are several."""
    return x.axes == (2, 3) or (x.axes == (3,) and x.shape[2] == 1)


def _by_head(x, values) -> np.ndarray:
    """Returns values of channels as a matrix with one row a head."""
    return values.reshape(x.shape[2:])
