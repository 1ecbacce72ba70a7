"""Two recordings of one layer as one: what they have in common.

A layer is recorded in both modes, and where it asks for the batch size with
two of them. What is the same in both is so always; what differs with the mode
or the batch size must be something that a Functional model can leave open.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sgl0.network.calls import Call, calls_behind
from keras_sgl0.network.guards import NotTraced
from keras_sgl0.network.own_weights import is_array

# Calls of them may have a constant with one row for all examples.
_BROADCASTING = (
    "Add And Divide Equal Greater GreaterEqual Less LessEqual LogicalAnd "
    "LogicalOr Maximum Minimum Multiply NotEqual Subtract TrueDivide Where"
).split()
# Calls of them may have a constant with equal rows, one for each example.
_JOINING = {"Concatenate", "Stack"}
# Calls of them may repeat a row for each example.
_REPEATING = {"Tile", "Repeat", "BroadcastTo"}


class Recording(NamedTuple):
    """What a layer does.

    Args:
        given: The symbolic tensors it is given.
        calls: The calls in it, in the order of computation.
        outputs: What it returns, symbolic tensors in any structure.
    """

    given: list[keras.KerasTensor]
    calls: list[Call]
    outputs: Any


class Agreement:
    """What two recordings of one layer have in common.

    Args:
        given: The symbolic tensors that the layer is given in the result.
        first: A recording, at test time if the modes differ.
        second: Another one, in training if the modes differ.

    Attributes:
        recording: The recording that stands for both.

    Raises:
        NotTraced: If they do not agree.

    Example:
        >>> Agreement(given, test, train).recording.calls
    """

    def __init__(
        self,
        given: list[keras.KerasTensor],
        first: Recording,
        second: Recording,
    ):
        self._common: dict[int, keras.KerasTensor] = {}
        self._pair(first.given, second.given, given)
        every = zip(given, first.given, second.given, strict=True)
        # Given tensors with examples, and how many there are in both.
        self._examples = [
            (x, y.shape[0], z.shape[0])
            for x, y, z in every
            if x.shape[:1] == (None,) and not x.sparse
        ]
        if len(first.calls) != len(second.calls):
            raise NotTraced(_MODE)
        pairs = zip(first.calls, second.calls, strict=True)
        calls = [call for a, b in pairs for call in self._calls(a, b)]
        outputs = self._both(first.outputs, second.outputs, _MODE)
        self.recording = Recording(given, calls, outputs)

    def _pair(self, first, second, common):
        for x, y, z in zip(first, second, common, strict=True):
            self._common[id(x)] = self._common[id(y)] = z

    def _calls(self, a: Call, b: Call) -> list[Call]:
        """Returns the call that stands for two, or those that do."""
        kinds = {type(call.operation).__name__ for call in (a, b)}
        if len(kinds) == 1 and kinds <= _REPEATING:
            repeated = self._repeated(a, b)
            if repeated is not None:
                return repeated
        before: list[Call] = []
        if len(kinds) == 1 and kinds <= _JOINING:
            a, b = self._with_rows(a, b, before)
        return [*before, self._call(a, b)]

    def _with_rows(self, a: Call, b: Call, before: list[Call]):
        """Returns two calls on tensors in place of constants of the batch size.

        Args:
            a: A call on a list of tensors.
            b: The same call with another batch size.
            before: Gets the calls that make these tensors.
        """
        given = [list(call.args[0]) for call in (a, b)]
        for i, (x, y) in enumerate(zip(*given, strict=False)):
            if not (is_array(x) and is_array(y)):
                continue
            like = self._with_examples(x.shape[0], y.shape[0])
            row = _common_row(x, y)
            if like is None or row is None:
                continue
            found = like_examples(ops.convert_to_tensor(row), like)
            before += calls_behind(found, {id(like)})
            for own, value in zip(given, (x, y), strict=True):
                own[i] = keras.KerasTensor(value.shape, found.dtype)
            self._pair([given[0][i]], [given[1][i]], [found])
        pair = zip((a, b), given, strict=True)
        return [call._replace(args=(own, *call.args[1:])) for call, own in pair]

    def _repeated(self, a: Call, b: Call) -> list[Call] | None:
        """Returns calls that give one row to each example.

        A zero for each example is taken off it, as the number of examples
        stands in no call then.

        Returns:
            `None` if the calls do something else.
        """
        y, z = a.outputs[0], b.outputs[0]
        like = self._with_examples(y.shape[0], z.shape[0])
        if like is None or len(a.args) != 1:
            return None
        common = self._both(a.args[0], b.args[0], a.operation.name)
        outer = len(y.shape) - len(common.shape)
        if y.shape[1:] != z.shape[1:] or not (outer or common.shape[0] == 1):
            return None
        row, shape = common, (1, *y.shape[1:])
        if row.shape != shape:
            row = ops.reshape(row, (1,) * outer + row.shape)
            repeats = [n // m for n, m in zip(shape, row.shape, strict=True)]
            row = ops.tile(row, repeats) if set(repeats) > {1} else row
        found = like_examples(row, like)
        self._pair([y], [z], [found])
        return calls_behind(found, {id(common), id(like)})

    def _with_examples(self, first: int | None, second: int | None):
        """Returns a given tensor of as many examples, `None` if none is."""
        return next(
            (
                x
                for x, *sizes in self._examples
                if sizes == [first, second] and first != second
            ),
            None,
        )

    def _call(self, a: Call, b: Call) -> Call:
        kwargs, others = a.kwargs, b.kwargs
        modes = (kwargs.get("training", False), others.get("training", True))
        if modes == (False, True):
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
            others = {k: v for k, v in others.items() if k != "training"}
        elif kwargs.get("training") is not None:
            # In a Functional model the mode of the model would come first.
            raise NotTraced(f"`{a.operation.name}` in it has a fixed mode")
        outputs = [_common_spec(x, y) for x, y in _zip(a.outputs, b.outputs)]
        operation = self._operation(a, b, outputs)
        kind, name = type(operation).__name__, operation.name
        args = self._both(a.args, b.args, name, kind in _BROADCASTING)
        if kwargs.keys() != others.keys():
            raise NotTraced(_MODE)
        kwargs = {
            key: self._both(value, others[key], name, "mask" in key)
            for key, value in kwargs.items()
        }
        self._pair(a.outputs, b.outputs, outputs)
        return Call(operation, args, kwargs, outputs)

    def _operation(self, a, b, outputs):
        """Returns what both call; of reshaping with any batch size."""
        first, second = a.operation, b.operation
        if first is second:
            return first
        if type(first) is not type(second) or getattr(first, "variables", None):
            raise NotTraced(_MODE)
        configs = first.get_config(), second.get_config()
        if configs[0] == configs[1]:
            return first
        if type(first).__name__ != "Reshape":
            raise NotTraced(f"`{first.name}` is given the batch size")
        sizes = [
            -1 if n != m else known if n == -1 else n
            for n, m, known in zip(
                configs[0]["newshape"],
                configs[1]["newshape"],
                outputs[0].shape,
                strict=True,
            )
        ]
        if None in sizes or sizes.count(-1) > 1:
            raise NotTraced(f"`{first.name}` makes sizes of the batch size")
        return type(first).from_config(configs[0] | {"newshape": sizes})

    def _both(self, a, b, name, broadcasts=False):
        """Returns what stands for two arguments.

        Args:
            a: One of them.
            b: The other one.
            name: Whose they are.
            broadcasts: Whether one row may stand for all examples.
        """
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            return {k: self._both(a[k], b[k], name, broadcasts) for k in a}
        if isinstance(a, list | tuple) and type(a) is type(b):
            both = [self._both(x, y, name, broadcasts) for x, y in _zip(a, b)]
            return _like(a, both)
        if isinstance(a, keras.KerasTensor):
            common = self._common.get(id(a))
            if common is None or self._common.get(id(b)) is not common:
                raise NotTraced(_MODE)
            return common
        if is_array(a):
            return _common_constant(a, b, name, broadcasts)
        if type(a) is not type(b) or a != b:
            raise NotTraced(_MODE)
        return a


_MODE = "what it does depends on `training` or on the batch size"


def like_examples(row: keras.KerasTensor, x: keras.KerasTensor):
    """Returns a row for each example.

    Args:
        row: The row, with a first axis of size 1.
        x: A tensor of as many examples.
    """
    dtype = "int32" if row.dtype == "bool" else row.dtype
    zero = ops.zeros_like(x, dtype=dtype)
    if len(x.shape) > 1:
        zero = ops.sum(zero, tuple(range(1, len(x.shape))), keepdims=True)
    zero = ops.reshape(zero, (-1,) + (1,) * (len(row.shape) - 1))
    # Keras on TensorFlow may take a sum with `(batch, 1, 1)` for a bias.
    y = ops.subtract(row, zero)
    return y if y.dtype == row.dtype else ops.cast(y, row.dtype)


def _zip(a, b):
    if len(a) != len(b):
        raise NotTraced(_MODE)
    return zip(a, b, strict=True)


def _like(a, values):
    """Returns values in a list, tuple or named tuple like another one."""
    return type(a)(*values) if hasattr(a, "_fields") else type(a)(values)


def _common_spec(x, y) -> keras.KerasTensor:
    """Returns a symbolic tensor, the size that differs being left open."""
    if x.shape == y.shape:
        return x
    if len(x.shape) != len(y.shape):
        raise NotTraced(_MODE)
    pairs = zip(x.shape, y.shape, strict=True)
    shape = tuple(n if n == m else None for n, m in pairs)
    if shape.count(None) > 1:
        raise NotTraced("the examples are on several axes")
    return keras.KerasTensor(shape, x.dtype, sparse=x.sparse)


def _common_constant(a, b, name, broadcasts):
    """Returns the constant that stands for two."""
    if np.array_equal(*map(ops.convert_to_numpy, (a, b))):
        return a
    if not broadcasts or _common_row(a, b) is None:
        raise NotTraced(f"`{name}` is given a constant of the batch size")
    return a[:1]


def _common_row(a, b) -> np.ndarray | None:
    """Returns the row that all rows of two arrays are, `None` if not."""
    arrays = [ops.convert_to_numpy(c) for c in (a, b)]
    rows = [c[:1] for c in arrays if c.ndim and (c == c[:1]).all()]
    same = len(rows) == 2 and np.array_equal(*rows)
    return rows[0] if same else None
