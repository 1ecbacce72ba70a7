"""Repairs of a cut network that need neither labels nor training."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.network.batches import batches
from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.gradients import copy
from keras_sgl0.network.graph import Node, functional
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.probing import outputs
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.utils.validation import integer, require, require_built

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
# What is added to the diagonal, as a share of its mean.
_RIDGE = 1e-6


def reestimate_batch_norm(
    model: keras.Model, data: object, batch_size: int = 128
) -> keras.Model:
    r"""Measures the statistics of batch normalization anew, in place.

    A cut changes what a layer gets, so the moving means and variances are no
    longer those of its inputs. They become the means of the batches' means
    and variances over `data`, with the model in training mode. No weight
    changes. Frozen layers keep their statistics, as they do in `fit`.

    Args:
        model: A built model.
        data: What `fit` takes; labels are not used: a tuple `(x, y)` or
            `(x,)` of arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or
            another finite iterable of batches. Some thousand examples will do.
        batch_size: How many examples of arrays to take at a time. The
            statistics are those of batches of this size, weighted by it.

    Returns:
        The model.

    Raises:
        ValueError: If the model is not built or has no batch normalization
            that can be trained, or if `data` is empty or of another kind.

    Example:
        >>> small, report = prune(model, macs=0.5)
        >>> reestimate_batch_norm(small, (x_train, y_train))

    Reference:
        Li et al., EagleEye: Fast sub-net evaluation for efficient neural
        network pruning, 2020: adaptive batch normalization.
    """
    require_built(model)
    integer("batch_size", batch_size, at_least=1)
    momenta = {
        id(variable): (variable, layer.momentum)
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.momentum < 1  # else its statistics never change
        for variable in (layer.moving_mean, layer.moving_variance)
    }
    require(
        momenta,
        "model",
        "a model with a batch normalization that is not frozen",
        model,
    )
    # In training mode nothing depends on the old statistics. From zero, the
    # new ones are the batch's, times 1 - momentum.
    others = model.non_trainable_variables
    trained = [copy(variable) for variable in model.trainable_variables]
    states = [
        ops.zeros(v.shape, v.dtype) if id(v) in momenta else copy(v)
        for v in others
    ]
    where = [i for i, v in enumerate(others) if id(v) in momenta]

    def statistics(x):
        _, updated = model.stateless_call(trained, states, x, training=True)
        return [updated[i] for i in where]

    statistics = compiled(statistics)
    sums = [np.zeros(others[i].shape) for i in where]
    examples = 0
    for x in _inputs(model, data, batch_size, "data"):
        size = len(tree.flatten(x)[0])
        examples += size
        for total, value in zip(sums, statistics(x), strict=True):
            total += size * ops.convert_to_numpy(value)
    for i, total in zip(where, sums, strict=True):
        variable, momentum = momenta[id(others[i])]
        variable.assign(total / examples / (1 - momentum))
    return model


class Repair:
    """Refits the layers of a network in which structures are zero.

    Each dense layer and each convolution behind a cut gets the weights with
    which its outputs, before the activation, are closest to those of the
    uncut network, `min ||X W + b - X' W' - b'||^2`, where `X` is what it reads
    in the cut network, with all layers before it refit, and `X'` what it read
    in the uncut one. A small ridge holds what the inputs do not determine at
    its old value. Grouped and depthwise convolutions, and layers of other
    kinds, keep their weights.

    Args:
        found: The structures of the uncut model.
        dead: Flags, which structures are zero.
        zeroed: The copy in which they are.
        data: What `fit` takes, without labels.
        batch_size: How many examples of arrays to take at a time.

    Reference:
        He, Zhang, Sun: Channel pruning for accelerating very deep neural
        networks, 2017, eq. 1 without its selection. Luo et al., ThiNet, 2017,
        eq. 7.
    """

    def __init__(
        self,
        found: Structures,
        dead: np.ndarray,
        zeroed: FlatCopy,
        data: object,
        batch_size: int,
    ):
        self._discovery = found.discovery
        self._dead = np.append(dead, False)  # the last one is for -1
        self._uncut = FlatCopy(found.discovery.graph, "uncut")
        self._cut = zeroed
        self._data = data
        self._batch_size = batch_size

    def run(self) -> list[str]:
        """Refits, in the order of computation.

        Returns:
            The paths of the layers that were refit.
        """
        return [
            node.path
            for node in self._discovery.graph.nodes
            if self._is_linear(node) and self._refit(node)
        ]

    def _is_linear(self, node: Node) -> bool:
        layer = node.operation
        if isinstance(self._discovery.rules[node], Opaque):
            return False
        dense = type(layer) is keras.layers.Dense
        convolution = type(layer) in _CONVOLUTIONS and layer.groups == 1
        return (dense or convolution) and node not in self._cut.shared

    def _refit(self, node) -> bool:
        """Refits one layer; returns whether its inputs have changed."""
        kept = ~self._dead[self._discovery.channels[node.outputs[0]]]
        layer, uncut = self._cut.layers[node], self._uncut.layers[node]
        kernel = _matrix(layer)
        size = kernel.shape[0] + layer.use_bias
        gram = np.zeros((size, size))
        moment = np.zeros((size, kernel.shape[1]))
        changed = False
        for x, before in self._pairs(node):
            changed = changed or not np.array_equal(x, before)
            if not changed:
                return False
            rows = _rows(layer, x)
            wanted = _rows(uncut, before) @ _matrix(uncut)
            missing = wanted - rows @ kernel
            if layer.use_bias:
                ones = np.ones((len(rows), 1))
                rows = np.concatenate([rows, ones], axis=1)
            gram += rows.T @ rows
            moment += rows.T @ missing
        ridge = _RIDGE * np.trace(gram) / size
        change = np.linalg.solve(gram + ridge * np.eye(size), moment)
        change = np.where(kept, change, 0)
        if layer.use_bias:
            layer.bias.assign(ops.convert_to_numpy(layer.bias) + change[-1])
            change = change[:-1]
        new = (kernel + change).reshape(layer.kernel.shape)
        layer.kernel.assign(new)
        return True

    def _pairs(self, node) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields what a layer reads in the cut and in the uncut network."""
        views = [
            keras.Model(flat.model.inputs, flat.made[node.inputs[0]])
            for flat in (self._cut, self._uncut)
        ]
        for x in _inputs(
            self._cut.model, self._data, self._batch_size, "repair"
        ):
            # Not compiled: each view has its weights for one pass alone.
            found = [outputs(view, tree.flatten(x))[0] for view in views]
            yield found[0].astype("float64"), found[1].astype("float64")


