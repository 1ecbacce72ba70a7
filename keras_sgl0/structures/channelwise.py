"""The rules of the layers that treat every channel alone."""

import itertools
import math

import keras
import numpy as np
from keras import ops

from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.graph import Tensor, tensors
from keras_sgl0.structures.activations import evaluate, is_elementwise
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise
from keras_sgl0.structures.slices import Rewrite, Slices, sides

_QUOTIENTS = ("Divide", "TrueDivide", "DivideNoNan")
# How far a constant that was computed may be from what the layers compute.
_NEAR = 1e-4


@rule(
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    # The operations that arithmetic on symbolic tensors records.
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide"),
    *("StopGradient", "Copy"),
    *("Maximum", "Minimum", "Negative", "Absolute", "Square", "Clip"),
    *("Sqrt", "Rsqrt", "Reciprocal", "Power", "Hypot", "Arctan2"),
    *("Cbrt", "DivideNoNan", "Fmax", "Fmin", "NanToNum"),
    *("Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Log10", "Logaddexp"),
    "Logaddexp2",
    *("Sin", "Cos", "Sinh", "Cosh", "Arctan", "Arcsinh", "Erf", "Where"),
    *("Tan", "Arcsin", "Arccos", "Arctanh", "Arccosh", "Sinc"),
    *("Erfc", "Erfinv", "Deg2rad", "Rad2deg"),
    # `keras.activations.relu` records `ReLU`, `keras.ops.relu` records `Relu`.
    *("ReLU", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu"),
    *("Sigmoid", "LogSigmoid", "SparseSigmoid", "HardSigmoid"),
    *("Silu", "HardSilu", "Mish", "Softplus", "SparsePlus", "Squareplus"),
    *("Tanh", "HardTanh", "TanhShrink", "SoftShrink", "Softsign"),
)
class Elementwise(Channelwise):
    """A function of each entry, or of the same entry of several tensors.

    An input with one channel is broadcast over those of the others and stays.
    So does one that has its channels where the others have positions, and size
    1 where they have channels, such as a factor for each position. One that is
    the same for all examples may have fewer axes.
    """

    is_entrywise = True

    several_axes = True

    _across: tuple[Tensor, ...] = ()

    @property
    def channels(self) -> int:
        """The number of channels of the output."""
        return max(x.channels for x in self._main)

    @property
    def wide(self) -> list[bool]:
        """Which inputs have as many."""
        return [
            x.channels == self.channels and x not in self._across
            for x in self.node.inputs
        ]

    @property
    def _main(self) -> list[Tensor]:
        """The inputs that have channels where the output has them."""
        return [x for x in self.node.inputs if x not in self._across]

    def refusal(self):
        layer, inputs = self.layer, self.node.inputs
        if not is_elementwise(getattr(layer, "activation", ops.relu)):
            return "its activation is not known to be elementwise"
        rank = max(x.rank for x in inputs)
        if any(x.rank < rank and not x.unbatched for x in inputs):
            return "its inputs have their channels at different axes"
        found = _at_one_place(inputs, rank)
        if found is None:
            return "its inputs have their channels at different axes"
        self._across = found
        limits = [getattr(layer, name, 0) for name in ("x_min", "x_max")]
        narrow = {x.channels for x in self._main} - {self.channels}
        spread = self.node.outputs[0].rank != rank
        if (
            spread
            or narrow - {1}
            or self._lies_across()
            or any(np.size(x) != 1 for x in limits)
        ):
            return "it broadcasts an array"
        every = keras.tree.flatten((self.node.args, self.node.kwargs))
        if any(isinstance(x, keras.Variable) for x in every):
            return "it has a variable that is in no layer"
        others = self._others()
        self._arrays = {
            place: ops.convert_to_numpy(x)
            for place, x in others.items()
            if _size(x) > 1
        }
        known = keras.tree.flatten(others)
        if sum(_size(x) > 1 for x in every) > sum(_size(x) > 1 for x in known):
            return "it broadcasts an array in a list"
        if any(self._is_wider(x) for x in self._arrays.values()):
            return "it broadcasts its input over an array"
        return ""

    def axes(self):
        """Returns the channel axes of the inputs with the most axes."""
        return max(self._main, key=lambda x: x.rank).axes

    def ties(self):
        """Returns that all channels of one number are cut together."""
        own = np.arange(self.channels)
        return [own if wide else None for wide in self.wide] + [own]

    def constants(self, input_constants):
        """Returns the function of the constants.

        Zero times all is zero, and so is zero divided by what is not known: the
        original has no number either where that is zero.
        """
        inputs = list(dict.fromkeys(self.node.inputs))
        given = dict(zip(self.node.inputs, input_constants, strict=True))
        for x in self._across:
            same = (given[x] == given[x][0]).all()
            given[x] = np.where(same, given[x][:1], np.nan)
        input_constants = [given[x] for x in self.node.inputs]
        result = evaluate(
            lambda *values: self._of(dict(zip(inputs, values, strict=True))),
            *(np.resize(given[x], self.channels) for x in inputs),
            dtype=self._wide_dtype(),
        )
        if self.node.type == "Multiply":
            factors = [
                *input_constants,
                *map(self._rows, self._arrays.values()),
            ]
            zero = [(np.atleast_2d(x) == 0).all(0) for x in factors]
            result = np.where(np.any(np.broadcast_arrays(*zero), 0), 0, result)
        args = self.node.args
        two = len(tensors(args)) == len(args) == 2
        if two and self.node.type in _QUOTIENTS:
            above, below = (given[x] for x in args)
            result = np.where((above == 0) & np.isnan(below), 0, result)
        if self.node.type == "Where" and len(args) == 3:
            # The same in both cases, whichever it is.
            first, second = (
                given[x] if isinstance(x, Tensor) else np.asarray(x)
                for x in args[1:]
            )
            if max(first.ndim, second.ndim) < 2:
                result = np.where(first == second, first, result)
        return result

    def reads(self, live, input_constants):
        """Returns that the channels of the live outputs are read."""
        pairs = zip(self.node.inputs, self.wide, strict=True)
        return [
            live if wide else np.full(x.channels, live.any())
            for x, wide in pairs
        ]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the call with what arrays have for the channels that stay."""
        args, kwargs = list(self.node.args), dict(self.node.kwargs)
        y = self.node.outputs[0]
        rows = sides(kept_outputs, y.sizes)
        changed = False
        for place, array in self._arrays.items():
            for axis, own in zip(y.axes, rows, strict=True):
                axis += array.ndim - y.rank
                if axis >= 0 and array.shape[axis] > 1:
                    array = np.compress(own, array, axis)
                    changed = True
            (args if isinstance(place, int) else kwargs)[place] = array
        return Rewrite(arguments=(tuple(args), kwargs) if changed else None)

    def _lies_across(self) -> bool:
        """Returns whether an input with one channel has more where it meets.

        One that is the same for all examples may have been turned.
        """
        rank = self.node.outputs[0].rank
        places = [axis - rank for axis in self.axes()]
        return any(
            x.shape[place] != 1
            for x, wide in zip(self.node.inputs, self.wide, strict=True)
            for place in places
            if not wide and -place <= x.rank
        )

    def _of(self, values: dict):
        """Returns the function of vectors, NaN where it varies by position."""
        y = self.node.outputs[0]
        shape = [1] * y.rank
        if shape:  # no single number
            for axis, size in zip(y.axes, y.sizes, strict=True):
                shape[axis] = size
        values = {x: ops.reshape(v, shape) for x, v in values.items()}
        result = self.node.call(self.layer, values)
        rows = y.by_channel(ops.convert_to_numpy(result)).astype("float64")
        return np.where((rows == rows[0]).all(0), rows[0], np.nan)

    def _others(self) -> dict:
        """Returns the arguments that are numbers or arrays, by their place."""
        given = dict(enumerate(self.node.args)) | self.node.kwargs
        return {
            place: x
            for place, x in given.items()
            if not tensors(x) and not isinstance(x, str | None)
        }

    def _is_wider(self, array: np.ndarray) -> bool:
        """Returns whether an array has more channels, or axes, than inputs."""
        y = self.node.outputs[0]
        if math.prod(y.shape[axis] for axis in self.axes()) != self.channels:
            return True
        if array.ndim > y.rank or not self._aligned(array)[0] == 1:
            return True
        sizes = [self._aligned(array)[axis] for axis in y.axes]
        pairs = zip(sizes, y.sizes, strict=True)
        return any(n not in (1, own) for n, own in pairs)

    def _rows(self, array: np.ndarray) -> np.ndarray:
        """Returns an array as `(positions, channels)`."""
        y = self.node.outputs[0]
        shape = list(self._aligned(array))
        array = array.reshape(shape)
        for axis, size in zip(y.axes, y.sizes, strict=True):
            shape[axis] = size
        return y.by_channel(np.broadcast_to(array, shape))

    def _aligned(self, array: np.ndarray) -> tuple[int, ...]:
        """Returns the shape of an array with as many axes as the output."""
        return (1,) * (self.node.outputs[0].rank - array.ndim) + array.shape

    def _wide_dtype(self):
        # What is compared, or chosen by, may be of integers or flags.
        every = [*self.node.outputs, *self.node.inputs]
        is_float = keras.backend.is_float_dtype
        first = next((x for x in every if is_float(x.spec.dtype)), every[0])
        return wide_dtype(first.spec)


def _at_one_place(inputs, rank: int) -> tuple[Tensor, ...] | None:
    """Returns the inputs whose channels are at other axes than the others'.

    They have size 1 where the others have channels. Nothing is returned where
    it is not clear which these are.
    """
    # From the last one, as broadcasting has it.
    places = {
        x: tuple(axis - x.rank for axis in x.axes)
        for x in inputs
        if x.rank == rank or x.channels > 1
    }
    found = []
    for place in set(places.values()):
        others = [x for x, own in places.items() if own != place]
        sizes = [x.shape[a] for x in others for a in place if -a <= x.rank]
        here = [x.rank for x, own in places.items() if own == place]
        if all(n == 1 for n in sizes) and max(here) == rank:
            found.append(tuple(others))
    return found[0] if len(found) == 1 else None


def _size(x) -> int:
    """Returns the number of entries, 1 of what is neither number nor array."""
    return 1 if isinstance(x, Tensor | str | None) else math.prod(np.shape(x))


@rule(
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalXor", "LogicalNot", "Isfinite"),
    *("Sign", "Floor", "Ceil", "Round", "HardShrink", "Threshold"),
    *("FloorDivide", "Mod", "Fmod", "Trunc", "Heaviside", "Signbit"),
    *("Isnan", "Isinf", "Cast", "SaturateCast", "ConvertToTensor"),
)
class Jumping(Elementwise):
    """A function of each entry that jumps, as comparisons and rounding do.

    A constant other than 0 is known up to rounding only. Where the function
    jumps close to it, its value is not known.
    """

    def constants(self, input_constants):
        """Returns the values that are the same around the constants."""
        near = [
            super(Jumping, self).constants(
                [
                    c + sign * _NEAR * (np.abs(c) + _NEAR) * (c != 0)
                    for c, sign in zip(input_constants, signs, strict=True)
                ]
            )
            for signs in itertools.product(
                (-1, 0, 1), repeat=len(input_constants)
            )
        ]
        known = np.ptp(near, axis=0) <= 3 * _NEAR * (np.abs(near[0]) + _NEAR)
        return np.where(known, super().constants(input_constants), np.nan)


@rule("ZerosLike", "OnesLike")
class Filled(Channelwise):
    """The same number everywhere, whatever is there."""

    several_axes = True

    def constants(self, input_constants):
        """Returns the number."""
        number = float(self.node.type == "OnesLike")
        return np.full(self.node.outputs[0].channels, number)

    def reads(self, live, input_constants):
        """Returns that nothing is read."""
        return [np.zeros(self.node.inputs[0].channels, bool)]


@rule(keras.layers.PReLU)
class PReLU(Channelwise):
    """A slope for negative entries, at each position or shared."""

    def slices(self):
        """Returns the slopes, if each channel has its own."""
        axis = self.node.inputs[0].axes[0] - 1
        own = np.arange(self.node.inputs[0].channels)
        if self.layer.alpha.shape[axis] == 1 < len(own):
            return []
        return [Slices("alpha", axis, own, "follower")]

    def constants(self, input_constants):
        """Returns the constant, times the slope where it is negative."""
        alpha = self._by_channel()
        same = (alpha == alpha[:1]).all(0)
        value = np.where(
            input_constants[0] < 0,
            alpha[0] * input_constants[0],
            input_constants[0],
        )
        return np.where(same | ~(input_constants[0] < 0), value, np.nan)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the layer with the slopes of the channels that stay."""
        alpha = self.values(self.layer.alpha)
        axis = self.node.inputs[0].axes[0] - 1
        if alpha.shape[axis] > 1:
            alpha = np.compress(kept_outputs, alpha, axis)
        return Rewrite({}, {"alpha": alpha})

    def _by_channel(self):
        """Returns the slopes as a matrix `(positions, channels or 1)`."""
        axis = self.node.inputs[0].axes[0] - 1
        alpha = np.moveaxis(self.values(self.layer.alpha), axis, -1)
        return alpha.reshape(math.prod(alpha.shape[:-1]), -1)
