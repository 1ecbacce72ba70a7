"""Calls a model in little memory."""

import collections
import math
from collections.abc import Sequence

import keras
from keras import tree

from keras_sgl0.network.calls import Call
from keras_sgl0.network.guards import in_mode
from keras_sgl0.network.unfolding import has_mode
from keras_sgl0.network.views import calls_of, functional_view


def run(model: keras.Model, inputs: object) -> list:
    """Returns the outputs of a model at test time, as a flat list.

    It makes the calls that the model makes, of its own layers as they are.
    Each tensor is given up after it was read for the last time, while a call
    of the model holds all of them.

    Args:
        model: A built model. A subclassed one is just called.
        inputs: What to call it on, structured as it wants them.
    """
    view = functional_view(model)
    if view is None:
        return tree.flatten(model(inputs, training=False))
    walk = Walk(view, inputs, view.outputs)
    return [walk.take(y) for y in view.outputs]


class Walk:
    """The calls of a model on a batch, made when its outputs are taken.

    They are made at test time, of the model's own layers as they are then.
    Each tensor is given up after it was read for the last time.

    Args:
        view: A Functional model.
        inputs: What to call it on, structured as it wants them.
        outputs: Those of its outputs that will be taken.
    """

    def __init__(
        self,
        view: keras.Model,
        inputs: object,
        outputs: Sequence[keras.KerasTensor],
    ):
        given = view._standardize_inputs(inputs)
        self._values = dict(zip(map(id, view.inputs), given, strict=True))
        self._calls = self._leading_to(outputs, calls_of(view))
        self._reads = collections.Counter(
            [i for call in self._calls for i in _read(call)]
            + [id(y) for y in outputs]
        )

    def take(self, y: keras.KerasTensor):
        """Makes the calls that lead to an output, and returns its value.

        Args:
            y: An output that was not taken yet.
        """
        for call in self._leading_to([y], self._calls):
            self._make(call)
        value = self._values[id(y)]
        self._has_read(id(y))
        return value

    def held(self) -> int:
        """Returns how many numbers the tensors have that it holds."""
        return sum(math.prod(x.shape) for x in self._values.values())

    def _leading_to(self, outputs, calls) -> list[Call]:
        """Returns the calls that are still to be made for some tensors."""
        wanted = {id(y) for y in outputs} - self._values.keys()
        found = []
        for call in reversed(calls):
            if any(id(y) in wanted for y in call.outputs):
                found.append(call)
                wanted.update(i for i in _read(call) if i not in self._values)
        return found[::-1]

    def _make(self, call):
        def value(x):
            if isinstance(x, keras.KerasTensor):
                return self._values[id(x)]
            return x

        args, kwargs = tree.map_structure(value, (call.args, call.kwargs))
        if has_mode(call.operation):
            # What a call of the whole model is told comes before all else.
            kwargs["training"] = False
        # A layer that takes no mode has others in it that ask for one.
        with in_mode(False):
            results = tree.flatten(call.operation(*args, **kwargs))
        for y, result in zip(call.outputs, results, strict=True):
            if self._reads[id(y)]:
                self._values[id(y)] = result
        for i in _read(call):
            self._has_read(i)

    def _has_read(self, i):
        self._reads[i] -= 1
        if not self._reads[i]:
            del self._values[i]


def _read(call) -> list[int]:
    """Returns the `id` of each tensor that a call reads."""
    every = tree.flatten((call.args, call.kwargs))
    return [id(x) for x in every if isinstance(x, keras.KerasTensor)]