def _inputs(model, data, batch_size, name) -> Iterator[object]:
    """Yields the inputs of each batch, after a look at their shapes."""
    inputs = tree.flatten(functional(model).input)
    expected = f"inputs of the shapes {[tuple(x.shape) for x in inputs]}"
    number = 0
    for x, _, _ in batches(data, batch_size, name):
        number += 1
        shapes = [tuple(array.shape) for array in tree.flatten(x)]
        same = len(shapes) == len(inputs) and all(map(_fits, shapes, inputs))
        require(same, name, expected, shapes)
        yield x
    require(number, name, "at least one batch", data)


def _fits(shape, spec) -> bool:
    """Returns whether a batch is as an input wants it."""
    pairs = zip(shape[1:], spec.shape[1:], strict=False)
    return len(shape) == len(spec.shape) and all(
        wanted in (None, size) for size, wanted in pairs
    )


def _matrix(layer) -> np.ndarray:
    """Returns a kernel as a matrix, one column an output."""
    kernel = np.asarray(ops.convert_to_numpy(layer.kernel), "float64")
    return kernel.reshape(-1, kernel.shape[-1])


def _rows(layer, x) -> np.ndarray:
    """Returns what one position of the output is computed from, in rows."""
    size = int(np.prod(layer.kernel.shape[:-1]))
    if isinstance(layer, keras.layers.Dense):
        return x.reshape(-1, size)
    # A kernel that copies each entry of a patch pads and strides as it should.
    copying = np.eye(size).reshape(*layer.kernel.shape[:-1], size)
    patches = layer.convolution_op(
        ops.convert_to_tensor(x, "float32"),
        ops.convert_to_tensor(copying, "float32"),
    )
    patches = np.asarray(ops.convert_to_numpy(patches), "float64")
    if layer.data_format == "channels_first":
        patches = np.moveaxis(patches, 1, -1)
    return patches.reshape(-1, size)
