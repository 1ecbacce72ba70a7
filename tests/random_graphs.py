"""Random Functional models of all layers with rules, for the fuzzer."""

import keras
import numpy as np
from custom_blocks import DropPath
from helpers import layers_of
from keras import layers, ops
from random_blocks import (
    KINDS,
    KINDS_OF_STEPS,
    PRODUCTS,
    OwnKernel,
    OwnWeights,
)
from random_views import RandomViews

ACTIVATIONS = (None, "relu", "tanh", "sigmoid", "gelu", "softsign", "elu")
ENTRYWISE = (
    ops.relu,
    ops.sigmoid,
    ops.softplus,
    ops.sin,
    ops.square,
    keras.activations.relu,
    lambda x: ops.exp(-ops.abs(x)),
    lambda x: ops.log1p(ops.square(x)) - 0.5,
    lambda x: ops.where(x > 0.0, x, 0.1 * x),
    lambda x: 1.0 - 2.0 * x,
)
MERGES = (
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
)
MIXING = (
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)


class RandomGraph:
    """A random model, the same for the same seed.

    Args:
        seed: The seed.
        dtype: The dtype of its inputs.

    Attributes:
        model: The model.
        inputs: Some inputs, as it wants them.
    """

    def __init__(self, seed, dtype):
        self.rng = np.random.default_rng(seed)
        keras.utils.set_random_seed(seed)
        self._dtype = dtype
        self.rank = int(self.rng.choice([2, 3, 4, 4, 5], p=_RANKS))
        self.first = keras.config.image_data_format() == "channels_first"
        inputs = [self._input() for _ in range(self._some(1, 2))]
        self.pool = list(inputs)
        if self.rank == 3 and self._chance(0.3):
            tokens = keras.Input((5,), dtype="int32")
            inputs.append(tokens)
            self.pool.append(layers.Embedding(6, self._some(3, 6))(tokens))
        for _ in range(self._some(4, 8)):
            self._step()
        self.model = keras.Model(inputs, self._outputs())
        self.inputs = [self._values(x) for x in self.model.inputs]

    def fill(self, dead=0.0):
        """Gives the model random weights.

        Args:
            dead: The share of the channels of kernels that are zero, some of
                them with their biases, and of scales that are zero.
        """
        rng = self.rng
        for layer in layers_of(self.model):
            for v in layer.weights:
                shape = tuple(v.shape)
                if not keras.backend.is_float_dtype(v.dtype):
                    continue
                value = rng.normal(size=shape)
                if len(shape) > 1 and v.name != "alpha":
                    value *= (1.5 * shape[-1] / value.size) ** 0.5
                if v.name.endswith(("gamma", "scale", "variance", "stddev")):
                    value = rng.uniform(0.5, 1.5, shape)
                is_moment = v.name.endswith(("variance", "mean", "stddev"))
                if shape and not is_moment:
                    axis = int(rng.integers(max(len(shape) - 2, 0), len(shape)))
                    alive = rng.random(shape[axis]) >= dead
                    others = [i for i in range(len(shape)) if i != axis]
                    value = value * np.expand_dims(alive, others)
                v.assign(value)

    def _some(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def _chance(self, probability):
        return self.rng.random() < probability

    def _one(self, things):
        return things[int(self.rng.integers(len(things)))]

    def _input(self):
        shape = [5] * (self.rank - 2)
        place = 0 if self.first else len(shape)
        shape.insert(place, self._some(2, 4))
        return keras.Input(shape, dtype=self._dtype)

    def _values(self, x):
        shape = (3, *x.shape[1:])
        if x.dtype == "int32":
            return self.rng.integers(0, 6, shape)
        return self.rng.normal(size=shape).astype(x.dtype)

    @property
    def axis(self):
        return 1 if self.first else -1

    def channels(self, x):
        return x.shape[self.axis]

    def spatial(self, x):
        return x.shape[2:] if self.first else x.shape[1:-1]

    def _step(self):
        x = self._one(self.pool[-4:])
        kinds = [self._kernel] * 4 + [self._channelwise] * 3
        kinds += [self._merge] * 2 + [self._concatenate, self._residual]
        kinds += [self._shared, self._inner, self._excite, self._rare]
        kinds += [RandomViews(self.rng, self.axis, self.kernel)] * 2
        kinds.append(self._own_weights)
        if self.rank in (3, 4) and not self.first:
            kinds += [self._recurrent, self._attention, self._einsum]
        if self.rank == 3 and not self.first:
            kinds.append(self._written_out)
        self.pool.append(self._one(kinds)(x))

    def _layer(self, name):
        """Returns a layer class of the rank of the tensors."""
        return getattr(layers, f"{name}{self.rank - 2}D", None)

    def kernel(self, x, channels=None):
        """Returns a layer that makes channels, all of the same sizes of x."""
        units = channels or self._some(2, 7)
        options = {
            "activation": self._one(ACTIVATIONS),
            "use_bias": self._chance(0.8),
        }
        if self.rank == 2 or (not self.first and self._chance(0.15)):
            return layers.Dense(units, **options)
        options["padding"] = "same"
        size = self._some(1, 3)
        kinds = [self._layer("Conv")] * 3
        if self.rank < 5:
            kinds.append(self._layer("SeparableConv"))
        kinds.append(self._transpose())
        return self._one(kinds)(units, size, **options)

    def _transpose(self):
        return getattr(layers, f"Conv{self.rank - 2}DTranspose")

    def _kernel(self, x):
        if self.rank == 2 or self._chance(0.5) or min(self.spatial(x)) < 3:
            layer = self.kernel(x)
            separable = self._layer("SeparableConv") or ()
            if self._chance(0.1) and not isinstance(layer, separable):
                layer = layers.SpectralNormalization(layer)
            return layer(x)
        options = {"activation": self._one(ACTIVATIONS)}
        if self.rank < 5 and self._chance(0.3):
            depthwise = self._layer("DepthwiseConv")
            options["padding"] = self._one(("same", "valid"))
            return depthwise(2, depth_multiplier=self._some(1, 2), **options)(x)
        strides = self._some(1, 2)
        kind = self._one((self._layer("Conv"), self._transpose()))
        return kind(self._some(2, 7), 2, strides=strides, **options)(x)

    def _channelwise(self, x):
        known = {
            "norm": lambda: layers.BatchNormalization(
                axis=self.axis,
                center=self._chance(0.8),
                scale=self._chance(0.8),
            ),
            "activation": lambda: layers.Activation(self._one(ACTIVATIONS[1:])),
            "relu": lambda: layers.ReLU(),
            "leaky": lambda: layers.LeakyReLU(0.2),
            "dropout": lambda: layers.Dropout(0.3),
            "entrywise": lambda: self._one(ENTRYWISE),
            "noise": DropPath,
        }
        if not self.first:
            known["prelu"] = lambda: layers.PReLU(
                shared_axes=list(range(1, self.rank - 1)) or None
            )
            known["rescaling"] = lambda: layers.Rescaling(0.7, -0.2)
            known["mixing"] = lambda: self._one(MIXING)()
        if self.rank > 2:
            axes = [
                i for i in range(1, self.rank) if i != self.axis % self.rank
            ]
            known |= {
                "moments": lambda: lambda x: _standardized(x, axes),
                "groups": lambda: layers.GroupNormalization(-1, axis=self.axis),
                "up": lambda: self._layer("UpSampling")(2),
                "pad": lambda: self._layer("ZeroPadding")(1),
                "spatial": lambda: self._layer("SpatialDropout")(0.3),
            }
            if self.first and self.rank == 3:
                known.pop("up"), known.pop("pad"), known.pop("spatial")
            if min(self.spatial(x)) > 8:
                known.pop("up", None), known.pop("pad", None)
            # TensorFlow on a CPU pools no volumes of float64.
            pools = self.rank < 5 or self._dtype == "float32"
            if min(self.spatial(x)) > 2:
                pool = self._one(("MaxPooling", "AveragePooling"))
                padding = self._one(("same", "valid"))
                known["pool"] = lambda: self._layer(pool)(2, padding=padding)
                if not pools:
                    known.pop("pool")
                if not (self.first and self.rank == 3):
                    known["crop"] = lambda: self._layer("Cropping")(1)
        return known[self._one(sorted(known))]()(x)

    def _partner(self, x):
        """Returns a tensor of the shape of x, made for it if need be."""
        same = [y for y in self.pool if y.shape == x.shape]
        if len(same) > 1 and self._chance(0.6):
            return self._one(same)
        like = [y for y in self.pool if self.spatial(y) == self.spatial(x)]
        return self.kernel(x, self.channels(x))(self._one(like))

    def _merge(self, x):
        return self._one(MERGES)()([x, self._partner(x)])

    def _concatenate(self, x):
        if self.rank > 2 and self._chance(0.25):
            axis = 2 if self.first else 1
            return layers.Concatenate(axis=axis)([x, self._partner(x)])
        like = [y for y in self.pool if self.spatial(y) == self.spatial(x)]
        several = [x, *(self._one(like) for _ in range(self._some(1, 2)))]
        return layers.Concatenate(axis=self.axis)(several)

    def _residual(self, x):
        y = self.kernel(x, self._some(2, 6))(x)
        y = layers.BatchNormalization(axis=self.axis)(y)
        return layers.Add()([x, self.kernel(y, self.channels(x))(y)])

    def _shared(self, x):
        """Returns what layers or a model make of one of two tensors."""
        pair = [x, self._partner(x)]
        if self._chance(0.4):
            parts = [self._model(x)]
        else:
            parts = [self.kernel(x)]
            if self._chance(0.5):
                parts.append(layers.BatchNormalization(axis=self.axis))
        for part in parts:
            pair = [part(y) for y in pair]
        if self._chance(0.5):
            return layers.Add()(pair)
        self.pool.append(pair[0])
        return pair[1]

    def _inner(self, x):
        return self._model(x)(x)

    def _model(self, x):
        """Returns a model of a few layers."""
        y = inputs = keras.Input(x.shape[1:], dtype=x.dtype)
        outer, self.pool = self.pool, [y]
        for _ in range(self._some(1, 3)):
            y = self._one([self._kernel, self._channelwise, self._residual])(y)
            self.pool = [inputs, y]
        self.pool = outer
        return keras.Model(inputs, y)

    def _own_weights(self, x):
        """Returns what a block with a weight of its own makes of a tensor."""
        if not self.first and self._chance(0.5):
            kind = self._one(PRODUCTS + ("conv",) * (self.rank > 2))
            return OwnKernel(self._some(2, 6), kind, self._chance(0.5))(x)
        steps = self.rank == 3 and not self.first and x.shape[1] is not None
        kind = self._one(KINDS + KINDS_OF_STEPS * steps)
        if kind == "places" and None in x.shape[1:]:
            kind = "scalar"
        return OwnWeights(self.kernel(x), kind, self.axis)(x)

    def _excite(self, x):
        if self.rank == 2:
            return layers.Multiply()([x, self._partner(x)])
        if None not in x.shape[1:] and self._chance(0.3):
            return layers.Multiply()([x, self._factors(x)])
        y = self._layer("GlobalAveragePooling")()(x)
        if self._chance(0.3):
            y = self._along_channels(y)
        else:
            y = layers.Dense(self._some(2, 5), "relu")(y)
            y = layers.Dense(self.channels(x), "sigmoid")(y)
        shape = [1] * (self.rank - 2)
        shape.insert(0 if self.first else len(shape), self.channels(x))
        return layers.Multiply()([x, layers.Reshape(shape)(y)])

    def _along_channels(self, x):
        """Returns a number for each channel, from those of its neighbours."""
        x = layers.Reshape((*x.shape[1:], 1))(x)
        hidden = layers.Conv1D(
            self._some(2, 5),
            3,
            padding="same",
            activation="relu",
            data_format="channels_last",
        )(x)
        last = layers.Conv1D(
            1, 1, activation="sigmoid", data_format="channels_last"
        )
        return last(hidden)[:, :, 0]

    def _factors(self, x):
        """Returns a factor for each position of a tensor."""
        sizes = self.spatial(x)
        y = layers.Dense(int(np.prod(sizes)), "sigmoid")(layers.Flatten()(x))
        shape = (1, *sizes) if self.first else (*sizes, 1)
        return layers.Reshape(shape)(y)

    def _recurrent(self, x):
        """Returns the outputs of a recurrent layer at all steps."""
        options = {
            "return_sequences": True,
            "use_bias": self._chance(0.8),
            "go_backwards": self._chance(0.3),
            "activation": self._one(("tanh", "relu", "softsign", "sigmoid")),
        }
        units = self._some(2, 5)
        if self._chance(0.3):
            layer = layers.Dense(units, "relu")
            if self._chance(0.5):
                y = step = keras.Input(x.shape[2:])
                y = layers.Add()([layer(y), layers.Dense(units)(y)])
                layer = keras.Model(step, layers.PReLU()(y))
            return layers.TimeDistributed(layer)(x)
        if self.rank == 4:
            padding = "same" if x.shape[2] < 3 else self._one(("same", "valid"))
            return layers.ConvLSTM1D(units, 2, padding=padding, **options)(x)
        kind = self._one((layers.SimpleRNN, layers.GRU, layers.LSTM))
        if self._chance(0.6):
            return kind(units, **options)(x)
        options |= {"use_bias": True, "go_backwards": False}
        mode = self._one(("concat", "concat", "sum", "mul", "ave"))
        return layers.Bidirectional(kind(units, **options), mode)(x)

    def _grouped(self, x):
        """Returns a convolution or a normalization in groups."""
        channels = self.channels(x)
        groups = self._one([n for n in (2, 3, 4, 6, 8) if not channels % n])
        if self._chance(0.4):
            return layers.GroupNormalization(groups, axis=self.axis)
        filters = groups * self._some(1, 3)
        return self._layer("Conv")(filters, 1, groups=groups)

    def _attention(self, x):
        """Returns what an attention layer makes of one tensor or several."""
        heads, size = self._some(1, 4), self._some(2, 4)
        options = {
            "use_bias": self._chance(0.7),
            "use_gate": self._chance(0.3),
            "dropout": self._one((0.0, 0.0, 0.3)),
        }
        call = {"use_causal_mask": self._chance(0.3)}
        if self.rank == 3 and self._chance(0.4):
            shared = self._some(1, 2)
            grouped = layers.GroupQueryAttention
            layer = grouped(size, heads * shared, heads, **options)
            return layer(x, self._one((x, self._partner(x))), **call)
        if self._chance(0.5):
            options["value_dim"] = self._some(2, 4)
        if self._chance(0.5):
            options["output_shape"] = self._some(2, 6)
        like = [y for y in self.pool if self.spatial(y) == self.spatial(x)]
        if self._chance(0.3):
            call["key"] = self._one(like)
        layer = layers.MultiHeadAttention(heads, size, **options)
        # A causal mask is for one axis of positions.
        call = call if self.rank == 3 else call | {"use_causal_mask": False}
        return layer(x, self._one([x, *like]), **call)

    def _einsum(self, x):
        """Returns a sum over channels, with one axis of outputs or two."""
        options = {"activation": self._one(ACTIVATIONS)}
        n, m = self._some(2, 4), self._some(2, 5)
        if self._chance(0.3):
            bias = self._one((None, "c"))
            shape = self.channels(x)
            return layers.EinsumDense("...c,c->...c", shape, None, bias)(x)
        if self._chance(0.5):
            bias = self._one((None, "d"))
            return layers.EinsumDense(
                "...c,cd->...d", m, bias_axes=bias, **options
            )(x)
        first, second = (
            self._one([("...c,cde->...de", "de"), ("...c,ecd->...ed", "ed")]),
            self._one(["de", "ed"]),
        )
        sizes = (n, m) if first[1] == "de" else (m, n)
        bias = self._one((None, first[1]))
        y = layers.EinsumDense(first[0], sizes, bias_axes=bias, **options)(x)
        equation = f"...{first[1]},{second}f->...f"
        return layers.EinsumDense(equation, self._some(2, 6))(y)

    def _written_out(self, x):
        """Returns an attention of operations, or one without projections."""
        if self._chance(0.3):
            given = [x, self._partner(x), self._partner(x)]
            layer = layers.Attention(use_scale=self._chance(0.5))
            return layer(given[: self._some(2, 3)])
        heads, size, steps = self._some(1, 3), self._some(2, 3), x.shape[1]
        q, k, v = (
            layers.Reshape((steps, heads, size))(layers.Dense(heads * size)(y))
            for y in (x, self._one([x, self._partner(x)]), x)
        )
        if self._chance(0.5):
            y = ops.dot_product_attention(q, k, v)
        else:
            scores = ops.einsum("btnh,bsnh->bnts", q, k)
            y = ops.einsum("bnts,bsnh->btnh", ops.softmax(scores), v)
        return layers.Reshape((steps, heads * size))(y)

    def _rare(self, x):
        """Returns what is kept whole, or has groups."""
        kinds = [lambda: layers.Softmax(axis=self.axis)]
        kinds += [lambda: layers.Lambda(lambda z: 2.0 * z)]
        kinds += [lambda: self._over_channels] * 2
        if self.rank > 2 and self.channels(x) % 2 == 0:
            kinds.append(lambda: self._grouped(x))
        return self._one(kinds)()(x)

    def _over_channels(self, x):
        """Returns channels times what all have in common, or that alone."""
        reduce = self._one(
            (ops.mean, ops.max, ops.min, ops.var, ops.sum, _norm)
        )
        y = reduce(x, axis=self.axis, keepdims=True)
        y = self._one((ops.sigmoid, ops.tanh, lambda z: z))(y)
        return x * y if self._chance(0.8) else self._kernel(y)

    def _outputs(self):
        results = []
        for x in self.pool[-self._some(1, 3) :]:
            if self.rank > 2:
                kind = self._one(("Flatten", "Average", "Max"))
                if kind == "Flatten":
                    x = layers.Flatten()(x)
                else:
                    x = self._layer(f"Global{kind}Pooling")()(x)
            if self._chance(0.9):
                x = layers.Dense(2)(x)
            results.append(x)
        return results


def _norm(x, axis, keepdims):
    return ops.norm(x, axis=axis, keepdims=keepdims)


_RANKS = (0.2, 0.25, 0.25, 0.2, 0.1)


def _standardized(x, axes):
    """Returns feature maps without their means, each with its own spread."""
    mean, variance = ops.moments(x, axes, keepdims=True)
    return (x - mean) / ops.sqrt(variance + 0.1)
