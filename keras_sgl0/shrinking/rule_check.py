"""Tests the rule of a layer on random weights."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers, ops

from keras_sgl0.network.graph import Graph, Tensor, tensors
from keras_sgl0.network.unfolding import trace
from keras_sgl0.shrinking.shrink import shrink
from keras_sgl0.structures.discovery import find_rules
from keras_sgl0.structures.families import structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.liveness import Liveness
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.structures.selection import random_half
from keras_sgl0.utils.tables import Report
from keras_sgl0.utils.validation import integer, require

# Float32 does not do better after some layers.
_EXACT = 1e-5
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class RuleCheck(Report):
    """What `check_rule` has tested.

    Attributes:
        rules: The name of the rule of each call, by the call's path.
        structures: How many structures the small network has.
        cut: How many channels were cut over all trials.
        relative_difference: The largest difference of outputs, as a share of
            the largest output.
    """

    rules: dict[str, str]
    structures: int
    cut: int
    relative_difference: float

    def __str__(self) -> str:
        rules = ", ".join(
            f"{path}: {name}" for path, name in self.rules.items()
        )
        return (
            f"{rules}; {self.structures} structures, {self.cut} cut, outputs "
            f"within {self.relative_difference:.0e}"
        )


def check_rule(
    layer: Callable,
    input_shape: Sequence,
    trials: int = 4,
    seed: int = 0,
) -> RuleCheck:
    """Tests the rule of a layer on random weights.

    It puts the layer between dense layers that make its input channels and
    dense layers that read its output channels, and tries in turn: random
    weights, some slices of which are zero; inputs that are zero or constant;
    half of the structures set to zero. Each time

    * what the rules say is constant must be that constant in every tensor,
    * the outputs of the network that `shrink` leaves must be equal to 1e-5,
    * its parameters and multiply-adds must be those that `structures` says.

    Args:
        layer: A layer, not built yet, which is called on the input, or on a
            list of several; or a function that calls layers, with one argument
            for each input, such as `lambda x: attention(x, x)`.
        input_shape: The shape of one example, such as `(8, 8, 6)`, channels
            last; a list of shapes for several inputs.
        trials: How many times each of the three is tried. At least 1.
        seed: The seed of the random numbers.

    Returns:
        A `RuleCheck`.

    Raises:
        ValueError: If an argument is out of range, or the layer cannot be
            called on such inputs.
        AssertionError: If a call has no rule, or a rule is wrong.

    Example:
        >>> @ks.rule(MyScale)
        ... class _MyScale(ks.rules.Channelwise): ...
        >>> print(ks.check_rule(MyScale(), (8, 8, 6)))
    """
    integer("trials", trials, at_least=1)
    integer("seed", seed, at_least=0)
    require(callable(layer), "layer", "a layer or a function", layer)
    network = _Network(layer, _shapes(input_shape), seed)
    cut, largest = 0, 0.0
    for _ in range(trials):
        for change in (network.fill, network.hold, network.zero_structures):
            predicted = change()
            network.assert_constants()
            small, difference = network.shrunk()
            largest = max(largest, difference)
            cut += network.assert_cost(small, predicted)
    return RuleCheck(network.rules, network.found.size, cut, largest)


def _shapes(given) -> list[tuple[int, ...]]:
    several = isinstance(given, list)
    shapes = given if several else [given]
    require(
        len(shapes) > 0
        and all(
            isinstance(shape, Sequence)
            and len(shape) > 0
            and all(isinstance(n, int) and n > 0 for n in shape)
            for shape in shapes
        ),
        "input_shape",
        "the sizes of one example, or a list of such shapes",
        given,
    )
    return [tuple(shape) for shape in shapes]


class _Network:
    """The layer between layers that make and that read its channels."""

    def __init__(self, layer, shapes, seed):
        self._rng = np.random.default_rng(seed)
        keras.utils.set_random_seed(seed)
        inputs = [keras.Input(shape) for shape in shapes]
        self._makers = [
            layers.Dense(shape[-1], name=f"maker_{i}")
            for i, shape in enumerate(shapes)
        ]
        made = [maker(x) for maker, x in zip(self._makers, inputs, strict=True)]
        try:
            several = isinstance(layer, keras.layers.Layer) and len(made) > 1
            results = layer(made) if several else layer(*made)
            results = keras.tree.flatten(results)
        except Exception as error:
            raise ValueError(
                "Invalid value for argument `input_shape`. Expected shapes "
                f"that `layer` can be called on. Received: {shapes} ({error})"
            ) from error
        self._assert_rules(trace(keras.Model(inputs, results)))
        outputs = [self._read(i, y) for i, y in enumerate(results)]
        self.model = keras.Model(inputs, outputs)
        self.found = structures(self.model)
        self._start = self.model.get_weights()

    def _assert_rules(self, graph: Graph):
        """Finds the rules and where they have the channels of the outputs."""
        rules = find_rules(graph)
        makers = {id(maker) for maker in self._makers}
        own = {n: r for n, r in rules.items() if id(n.operation) not in makers}
        for node, rule in own.items():
            # What is computed from constants alone has no channels.
            assert node.unbatched or not isinstance(rule, Opaque), (
                f"`{node.path}` ({node.type}) stays whole: {rule.reason}"
            )
        self.rules = {n.path: type(rule).__name__ for n, rule in own.items()}
        self._axes = [y.axes for y in tensors(graph.outputs)]

    def _read(self, i, y):
        """Returns what a dense layer makes of the channels of an output."""
        axes = self._axes[i]
        if not keras.backend.is_float_dtype(y.dtype):
            return y
        rank = len(y.shape)
        others = [a for a in range(1, rank) if a not in axes]
        if axes != (rank - 1,):
            order = (*others, *axes)
            y = layers.Permute(order, name=f"reader_{i}_order")(y)
        if len(axes) > 1:
            sizes = [n or -1 for n in y.shape[1 : 1 + len(others)]]
            channels = int(np.prod(y.shape[1 + len(others) :]))
            y = layers.Reshape((*sizes, channels), name=f"reader_{i}_row")(y)
        return layers.Dense(2, name=f"reader_{i}")(y)

    def fill(self):
        """Sets random weights, some slices of which are zero."""
        self.model.set_weights(self._start)
        for v in self.model.weights:
            if not keras.backend.is_float_dtype(v.dtype):
                continue
            value = self._rng.normal(size=v.shape)
            if v.name.endswith(("variance", "stddev", "scale", "gamma")):
                value = np.abs(value) + 0.5
            if len(v.shape) > 1:
                value *= (v.shape[-1] / value.size) ** 0.5
            if len(v.shape) and not v.name.endswith(
                ("variance", "stddev", "mean")
            ):
                axis = int(self._rng.integers(len(v.shape)))
                alive = self._rng.random(v.shape[axis]) < 0.7
                others = [a for a in range(len(v.shape)) if a != axis]
                value = value * np.expand_dims(alive, others)
            v.assign(value)

    def hold(self):
        """Lets some of the layer's input channels be constant, half at 0."""
        self.fill()
        for maker in self._makers:
            kernel, bias = map(ops.convert_to_numpy, (maker.kernel, maker.bias))
            held = self._rng.random(maker.units) < 0.5
            zero = self._rng.random(maker.units) < 0.5
            maker.kernel.assign(kernel * ~held)
            maker.bias.assign(np.where(held & zero, 0, bias))

    def zero_structures(self):
        """Sets half of the structures to zero; returns the predicted cost."""
        for v in self.model.weights:
            if keras.backend.is_float_dtype(v.dtype):
                size = v.shape[0] if len(v.shape) else 1
                v.assign(self._rng.uniform(0.5, 1.5, v.shape) / size)
        dead = random_half(self.found, self._rng)
        self.found.zero(dead)
        return self.found.cost(~dead)

    def assert_constants(self):
        """Compares what is constant by the rules with all tensors."""
        graph = trace(self.model)
        liveness = Liveness(graph, ops.convert_to_numpy, "keep")
        liveness.forward({})
        flat = FlatCopy(graph, "tensors")
        every = [
            y
            for node in graph.nodes
            for y in node.outputs
            if not np.isnan(liveness.constants[y]).all()
        ]
        if not every:
            return
        view = keras.Model(flat.model.inputs, [flat.made[y] for y in every])
        results = view([self._random(x) for x in tensors(graph.inputs)])
        for y, values in zip(every, keras.tree.flatten(results), strict=True):
            expected = liveness.constants[y]
            found = y.by_channel(ops.convert_to_numpy(values))
            scale = np.abs(found).max() or 1.0
            away = np.abs(found - expected).max(0) / scale
            wrong = np.flatnonzero(away > _EXACT)
            maker = next(n for n in graph.nodes if y in n.outputs)
            assert not len(wrong), (
                f"`constants` of `{maker.path}`: channel {wrong[0]} is said to "
                f"be {expected[wrong[0]]:.6g}, but has values from "
                f"{found[:, wrong[0]].min():.6g} to "
                f"{found[:, wrong[0]].max():.6g}"
            )

    def _random(self, x: Tensor):
        shape = [_EXAMPLES, *(n or 1 for n in x.shape[1:])]
        return ops.convert_to_tensor(
            self._rng.normal(size=shape), dtype=x.spec.dtype
        )

    def shrunk(self):
        """Returns the smaller network, and how far its outputs are off."""
        small, report = shrink(self.model, 0)
        difference = report.relative_difference or 0.0
        assert difference <= _EXACT, (
            "`reads`, `ties`, `constants` or `rewrite`: the outputs of the "
            f"smaller network differ by {difference:.2g}, relative\n{report}"
        )
        return small, difference

    def assert_cost(self, small, predicted) -> int:
        """Compares the cost with the predicted one; returns what was cut."""
        before, after = self.found.cost(), structures(small).cost()
        if predicted is not None:
            pairs = [
                (name, getattr(predicted, name), getattr(after, name))
                for name in ("parameters", "macs")
            ]
            for name, expected, received in pairs:
                assert expected == received, (
                    f"`slices`: half of the structures gone should leave "
                    f"{expected:,} {name}, `shrink` leaves {received:,}"
                )
        return before.channels - after.channels
