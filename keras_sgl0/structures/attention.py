"""The rules of attention layers: heads and their dimensions go.

With the projections `q`, `k`, `v` of the inputs, head `h` makes

    a_h = softmax(q_h k_h' / sqrt(d)) v_h,    y = b + sum_h a_h W_h

and three kinds of channels are inside the call. A *head* is gone without its
slices of all projections. A *key dimension*, of all heads alike, adds the
product of one column of `q` and of `k` to the scores. A *value dimension* is a
column of `v` and of `a`, and a row of every `W_h`.

* The weights of the softmax sum to 1, so a value that is the same for every
  input stays so, and is folded into `b`.
* The softmax does not change with what is the same for all keys. So a key
  dimension is dead if in every head that lives `q` is zero or `k` is constant.
* The scores are divided by the root of the number `d` of key dimensions. Where
  `d'` of them stay, `q` is scaled by `sqrt(d' / d)`.
"""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.attention import projected, projections
from keras_sgl0.network.graph import Tensor
from keras_sgl0.structures.kernels import is_altered
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Rule
from keras_sgl0.structures.slices import Rewrite, Role, Slices, variable_of


class Attention(Rule):
    """What attention layers have in common.

    The heads are those of the keys and values, as all queries that share one
    go with it. Where all queries share a single one, the queries are the heads.
    Such a head adds nothing only if its rows of the output kernel are zero.
    """

    cuts = True
    several_axes = True
    needs_channels = False
    kernels_apart = True

    @property
    def is_linear(self) -> bool:
        """Whether the last thing it does is the output projection."""
        return True

    def bind(self, node, values):
        """Returns the rule, applied to one call."""
        super().bind(node, values)
        self.paths = projections(self.layer)
        self.given = projected(node)
        return self

    def refusal(self):
        parts = [variable_of(self.layer, path) for path in self.paths.values()]
        if len(self.node.outputs) > 1:
            return "it returns its attention scores"
        if len(self.given) < len(parts) - 1:
            return "one of its inputs is an array"
        if any(is_altered(part) for part in parts):
            return "its projections are quantized or adapted (LoRA)"
        if len(self._variable("output", "kernel").shape) != 3:
            return "its outputs have several channel axes"
        for x in self.given.values():
            if x.axes != (x.rank - 1,) or x.shape[-1] is None:
                return "the channels of its inputs are not at the last axis"
        if any(self._tells_heads_apart(x) for x in self.fixed_inputs()):
            return "its mask has a value for each head"
        return ""

    def fixed_inputs(self):
        """Returns the masks."""
        return [x for x in self.node.inputs if x not in self.given.values()]

    def axes(self):
        """Returns the last axis."""
        return (self.node.outputs[0].rank - 1,)

    @property
    def queries(self) -> int:
        """The number of heads of the query."""
        return self._variable("query", "kernel").shape[1]

    @property
    def heads(self) -> int:
        """The number of heads that can be cut alone."""
        keys = self._variable("key", "kernel").shape[1]
        return self.queries if keys == 1 else keys

    @property
    def alike(self) -> bool:
        """Whether keys and values must have as many dimensions."""
        raise NotImplementedError

    def inner(self):
        """Returns the heads, the key and the value dimensions.

        Where these are alike, they are one tensor.
        """
        names = ("key",) if self.alike else ("key", "value")
        found = [_channels(self.heads, "heads")]
        for name in names:
            size = self._variable(name, "kernel").shape[2]
            label = "dimensions" if self.alike else f"{name} dimensions"
            found.append(_channels(size, label))
        return found

    def slices(self):
        """Returns the slices of all projections."""
        found = []
        for name, x in self.given.items():
            inputs = np.arange(x.channels)
            kernel = f"{self.paths[name]}.kernel"
            found.append(Slices(kernel, 0, inputs, "reader", x))
            found += self._inside(name, "kernel", 1, "member")
            found += self._inside(name, "bias", 0, "member")
        found += self._inside("output", "kernel", 0, "reader")
        outputs = np.arange(self.node.outputs[0].channels)
        path = self.paths["output"]
        found.append(Slices(f"{path}.kernel", 2, outputs, "member"))
        if self._has_bias:
            found.append(Slices(f"{path}.bias", 0, outputs, "member"))
        return found

    def all_constants(self, input_constants):
        """Returns what of the outputs, heads and dimensions is constant."""
        values, dead = self._constants(input_constants)
        kernel, bias = self._weights("output")
        unknown = np.isnan(values)
        sums = bias + np.tensordot(np.where(unknown, 0, values), kernel, 2)
        outputs = np.where((kernel[unknown] != 0).any(0), np.nan, sums)
        live = self._live(unknown & (kernel != 0).any(2), ~dead)
        return [outputs, *(np.where(own, np.nan, 0.0) for own in live)]

    def all_reads(self, live, input_constants):
        """Returns what the live outputs depend on."""
        values, dead = self._constants(input_constants)
        kernel = self._weights("output")[0][..., live[0]]
        lives = np.isnan(values) & (kernel != 0).any(2)
        keys = lives.any(1, keepdims=True) & ~dead
        found = {x: np.ones(x.channels, bool) for x in self.fixed_inputs()}
        for name, x in self.given.items():
            wanted = lives if name in ("value", "gate") else keys
            kernel = self._weights(name)[0]
            # Heads of the query that share one of the keys and values.
            sharing = wanted.reshape(kernel.shape[1], -1, kernel.shape[2])
            read = (kernel[:, sharing.any(1)] != 0).any(1)
            found[x] = found.get(x, False) | read
        inputs = [found[x] for x in self.node.inputs]
        return [*inputs, *self._live(lives, keys)]

    def cut(self, kept, input_constants):
        """Returns the layer with smaller projections."""
        kept = self._without_single(kept)
        constants = dict(zip(self.node.inputs, input_constants, strict=True))
        weights, has_bias = {}, self._has_bias
        for name, x in self.given.items():
            kernel, bias = self._weights(name)
            gone = ~kept[x] & ~np.isnan(constants[x])
            folded = np.tensordot(constants[x][gone], kernel[gone], 1)
            has_bias |= bool(folded.any())
            heads, dims = self._kept(name, kept)
            scale = self._scale(dims) if name == "query" else 1.0
            pair = (kernel[kept[x]], bias + folded)
            weights[name] = [scale * w[..., heads, :][..., dims] for w in pair]
        kernel, bias = self._weights("output")
        values, _ = self._constants(input_constants)
        heads, dims = self._kept("output", kept)
        gone = ~np.isnan(values) & ~np.outer(heads, dims)
        folded = values[gone] @ kernel[gone].astype("float64")
        has_bias |= bool(folded.any())
        pair = (kernel[heads][:, dims], bias + folded)
        outputs = kept[self.node.outputs[0]]
        weights["output"] = [w[..., outputs] for w in pair]
        return Rewrite(
            self.config(kept) | {"use_bias": has_bias},
            {
                f"{self.paths[name]}.{part}": w
                for name, pair in weights.items()
                for part, w in zip(("kernel", "bias"), pair, strict=True)
                if has_bias or part == "kernel"
            },
        )

    def _without_single(self, kept) -> dict[Tensor, np.ndarray]:
        """Returns what stays, with no dimension alone that could go wrong.

        Keras on TensorFlow adds a bias of the shape `(heads, 1)` along the
        steps if there are as many of these as heads. So a second dimension,
        which is dead, stays there.
        """
        heads, *dims = self.node.inner
        queries = int(kept[heads].sum()) * (self.queries // self.heads)
        sizes = {queries, int(kept[heads].sum()), None}
        if not sizes & {x.shape[1] for x in self.given.values()}:
            return dict(kept)
        several = {
            x: kept[x] | (np.cumsum(~kept[x]) == 1)
            for x in dims
            if kept[x].sum() == 1
        }
        return {**kept, **several}

    def config(self, kept: Mapping[Tensor, np.ndarray]) -> dict:
        """Returns the sizes in the config of the smaller layer.

        Args:
            kept: For each tensor of the call, which channels stay.
        """
        raise NotImplementedError

    def _live(self, values, keys) -> list[np.ndarray]:
        """Returns which heads, key and value dimensions live.

        Args:
            values: Which value dimensions live in which head, a matrix.
            keys: Likewise for the key dimensions.
        """
        heads, pair = self._any(values.any(1)), [keys.any(0), values.any(0)]
        return [heads, pair[0] | pair[1]] if self.alike else [heads, *pair]

    def _any(self, queries) -> np.ndarray:
        """Returns which heads have one of some heads of the query."""
        return queries.reshape(self.heads, -1).any(1)

    def _constants(self, input_constants) -> tuple[np.ndarray, np.ndarray]:
        """Returns the constant values, and the key dimensions without effect.

        Returns:
            A matrix of heads of the query and value dimensions, with NaN for
            none; and flags, a matrix of heads and key dimensions.
        """
        given = dict(zip(self.node.inputs, input_constants, strict=True))
        if self.node.calls > 1:
            # The values would be others in each call, and have one bias.
            given = {x: np.full(x.channels, np.nan) for x in given}
        sums = {k: self._sums(k, given[x]) for k, x in self.given.items()}
        values = sums["value"]
        if "gate" in sums:
            gates = 1 / (1 + np.exp(-sums["gate"]))
            values = np.where(values == 0, 0, values * gates)
        if not self._sums_to_one:
            values = np.where(values == 0, 0, np.nan)
        return values, (sums["query"] == 0) | ~np.isnan(sums["key"])

    @property
    def _sums_to_one(self) -> bool:
        """Whether the weights of all keys surely sum to 1."""
        # Where all keys are masked, Keras may make them zero.
        window = self.layer.get_config()["sliding_window"]
        return window is None and not self.fixed_inputs()

    def _sums(self, name, constants) -> np.ndarray:
        """Returns the constants of a projection, for all heads of the query."""
        kernel, bias = self._weights(name)
        unknown = np.isnan(constants)
        sums = bias + np.tensordot(np.where(unknown, 0, constants), kernel, 1)
        sums = np.where((kernel[unknown] != 0).any(0), np.nan, sums)
        return np.repeat(sums, self.queries // len(sums), 0)

    def _weights(self, name) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel of a projection and its bias, zeros for none."""
        kernel = self.values(self._variable(name, "kernel"))
        if self._has_bias:
            return kernel, self.values(self._variable(name, "bias"))
        shape = kernel.shape[2:] if name == "output" else kernel.shape[1:]
        return kernel, np.zeros(shape, kernel.dtype)

    def _scale(self, kept) -> float:
        """Returns what the query is scaled by if some key dimensions stay."""
        # As Keras rounds them: TensorFlow takes a number as float32 first.
        before, after = (
            ops.convert_to_numpy(ops.cast(n**-0.5, wide_dtype(self.layer)))
            for n in (len(kept), int(kept.sum()))
        )
        return float(before) / float(after)

    def _tells_heads_apart(self, mask) -> bool:
        """Returns whether a mask has an axis of heads."""
        axes = self.layer.get_config().get("attention_axes", (1,))
        # The scores have the query's axes, the heads', and those of the keys.
        has_heads = mask.rank == self.given["query"].rank + len(axes)
        return has_heads and mask.shape[-2 * len(axes) - 1] != 1

    @property
    def _has_bias(self) -> bool:
        return self._variable("output", "bias") is not None

    def _variable(self, name, part):
        return variable_of(self.layer, f"{self.paths[name]}.{part}")

    def _dims(self, name) -> Tensor:
        """Returns the dimensions of a projection."""
        return self.node.inner[1 if name in ("query", "key") else -1]

    def _heads_of(self, name) -> np.ndarray | None:
        """Returns the head of each of a projection, `None` for one of all."""
        heads = self._variable(name, "kernel").shape[
            0 if name == "output" else 1
        ]
        if heads < self.heads:
            return None
        return np.arange(heads) * self.heads // heads

    def _kept(self, name, kept) -> tuple[np.ndarray, np.ndarray]:
        """Returns which heads and dimensions of a projection stay."""
        own = self._heads_of(name)
        heads = (
            np.ones(1, bool) if own is None else kept[self.node.inner[0]][own]
        )
        return heads, kept[self._dims(name)]

    def _inside(self, name, part, axis, role: Role) -> list[Slices]:
        """Returns the slices of heads and dimensions of a variable.

        Args:
            name: The projection.
            part: `"kernel"` or `"bias"`.
            axis: The axis of the heads; that of the dimensions comes next.
            role: Their role.
        """
        if self._variable(name, part) is None:
            return []
        path, dims = f"{self.paths[name]}.{part}", self._dims(name)
        found = [Slices(path, axis + 1, np.arange(dims.channels), role, dims)]
        own = self._heads_of(name)
        if own is not None:
            shared = self._heads_of("key") is None
            role = "member" if shared else role
            found.append(Slices(path, axis, own, role, self.node.inner[0]))
        return found


def _channels(number: int, label: str) -> Tensor:
    return Tensor(keras.KerasTensor((None, number)), label=label)


@rule(keras.layers.MultiHeadAttention)
class MultiHead(Attention):
    """Every head of the query has its own keys and values."""

    @property
    def alike(self) -> bool:
        """Whether it calls JAX's own attention, which asks for it.

        What is cut on another backend may not run on JAX, therefore, and what
        has different numbers of both does not run there.
        """
        config = self.layer.get_config()
        fused = self.given["query"].rank == 3 and not config["dropout"]
        equal = config["key_dim"] == config["value_dim"]
        return keras.backend.backend() == "jax" and fused and equal

    def config(self, kept):
        """Returns the sizes, those of the output included."""
        heads, keys, *values = (int(kept[x].sum()) for x in self.node.inner)
        outputs = int(kept[self.node.outputs[0]].sum())
        return {
            "num_heads": heads,
            "key_dim": keys,
            "value_dim": values[0] if values else keys,
            "output_shape": outputs,
        }


@rule(keras.layers.GroupQueryAttention)
class GroupQuery(Attention):
    """Heads of the query share keys and values.

    Query, key and value have the same dimensions. The layer wants as many
    channels of its query as of its value, and makes as many.
    """

    alike = True

    def ties(self):
        """Returns that query, value and output are cut alike."""
        y = self.node.outputs[0]
        own = np.arange(y.channels)
        tied = {self.given["query"]: own, self.given["value"]: own}
        key = self.given["key"]
        # A number of its own for each channel that is tied to no other.
        tied.setdefault(key, y.channels + np.arange(key.channels))
        return [*(tied.get(x) for x in self.node.inputs), own, None, None]

    def config(self, kept):
        """Returns the sizes."""
        heads, dims = (int(kept[x].sum()) for x in self.node.inner)
        shared = self._heads_of("key") is None
        return {
            "head_dim": dims,
            "num_query_heads": heads * (self.queries // self.heads),
            "num_key_value_heads": 1 if shared else heads,
        }
