r"""How much each structure of a trained network matters.

Each function here takes the structures of a model and returns one score for
each; the lowest go first.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.compression.brain_surgeon import losses
from keras_sgl0.compression.discrimination import discrimination
from keras_sgl0.groups import other_axes
from keras_sgl0.network.batches import batches_for
from keras_sgl0.network.gradients import copy, loss_gradients, without_penalties
from keras_sgl0.structures.discovery import SlicedVariable
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.utils.validation import InputError, require

Members = list[np.ndarray]
Importance = str | Callable[[Members], np.ndarray]


class Sources(NamedTuple):
    """What scores are computed from.

    Args:
        model: The model.
        structures: Its structures.
        data: What `fit` takes, `None` for none.
        batch_size: How many examples of arrays to take at a time.
        seed: The seed of random scores.
    """

    model: keras.Model
    structures: Structures
    data: object = None
    batch_size: int = 32
    seed: int = 0


def scores(importance: Importance, sources: Sources) -> np.ndarray:
    """Returns one score for each structure, see `prune`.

    Args:
        importance: A name in `IMPORTANCES`, or a function.
        sources: What they are computed from.

    Raises:
        ValueError: If it is unknown, does not give one finite number for each
            structure, or needs data that are not given or layers that a
            family does not have.
    """
    require_importance(importance)
    if isinstance(importance, str):
        found = IMPORTANCES[importance](sources)
    else:
        found = _by_family(sources.structures, importance)
    if not np.isfinite(found).all():
        raise InputError(
            "A score of a structure is not finite. Look for values in the "
            f"weights or `data` that are not. Received: {importance=}"
        )
    return found


def require_importance(importance: Importance):
    """Raises where it is neither a known name nor a function.

    Args:
        importance: As in `prune`.

    Raises:
        ValueError: If so.
    """
    known = ", ".join(f'"{name}"' for name in IMPORTANCES)
    require(
        callable(importance)
        or (isinstance(importance, str) and importance in IMPORTANCES),
        "importance",
        f"one of {known}, or a function of the members of a family",
        importance,
    )


def magnitude_l1(members: Members) -> np.ndarray:
    r"""Returns the sum of `|w|` over the members of each structure.

    Args:
        members: One matrix for each variable, a structure's slice in a row.
    """
    return np.sum([np.abs(rows).sum(1) for rows in members], axis=0)


def magnitude_l2(members: Members) -> np.ndarray:
    r"""Returns the l2 norm of the members of each structure.

    Args:
        members: One matrix for each variable, a structure's slice in a row.
    """
    squares = [np.square(rows).sum(1) for rows in members]
    return np.sqrt(np.sum(squares, axis=0))


def _distances(members: Members) -> np.ndarray:
    """Returns the sum of distances to the other structures' filters."""
    total = np.zeros(len(members[0]))
    for rows in members:
        squares = np.square(rows).sum(1)
        products = squares[:, None] + squares - 2 * rows @ rows.T
        total += np.sqrt(np.maximum(products, 0)).sum(1)
    return total


def _scales(members: Members) -> np.ndarray:
    return np.sum([np.abs(rows).mean(1) for rows in members], axis=0)


def _is_filter(entry: SlicedVariable) -> bool:
    return entry.is_kernel and entry.makes_channels


def _is_gamma(entry: SlicedVariable) -> bool:
    return entry.variable.name == "gamma"


def _random(sources: Sources) -> np.ndarray:
    draw = np.random.default_rng(sources.seed)
    return draw.uniform(size=sources.structures.size)


def _bn_scale(sources: Sources) -> np.ndarray:
    return _by_family(
        sources.structures, _scales, _is_gamma, "normalization with gamma"
    )


def _fpgm(sources: Sources) -> np.ndarray:
    return _by_family(sources.structures, _distances, _is_filter, "kernel")


def _taylor(sources: Sources) -> np.ndarray:
    r"""Returns the mean squared first-order change of the loss.

    A structure is read by slices `w` of kernels. Setting all that is read to
    zero changes the loss by `-sum w * dL/dw` to first order.
    """
    found, model = sources.structures, sources.model
    _require_data(sources, "taylor")
    require(
        model.compiled,
        "model",
        'a compiled model, as importance="taylor" needs its loss',
        model,
    )
    entries = [e for e in found.variables if e.along("reader")]
    variables = [entry.variable for entry in entries]
    total, number = np.zeros(found.size), 0
    with without_penalties(model):
        gradients = loss_gradients(model, variables)
        values = [copy(variable) for variable in variables]
        arrays = [_array(value) for value in values]
        for batch in _some(sources):
            changes = np.zeros(found.size + 1)
            pairs = zip(arrays, gradients(values, batch), strict=True)
            for entry, (w, gradient) in zip(entries, pairs, strict=True):
                product = w * _array(gradient)
                for sliced in entry.along("reader"):
                    own = product.sum(other_axes(w.shape, sliced.axis))
                    np.add.at(changes, sliced.structures, own)
            total += np.square(changes[:-1])  # -1 is for what is in none
            number += 1
    return total / number


