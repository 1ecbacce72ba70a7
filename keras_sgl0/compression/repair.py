"""Repairs of a cut network that need neither labels nor training."""

import itertools
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops, tree

from keras_sgl0.compression.linear import (
    from_matrix,
    input_rows,
    is_linear,
    kernel_matrix,
    mixing_kernel,
    parts_of,
    products,
)
from keras_sgl0.groups import other_axes
from keras_sgl0.network.batches import batches_for
from keras_sgl0.network.compilation import compiled
from keras_sgl0.network.gradients import copy
from keras_sgl0.network.layer_table import all_layers
from keras_sgl0.network.probing import fresh_states
from keras_sgl0.network.running import Walk
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.families import Structures
from keras_sgl0.structures.flat_copy import FlatCopy
from keras_sgl0.structures.rules import Opaque
from keras_sgl0.utils.validation import integer, require, require_built

# What is added to the diagonal, as a share of its mean.
_RIDGE = 1e-6
# How many numbers networks may hold between two layers, one gigabyte of them.
_MOST_HELD = 2**28


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
    calls = _calls(model)
    momenta = {
        id(variable): (variable, layer.momentum ** calls.get(id(layer), 1))
        for layer, variable in _statistics(model)
    }
    require(
        momenta,
        "model",
        "a model with a batch normalization that is not frozen",
        model,
    )
    # In training mode nothing depends on the old statistics. From zero, the
    # new ones are the batch's, times 1 - momentum, which is taken once a call.
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
    for x, _, _ in batches_for(model, data, batch_size, "data"):
        size = len(tree.flatten(x)[0])
        examples += size
        for total, value in zip(sums, statistics(x), strict=True):
            total += size * ops.convert_to_numpy(value)
    for i, total in zip(where, sums, strict=True):
        variable, momentum = momenta[id(others[i])]
        variable.assign(total / examples / (1 - momentum))
    return model


def statistics_of(model: keras.Model) -> list[keras.Variable]:
    """Returns the statistics that `reestimate_batch_norm` measures.

    Args:
        model: A built model.
    """
    return [variable for _, variable in _statistics(model)]


