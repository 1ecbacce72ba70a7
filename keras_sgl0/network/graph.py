"""A model as a flat list of calls: what `network.unfolding` gives."""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import tree


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor that one call returns and others read.

    Attributes:
        spec: Its shape and dtype, the batch axis first.
        axes: The axes that its channels run over, in ascending order: one, the
            last unless set otherwise, or several. The channels of several
            axes are counted with the last one running fastest.
        optional: Whether it is an input that may be left out.
        label: What its channels are if they are inside a call, such as heads.
        unbatched: Whether it is the same for all examples, as a weight is, so
            that its first axis is none of examples.
        entries: How many entries of its first axis belong to one example.
    """

    spec: keras.KerasTensor
    axes: tuple[int, ...] = (-1,)
    optional: bool = False
    label: str = ""
    unbatched: bool = False
    entries: int = 1

    def __post_init__(self):
        self.axes = tuple(sorted(a % max(self.rank, 1) for a in self.axes))

    @property
    def axis(self) -> int | None:
        """The axis of its channels, `None` where they run over several."""
        return self.axes[0] if len(self.axes) == 1 else None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape, `None` where a size is not known."""
        return tuple(self.spec.shape)

    @property
    def rank(self) -> int:
        """The number of axes, that of the batch included."""
        return len(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of its channel axes; 1 where it is unknown or no axis."""
        if self.rank < 2 - self.unbatched:
            return (1,)
        return tuple(self.shape[a] or 1 for a in self.axes)

    @property
    def has_channels(self) -> bool:
        """Whether it has channels, and it is known how many."""
        if self.rank < 2:
            return self.unbatched
        return None not in [self.shape[axis] for axis in self.axes]

    @property
    def channels(self) -> int:
        """The number of channels."""
        return math.prod(self.sizes)

    def by_channel(self, values):
        """Returns an array of its shape as `(positions, channels)`.

        Args:
            values: The array.
        """
        if self.rank == 0:
            return np.reshape(values, (1, 1))
        places = range(-len(self.axes), 0)
        moved = np.moveaxis(np.asarray(values), self.axes, tuple(places))
        return moved.reshape(-1, self.channels)


@dataclasses.dataclass(eq=False)
class Node:
    """One call of a layer or of another operation.

    Attributes:
        operation: The layer or operation.
        path: Its name after those of the models it is in, `outer/inner`.
        args: Its positional arguments, with a `Tensor` for every tensor.
        kwargs: Its keyword arguments likewise.
        results: What it returns, a `Tensor` or a structure of them.
        reason: Why it is one call although it is made of others, empty for
            what is not.
        is_noise: Whether it is a block that changes nothing at inference, such
            as stochastic depth.
        calls: How often the operation is called in the whole model.
        masked: Whether Keras hands on masks with its inputs.
        inner: What is inside the call and has channels of its own, such as
            the heads of an attention; set with the rule of the call.
    """

    operation: keras.Operation
    path: str
    args: tuple
    kwargs: dict
    results: object
    reason: str = ""
    is_noise: bool = False
    calls: int = 1
    masked: bool = False
    inner: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def made(self) -> list[Tensor]:
        """The tensors it returns, then those inside the call."""
        return [*self.outputs, *self.inner]

    @property
    def unbatched(self) -> bool:
        """Whether its outputs are the same for all examples."""
        return all(y.unbatched for y in self.outputs)

    @property
    def type(self) -> str:
        """The name of the operation's class."""
        return type(self.operation).__name__

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return tensors((self.args, self.kwargs))

    @property
    def outputs(self) -> list[Tensor]:
        """The tensors it returns."""
        return tensors(self.results)

    def call(self, operation: Callable, values: dict[Tensor, object]):
        """Calls an operation as this one was called.

        Args:
            operation: The layer or operation to call.
            values: What to pass in the place of each tensor.
        """
        args, kwargs = fill((self.args, self.kwargs), values)
        return operation(*args, **kwargs)


@dataclasses.dataclass(eq=False)
class Graph:
    """All calls of a model in the order of computation.

    Attributes:
        inputs: The model's inputs, structured as the model wants them.
        outputs: The model's outputs, structured as the model returns them.
        nodes: The calls.
        output_names: The names of the outputs, by which losses are given: a
            model in the model gives its own name to what it makes.
    """

    inputs: object
    outputs: object
    nodes: list[Node]
    output_names: list[str]

    def by_operation(self) -> dict[int, list[Node]]:
        """Returns all calls of each operation, by the operation's `id`."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(id(node.operation), []).append(node)
        return found

    def needed(self) -> list[Node]:
        """Returns the calls that an output depends on.

        A model in the model may make outputs that nothing reads.
        """
        read, found = set(tensors(self.outputs)), []
        for node in reversed(self.nodes):
            if read.intersection(node.outputs):
                read.update(node.inputs)
                found.append(node)
        return found[::-1]


def tensors(structure) -> list[Tensor]:
    """Returns the tensors in a structure, in order.

    Args:
        structure: Any nesting of lists, tuples and dictionaries.
    """
    return [x for x in tree.flatten(structure) if isinstance(x, Tensor)]


def fill(structure, values: dict[Tensor, object]):
    """Returns a structure with other values in the place of its tensors.

    Args:
        structure: Any nesting of lists, tuples and dictionaries.
        values: One value for each tensor.
    """
    return tree.map_structure(
        lambda x: values[x] if isinstance(x, Tensor) else x, structure
    )
