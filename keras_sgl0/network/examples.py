"""How many entries of the first axis of a tensor belong to one example.

An image that is cut into windows, or a film into its pictures, becomes many
entries. What is done to each of them is done that often for one example.
"""

import keras
from keras import tree

from keras_sgl0.network.graph import fill, tensors
from keras_sgl0.network.specs import output_spec, spec_of

# What may give its outputs another number of entries than its inputs.
_REGROUPING = {"Concatenate", "Repeat", "Reshape", "Split", "Stack", "Tile"}
# So many that no size is theirs by accident.
_EXAMPLES = 7919


def entries_of_outputs(
    operation: keras.Operation, args: tuple, kwargs: dict
) -> int:
    """Returns how many entries of a call's outputs belong to one example.

    Args:
        operation: A layer or another operation.
        args: Its positional arguments, with a `Tensor` for every tensor.
        kwargs: Its keyword arguments likewise.
    """
    read = [x for x in tensors((args, kwargs)) if not x.unbatched]
    most = max((x.entries for x in read), default=1)
    if type(operation).__name__ not in _REGROUPING or not read:
        return most
    sizes = [(x.shape[0], x.entries) for x in read if x.rank]
    known = [size // own for size, own in sizes if size is not None]
    examples = known[0] if known else _EXAMPLES
    specs = {x: x.spec for x in tensors((args, kwargs))}
    for x in read:
        if x.rank:
            shape = (examples * x.entries, *x.shape[1:])
            specs[x] = spec_of(x.spec, shape=shape)
    spec_args, spec_kwargs = fill((args, kwargs), specs)
    try:
        spec = output_spec(operation, *spec_args, **spec_kwargs)
    except ValueError:  # it takes some numbers of examples alone
        return most
    number = tree.flatten(spec)[0].shape[:1]
    if number in ((), (None,)) or number[0] % examples:
        return most
    return number[0] // examples