def _statistics(model) -> list[tuple[keras.layers.Layer, keras.Variable]]:
    """Returns the statistics that change in training, with their layers."""
    return [
        (layer, variable)
        for layer in all_layers(model)
        if _has_statistics(layer)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


def _has_statistics(layer) -> bool:
    """Returns whether training changes statistics of a layer."""
    return (
        isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.momentum < 1
    )


def _calls(model) -> dict[int, int]:
    """Returns how often each layer is called, by its `id`, as far as known."""
    try:
        nodes = trace(model).nodes
    except ValueError:
        return {}
    return {id(node.operation): node.calls for node in nodes}


class Repair:
    """Refits the layers of a network in which structures are zero.

    Each dense layer and each convolution behind a cut gets the weights with
    which its outputs, before the activation, are closest to those of the
    uncut network, `min ||X W + b - X' W' - b'||^2`, where `X` is what it reads
    in the cut network, with all layers before it refit, and `X'` what it read
    in the uncut one. Of a separable convolution it is the pointwise part. A
    small ridge holds what the inputs do not determine at its old value. Grouped
    and depthwise convolutions, layers that are called several times and those
    of other kinds keep their weights.

    So what a batch normalization gets may be another, and then training, which
    uses the statistics of the batch, would begin at another network than the
    one that was refit. Its moving statistics change as those of what it gets
    do: with `m`, `v` for `X` and `m'`, `v'` for `X'`, the mean becomes
    `mean + m - m'`, the variance, with its epsilon, `variance * v / v'`. Frozen
    ones stay, as training leaves them.

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
        graph = found.discovery.graph
        self._channels = found.discovery.channels
        self._dead = np.append(dead, False)  # the last one is for -1
        self._networks = zeroed, FlatCopy(graph, "uncut")
        self._nodes = [
            node for node in graph.nodes if _is_repaired(found, zeroed, node)
        ]
        self._data = data
        self._batch_size = batch_size

    def run(self) -> list[str]:
        """Refits, in the order of computation.

        Returns:
            The paths of the layers that were changed.
        """
        if not self._nodes:
            return []
        views = [
            keras.Model(
                network.model.inputs,
                [network.made[node.inputs[0]] for node in self._nodes],
            )
            for network in self._networks
        ]
        inputs = _Inputs(views, self._data, self._batch_size)
        return [
            node.path
            for number, node in enumerate(self._nodes)
            if self._repair(node, inputs.of(number))
        ]

    def _repair(self, node, inputs) -> bool:
        """Changes one layer; returns whether its inputs have changed."""
        change = self._refit
        if isinstance(node.operation, keras.layers.BatchNormalization):
            change = self._renormalize
        first = next(inputs)
        if np.array_equal(*first):
            return False
        change(node, itertools.chain([first], inputs))
        return True

    def _renormalize(self, node, inputs):
        """Lets the statistics of one normalization follow its inputs."""
        kept = ~self._dead[self._channels[node.outputs[0]]]
        layer = self._networks[0].layers[node]
        moments = _Moments(layer.axis), _Moments(layer.axis)
        for pair in inputs:
            for own, x in zip(moments, pair, strict=True):
                own.add(x)
        (mean, variance), (old_mean, old_variance) = (
            own.of_channels() for own in moments
        )
        shift = np.where(kept, mean - old_mean, 0)
        little = layer.epsilon
        factor = np.where(
            kept, (variance + little) / (old_variance + little), 1
        )
        moving = ops.convert_to_numpy(layer.moving_variance)
        layer.moving_variance.assign((moving + little) * factor - little)
        moving = ops.convert_to_numpy(layer.moving_mean)
        layer.moving_mean.assign(moving + shift)

    def _refit(self, node, inputs):
        """Refits one layer."""
        kept = ~self._dead[self._channels[node.outputs[0]]]
        layer, uncut = (own.layers[node] for own in self._networks)
        kernel = kernel_matrix(layer)
        size = kernel.shape[0] + layer.use_bias
        gram = np.zeros((size, size))
        moment = np.zeros((size, kernel.shape[1]))
        parts = (
            (x[part], before[part])
            for x, before in inputs
            for part in parts_of(layer, x)
        )
        for x, before in parts:
            rows = input_rows(layer, x)
            missing = products(uncut, before) - rows @ kernel
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
        mixing_kernel(layer).assign(from_matrix(layer, kernel + change))


def _is_repaired(found, zeroed, node) -> bool:
    """Returns whether the layer of a call is one that a repair changes."""
    if isinstance(found.discovery.rules[node], Opaque):
        return False
    # One change cannot serve the inputs of several calls.
    if node.calls > 1 or node in zeroed.shared:
        return False
    return is_linear(node.operation) or _has_statistics(node.operation)


class _Moments:
    """The means and variances of channels over some batches.

    Args:
        axis: The axis of the channels.
    """

    def __init__(self, axis: int):
        self._axis = axis
        self._number = 0
        self._sums: list = [0.0, 0.0]

    def add(self, x: np.ndarray):
        """Takes a batch in."""
        others = other_axes(x.shape, self._axis % x.ndim)
        self._number += x.size // x.shape[self._axis]
        self._sums[0] += x.sum(others)
        self._sums[1] += np.square(x).sum(others)

    def of_channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and the variance of each channel."""
        mean, square = (total / self._number for total in self._sums)
        return mean, np.maximum(square - np.square(mean), 0)


class _Inputs:
    """What layers read in two networks, whose weights change on the way.

    The networks go on from layer to layer with all batches. Where they hold
    too much for that, they begin anew at the next layer.

    Args:
        views: The networks, whose outputs are what each layer reads, in the
            order of computation.
        data: What `fit` takes, without labels.
        batch_size: How many examples of arrays to take at a time.
    """

    def __init__(self, views: list, data: object, batch_size: int):
        self._views = views
        self._data = data
        self._batch_size = batch_size
        self._kept: list[list[Walk]] = []

    def of(self, number: int) -> Iterator[list[np.ndarray]]:
        """Yields what a layer reads in each network, batch by batch.

        No later layer may have been asked for, and the weights of all layers
        before it are final.

        Args:
            number: The number of the layer.
        """
        held, kept = 0, []
        for walks in self._kept or self._begun(number):
            yield [
                self._take(view, walk, number)
                for view, walk in zip(self._views, walks, strict=True)
            ]
            held += sum(walk.held() for walk in walks)
            if held <= _MOST_HELD:
                kept.append(walks)
            else:
                kept.clear()
        self._kept = kept

    def _begun(self, number) -> Iterator[list[Walk]]:
        """Yields the networks at the beginning of each batch."""
        for x, _, _ in batches_for(
            self._views[0], self._data, self._batch_size, "repair"
        ):
            yield [
                Walk(view, tree.flatten(x), view.outputs[number:])
                for view in self._views
            ]

    def _take(self, view, walk, number) -> np.ndarray:
        with fresh_states(view):
            value = walk.take(view.outputs[number])
        return np.asarray(ops.convert_to_numpy(value), "float64")
