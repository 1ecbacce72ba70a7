"""Random slices, views, moves and reductions of tensors, for the fuzzer."""

import numpy as np
from keras import ops


class RandomViews:
    """Operations on one tensor that give one of the same positions.

    Args:
        rng: The random numbers.
        axis: The axis of channels.
        kernel: Makes a layer of so many channels for a tensor.
    """

    def __init__(self, rng, axis, kernel):
        self._rng = rng
        self._axis = axis
        self._kernel = kernel

    def __call__(self, x):
        """Returns a random view of a tensor."""
        kinds = [self._split, self._slices, self._flip, self._back_and_forth]
        kinds += [self._new_axes, self._stack, self._vector, self._padded]
        kinds += [self._summed]
        if len(x.shape) > 2:
            kinds += [self._moments, self._array, self._roll, self._centred]
        if x.shape[self._axis] % 2 == 0:
            kinds.append(self._glu)
            if len(x.shape) > 2:
                kinds += [self._shuffle, self._halves]
        return kinds[int(self._rng.integers(len(kinds)))](x)

    def _some(self, low, high):
        return int(self._rng.integers(low, high + 1))

    def _positions(self, x):
        last = self._axis % len(x.shape)
        return tuple(a for a in range(1, len(x.shape)) if a != last)

    def _split(self, x):
        cut = self._some(1, x.shape[self._axis] - 1)
        a, b = ops.split(x, [cut], self._axis)
        return ops.concatenate([ops.tanh(b), a], self._axis)

    def _slices(self, x):
        cut = self._some(1, x.shape[self._axis] - 1)
        first = [slice(None)] * len(x.shape)
        last = list(first)
        first[self._axis], last[self._axis] = slice(cut), slice(cut, None)
        parts = x[tuple(first)], ops.relu(x[tuple(last)])
        return ops.concatenate(parts, self._axis)

    def _flip(self, x):
        return x + 0.5 * ops.flip(x, self._some(1, len(x.shape) - 1))

    def _roll(self, x):
        axis = self._positions(x)[0]
        return ops.roll(x, self._some(1, 2), axis) - x

    def _back_and_forth(self, x):
        order = [0, *(1 + self._rng.permutation(len(x.shape) - 1)).tolist()]
        y = ops.sigmoid(ops.transpose(x, order))
        return ops.transpose(y, np.argsort(order).tolist())

    def _new_axes(self, x):
        y = ops.tanh(ops.expand_dims(x, (1, 2))[:, 0, :, None])
        return ops.squeeze(y, (1, 2))

    def _stack(self, x):
        y = ops.stack([x, ops.sin(x), 0.5 * x], axis=1)
        a, b, c = ops.unstack(ops.repeat(y, 2, 1)[:, :3], 3, axis=1)
        return a + b * c

    def _vector(self, x):
        shape = [1] * len(x.shape)
        shape[self._axis] = x.shape[self._axis]
        scale = self._rng.normal(size=shape[1:]).astype("float32")
        return ops.maximum(ops.add(x * scale, 0.5), 0.0)

    def _array(self, x):
        shape = list(x.shape[1:])
        if None in shape:
            return x
        shape[self._axis if self._axis < 0 else 0] = 1
        return x * self._rng.normal(size=shape).astype("float32")

    def _padded(self, x):
        more = [[0, 0] for _ in x.shape]
        more[self._axis] = [self._some(0, 2), self._some(1, 2)]
        y = ops.pad(x, more)
        return y + self._kernel(x, y.shape[self._axis])(x)

    def _moments(self, x):
        where = {"axis": self._positions(x), "keepdims": True}
        gate = ops.mean(x, **where) + ops.max(x, **where) - ops.min(x, **where)
        return x * ops.tanh(gate + ops.std(x, **where))

    def _centred(self, x):
        flat = ops.mean(x, self._positions(x))
        shape = [1] * len(x.shape)
        shape[0], shape[self._axis] = -1, x.shape[self._axis]
        return ops.relu(x - ops.reshape(flat, shape))

    def _summed(self, x):
        return x * ops.tanh(ops.sum(x, self._axis, keepdims=True))

    def _glu(self, x):
        return ops.glu(x, self._axis)

    def _halves(self, x):
        y = ops.reshape(x, self._in_halves(x))
        axis = self._axis % len(x.shape)
        a, b = ops.unstack(y, 2, axis=axis)
        return ops.concatenate([a * b, a], axis)

    def _shuffle(self, x):
        axis = self._axis % len(x.shape)
        y = ops.swapaxes(ops.reshape(x, self._in_halves(x)), axis, axis + 1)
        return ops.reshape(y, (-1, *x.shape[1:]))

    def _in_halves(self, x):
        axis = self._axis % len(x.shape)
        half = x.shape[axis] // 2
        return (-1, *x.shape[1:axis], 2, half, *x.shape[axis + 1 :])
