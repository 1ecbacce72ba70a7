"""The shapes of a model's inputs, where the user gives them."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_sgl0.utils.validation import require


def given_shapes(
    inputs: dict[str, keras.KerasTensor], given: Any
) -> dict[str, tuple[int | None, ...]]:
    """Returns the shapes of the inputs whose sizes the user gives, by name.

    Args:
        inputs: The inputs of a model by name, in its order.
        given: The sizes of one example: a shape, for several inputs a list,
            or a dictionary by name; `None` for none.

    Raises:
        ValueError: If they do not fit the inputs.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        shapes = given
        fits = set(given) <= set(inputs)
    else:
        several = len(inputs) > 1 or isinstance(given, list)
        every = list(given) if several else [given]
        fits = len(every) == len(inputs)
        shapes = dict(zip(inputs, every, strict=fits))
    known = {
        name: shapes[name] for name in inputs if shapes.get(name) is not None
    }
    require(
        fits
        and all(
            _fits_sizes(shape, inputs[name].shape[1:])
            for name, shape in known.items()
        ),
        "input_shapes",
        "the sizes of one example for each input: "
        + ", ".join(f"{name} {x.shape[1:]}" for name, x in inputs.items()),
        given,
    )
    return {n: (inputs[n].shape[0], *shape) for n, shape in known.items()}


def _fits_sizes(shape, sizes) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) == len(sizes)
        and all(
            isinstance(n, int) and n > 0 and known in (None, n)
            for n, known in zip(shape, sizes, strict=True)
        )
    )