def _active(sources: Sources) -> np.ndarray:
    """Returns how often what is read of a structure is not zero."""
    found = sources.structures
    _require_data(sources, "apoz")
    flat = FlatCopy(found.discovery.graph, "activations")
    read = dict.fromkeys(
        own.channels_of(node)
        for node, rule in found.discovery.rules.items()
        for own in rule.slices()
        if own.role == "reader"
        and own.channels_of(node) in flat.made
        and (found.discovery.channels[own.channels_of(node)] >= 0).any()
    )
    view = keras.Model(flat.model.inputs, [flat.made[x] for x in read])
    active, places = np.zeros(found.size + 1), np.zeros(found.size + 1)
    for x, _, _ in _some(sources):
        inputs = tree.flatten(x)
        results = tree.flatten(view.predict_on_batch(inputs))
        for tensor, values in zip(read, results, strict=True):
            own = found.discovery.channels[tensor]
            alive = (tensor.by_channel(values) != 0).sum(0)
            np.add.at(active, own, alive)
            np.add.at(places, own, values.size / len(own))
    _require_measured(found, places[:-1] > 0)
    return active[:-1] / np.maximum(places[:-1], 1)


def _require_measured(found, measured):
    """Raises if channels inside calls, such as heads, have no activations."""
    inside = np.zeros(found.size + 1, bool)
    for node in found.discovery.graph.nodes:
        for x in node.inner:
            inside[found.discovery.channels[x]] = True
    for family in np.unique(found.families[inside[:-1] & ~measured]).tolist():
        raise InputError(
            "A family of channels is inside a layer, where activations are "
            f"not measured: {', '.join(found.made_by(family))}. Choose "
            "another `importance`."
        )


def _dcp(sources: Sources) -> np.ndarray:
    _require_data(sources, "dcp")
    return discrimination(sources.structures, _some(sources))


def _obs(sources: Sources) -> np.ndarray:
    """Returns what readers lose; where there are none, what weights do."""
    _require_data(sources, "obs")
    found = losses(sources.structures, _some(sources))
    if not np.isnan(found).any():
        return found
    shares = _by_family(sources.structures, _shares_lost)
    return np.where(np.isnan(found), shares, found)


def _shares_lost(members: Members) -> np.ndarray:
    """Returns the share of the squares of a structure and all smaller ones."""
    squares = np.square(magnitude_l2(members))
    order = np.argsort(squares, kind="stable")
    shares = np.empty(len(order))
    shares[order] = np.cumsum(squares[order]) / max(squares.sum(), 1e-30)
    return shares


def _require_data(sources, name):
    require(
        sources.data is not None,
        "data",
        f'examples, as importance="{name}" is measured on them',
        None,
    )


def _some(sources) -> Iterator[tuple]:
    return batches_for(sources.model, sources.data, sources.batch_size)


def _array(value) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(value, "float32"))


def _by_family(
    found: Structures,
    function: Callable[[Members], np.ndarray],
    wanted: Callable[[SlicedVariable], bool] = lambda entry: True,
    what: str = "members",
) -> np.ndarray:
    """Returns what a function says of the members of each family."""
    result = np.zeros(found.size)
    for family, own in members(found, wanted).items():
        if not own:
            raise InputError(
                f"A family of channels has no {what}: "
                f"{', '.join(found.made_by(family))}. Spare these layers with "
                "`limits`, or choose another `importance`."
            )
        given = np.asarray(function(own), "float64")
        number = len(own[0])
        require(
            given.shape == (number,),
            "importance",
            f"a function that returns {number} numbers for {number} structures",
            given,
        )
        result[found.families == family] = given
    return result


def members(
    found: Structures,
    wanted: Callable[[SlicedVariable], bool] = lambda entry: True,
) -> dict[int, Members]:
    """Returns for each family matrices with a row for each structure.

    Args:
        found: The structures of a model.
        wanted: Which variables to take.
    """
    matrices: dict[int, Members] = {f: [] for f in range(len(found.counts))}
    for entry in found.variables:
        if not wanted(entry):
            continue
        for sliced in entry.along("member"):
            owners = sliced.structures
            order = np.argsort(owners, kind="stable")
            order = order[owners[order] >= 0]
            w = np.moveaxis(_array(entry.variable), sliced.axis, 0)
            own = found.families[owners[order]]
            for family in np.unique(own).tolist():
                rows = w[order[own == family]]
                count = int(found.counts[family])
                matrices[family].append(rows.reshape(count, -1))
    return matrices


IMPORTANCES: dict[str, Callable[[Sources], np.ndarray]] = {
    "l1": lambda sources: _by_family(sources.structures, magnitude_l1),
    "l2": lambda sources: _by_family(sources.structures, magnitude_l2),
    "bn_scale": _bn_scale,
    "fpgm": _fpgm,
    "taylor": _taylor,
    "apoz": _active,
    "dcp": _dcp,
    "obs": _obs,
    "random": _random,
}
