"""Puts gates on the structures of a model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sgl0.gates.hard_concrete import TEST_GATES, ExpectedL0, HardConcrete
from keras_sgl0.gates.shared import AllOpen, GateChannels
from keras_sgl0.groups import wide_dtype
from keras_sgl0.network.graph import Node, Tensor, tensors
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.own_methods import require_no_preprocessing
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.slices import side_of
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    integer,
)


def add_gates(
    model: keras.Model,
    droprate: float = 0.5,
    test_gate: str = "median",
    factor: float = 0.0,
    seed: int | None = None,
) -> keras.Model:
    r"""Returns a copy of a model with a gate on each structure.

    A structure is one channel with all channels that can only be cut with it,
    see `structures`. Each family of structures gets one `HardConcrete` layer,
    with one gate a structure, and every kernel that reads a channel reads it
    times its gate. In training one sample serves all of them, and the whole
    batch. So with a closed gate the model computes what it computes without
    the structure, and `shrink` cuts it.

    Train it with `L0Constraint(density, of="macs")`, or with a `factor`, then
    fold or shrink it:

    `model -> add_gates -> fit -> fold_gates or shrink`

    The weights are those of the model. Gates that are 1 change nothing. At
    first, though, a share of `droprate` of them is closed in training, and at
    test time they have the value that goes with it: 1 for a droprate of at
    most .16, .5 for .5. Take 0.1 for a model that is trained already.

    The units of recurrent layers get no gates, as the layer reads them itself,
    nor do the heads and dimensions of an attention, which are inside it, nor
    channels that an `RMSNormalization` takes a mean over.

    The result is Functional, models in it are unfolded. It is not compiled and
    shares no weights with `model`, which is not changed; but a layer that
    cannot be made from its config, such as a `Lambda` that calls
    TensorFlow, is in both models.

    Args:
        model: A built model without gates.
        droprate: The share of gates that are closed at the start, in
            [.01, .99]; `droprate_init` of `HardConcrete`.
        test_gate: `"median"` or `"mean"`, see `HardConcrete`.
        factor: What one expected parameter costs, the `factor` of an
            `ExpectedL0` whose `group_size` is the number of parameters that
            one structure of the family saves. 0 for no penalty, as for
            `L0Constraint`.
        seed: The seed of the gates. Each family has a seed of its own.

    Returns:
        The model with gates. A gate layer has the name of the first layer that
        makes its structures, with `_gates` behind it.

    Raises:
        ValueError: If the model is not built, cannot be traced, has a
            `preprocessor`, no structures or gates already, or an argument is
            out of range.

    Example:
        >>> gated = add_gates(models.LeNet5Caffe())
        >>> gated.compile("adam", loss)
        >>> constraint = L0Constraint(0.1, of="macs")
        >>> gated.fit(images, labels, 128, 200, callbacks=[constraint])
        >>> small, report = shrink(gated)
    """
    require_no_preprocessing(model)
    finite_float("droprate", droprate, at_least=0.01, at_most=0.99)
    choice("test_gate", test_gate, TEST_GATES)
    finite_float("factor", factor, at_least=0)
    if seed is not None:
        integer("seed", seed, at_least=0)
    if any(isinstance(layer, HardConcrete) for layer in all_layers(model)):
        raise InputError(
            "Invalid value for argument `model`. Expected a model without "
            f"gates; fold those it has by `fold_gates`. Received: {model!r}"
        )
    structures = Structures(model)
    gated = _gated(structures)
    if not gated.any():
        reasons = {entry.reason: None for entry in structures.fixed}
        if structures.size:
            reasons["recurrent layers read their own outputs"] = None
            reasons["heads of attention layers have no gates"] = None
            reasons["normalizations over channels count what is gated"] = None
        raise InputError(
            "Invalid value for argument `model`. Expected a model with "
            "structures, channels that can be cut. None of its channels can: "
            f"{'; '.join(reasons)}. Received: {model!r}"
        )
    sizes = structures.savings("parameters").tolist()

    def gate(family, **options):
        penalty = ExpectedL0(factor, sizes[family]) if factor else None
        own = None if seed is None else seed + family
        return HardConcrete(
            droprate, test_gate, regularizer=penalty, seed=own, **options
        )

    return _Gated(structures, gated, gate, model.name).model


def _gated(structures: Structures) -> np.ndarray:
    """Returns which structures get gates: those that only kernels read.

    The heads and dimensions of an attention have no tensor to multiply.
    The last entry is for channels that are in none.
    """
    found = structures.discovery
    gated = np.append(~structures.mixed, False)
    for node, rule in found.rules.items():
        for y in (*rule.read_back(), *node.inner):
            gated[found.channels[y]] = False
    return gated


class _Gated(FlatCopy):
    """A copy in which kernels read channels times their gates.

    Args:
        structures: Those of the model.
        gated: Which of them get gates, then False.
        gate: Makes the gate layer of a family, from its number, `name` and
            `dtype`.
        name: The name of the copy.
    """

    def __init__(
        self,
        structures: Structures,
        gated: np.ndarray,
        gate: Callable[..., HardConcrete],
        name: str,
    ):
        self._structures = structures
        self._found = structures.discovery
        self._has_gate = gated
        self._gate = gate
        self._vectors: dict[int, Any] = {}
        self._gated: dict[tuple[Tensor, str], Any] = {}
        super().__init__(self._found.graph, name)

    def given(self, node: Node, made: dict[Tensor, Any]) -> dict[Tensor, Any]:
        """Returns the channels times their gates, for a kernel."""
        layer = node.operation
        read = {
            own.channels_of(node): None
            for own in self._found.rules[node].slices()
            if own.role == "reader"
        }
        gated = {}
        for x in read:
            if (
                x in node.inputs
                and self._has_gate[self._found.channels[x]].any()
            ):
                key = (x, layer.dtype_policy.name)
                if key not in self._gated:
                    self._gated[key] = self._multiplied(x, layer, made)
                gated[x] = self._gated[key]
        return made | gated

    def _multiplied(self, x, layer, made):
        """Returns a tensor of the copy times the gates of its channels."""
        own = self._found.channels[x]
        own = np.where(self._has_gate[own], own, -1)
        families = np.unique(self._structures.families[own[own >= 0]]).tolist()
        vectors = [self._vector(f, wide_dtype(layer), made) for f in families]
        # The last one is for channels without a gate.
        places = np.full(len(own), sum(z.shape[1] for z in vectors))
        start = 0
        for family in families:
            structures = np.flatnonzero(self._structures.families == family)
            here = np.isin(own, structures)
            places[here] = start + own[here] - structures[0]
            start += len(structures)
        side, along = side_of(places.reshape(x.sizes))
        return GateChannels(
            along.tolist(),
            x.axes[side],
            dtype=layer.dtype_policy,
            name=self._take(f"{layer.name}_gated"),
        )([made[x], *vectors])

    def _vector(self, family, dtype, made):
        """Returns the sample of the gates of a family, made once."""
        if family not in self._vectors:
            own = self._structures.families == family
            first = self._structures.makers(own)[0].replace("/", "_")
            inputs = tensors(self._found.graph.inputs)
            given = [x for x in inputs if not x.optional] or inputs
            ones = AllOpen(
                int(own.sum()), dtype=dtype, name=self._take(f"{first}_open")
            )
            gate = self._gate(
                family, dtype=dtype, name=self._take(f"{first}_gates")
            )
            self._vectors[family] = gate(ones(made[given[0]]))
        return self._vectors[family]

    def _take(self, name):
        """Returns a name that is free, and takes it."""
        name = self.unused(name)
        self._names.add(name)
        return name
