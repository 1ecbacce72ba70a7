"""Calls a model in little memory."""

import collections

import keras
from keras import tree

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
    calls = calls_of(view)
    reads = collections.Counter(i for call in calls for i in _read(call))
    reads.update(id(y) for y in view.outputs)
    given = view._standardize_inputs(inputs)
    values = dict(zip(map(id, view.inputs), given, strict=True))

    def value(x):
        return values[id(x)] if isinstance(x, keras.KerasTensor) else x

    for call in calls:
        if any(i not in values for i in _read(call)):
            continue  # Keras does the same: it leads to no output
        args, kwargs = tree.map_structure(value, (call.args, call.kwargs))
        if has_mode(call.operation):
            # What a call of the whole model is told comes before all else.
            kwargs["training"] = False
        # A layer that takes no mode has others in it that ask for one.
        with in_mode(False):
            results = tree.flatten(call.operation(*args, **kwargs))
        values.update(zip(map(id, call.outputs), results, strict=True))
        for i in _read(call):
            reads[i] -= 1
            if not reads[i]:
                del values[i]
    return [values[id(y)] for y in view.outputs]


def _read(call) -> list[int]:
    """Returns the `id` of each tensor that a call reads."""
    every = tree.flatten((call.args, call.kwargs))
    return [id(x) for x in every if isinstance(x, keras.KerasTensor)]
