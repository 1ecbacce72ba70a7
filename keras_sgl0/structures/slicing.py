"""The rules of what takes some of the channels, or adds some to them."""

from typing import Any

import numpy as np

from keras_sgl0.network.graph import tensors
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.reshaping import Moving, unchangeable
from keras_sgl0.structures.slices import Rewrite, sides


class Narrowing(Moving):
    """A part of the channels, of which one at least stays."""

    narrows = True

    def axes_of(self, numbers, y):
        """Returns the channel axes, also where one channel is left."""
        return super().axes_of(numbers, y) or self.left()[-1:]

    def left(self) -> tuple[int, ...]:
        """Returns the axes of an output that were channel axes."""
        return self.node.inputs[0].axes

    def rows(self, kept: np.ndarray) -> dict[int, np.ndarray]:
        """Returns which indices of each channel axis of the input stay.

        Args:
            kept: Which channels of the input stay.
        """
        x = self.node.inputs[0]
        return dict(zip(x.axes, sides(kept, x.sizes), strict=True))


@rule("Split")
class Split(Narrowing):
    """Parts along an axis, which need not stay as long as each other."""

    def uncovered(self):
        if self._axis in self.node.inputs[0].axes:
            return unchangeable(self.layer)
        return ""

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the operation with the indices where the parts begin now."""
        rows = self.rows(kept_inputs[0])
        if self._axis not in rows:
            return Rewrite()
        sizes = [y.shape[self._axis] for y in self.node.outputs]
        starts = np.cumsum(sizes)[:-1].tolist()
        indices = [int(rows[self._axis][:n].sum()) for n in starts]
        return Rewrite({"indices_or_sections": indices})

    @property
    def _axis(self):
        return self.layer.axis % self.node.inputs[0].rank


@rule("GetItem")
class GetItem(Narrowing):
    """Slices and single indices along any axes, and new axes."""

    def uncovered(self):
        if not all(map(_is_plain, self._key)):
            return "its key is not of numbers and slices"
        x = self.node.inputs[0]
        for axis, key in self._by_axis():
            if axis in x.axes and getattr(key, "step", None) not in (None, 1):
                return "it takes channels in steps"
        return ""

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the call with the places that the channels have now."""
        rows = self.rows(kept_inputs[0])
        key = list(self._key)
        for place, (axis, own) in zip(
            self._places(), self._by_axis(), strict=True
        ):
            if axis in rows:
                key[place] = _moved(own, rows[axis])
        whole = [Ellipsis, slice(None)]
        whole += [slice(0, int(own.sum())) for own in rows.values()]
        return Rewrite(
            arguments=((self.node.args[0], tuple(key)), {}),
            skipped=all(own in whole for own in key),
        )

    def left(self):
        """Returns the axes of the output that were channel axes."""
        x, found = self.node.inputs[0], []
        whole = {int: 0, slice: slice(None)}
        key: Any = tuple(whole.get(type(k), k) for k in self._key)
        for axis in x.axes:
            # Of all axes only this one is of size two.
            marked = np.zeros([1 + (a == axis) for a in range(x.rank)])[key]
            found += [i for i, size in enumerate(marked.shape) if size == 2]
        return tuple(found)

    @property
    def _key(self) -> tuple:
        given = [*self.node.args[1:], *self.node.kwargs.values()]
        (key,) = [k for k in given if not tensors(k)]
        key = key if isinstance(key, list | tuple) else (key,)
        return tuple(int(k) if isinstance(k, np.integer) else k for k in key)

    def _places(self):
        """Returns where in the key something is that is of an axis."""
        return [
            i
            for i, key in enumerate(self._key)
            if key is not None and key is not Ellipsis
        ]

    def _by_axis(self):
        """Returns pairs of an axis of the input and its slice or index."""
        rank, places = self.node.inputs[0].rank, self._places()
        pairs, after = [], 0
        for count, place in enumerate(places):
            after += any(k is Ellipsis for k in self._key[:place]) and not after
            axis = count if not after else count + rank - len(places)
            pairs.append((axis, self._key[place]))
        return pairs


def _is_plain(key) -> bool:
    return (
        key is None
        or key is Ellipsis
        or isinstance(key, slice)
        or (isinstance(key, int) and not isinstance(key, bool))
    )


def _moved(key, kept: np.ndarray):
    """Returns the slice, or index, of the same entries among those kept."""
    if not isinstance(key, slice):
        return int(kept[: key % len(kept)].sum())
    start, stop, _ = key.indices(len(kept))
    return slice(int(kept[:start].sum()), int(kept[:stop].sum()))


@rule("Pad")
class Pad(Moving):
    """Entries around those there are, or channels beside them."""

    def uncovered(self):
        x = self.node.inputs[0]
        self._widths = np.broadcast_to(self.layer.pad_width, (x.rank, 2))
        given = [*self.node.args[1:], *self.node.kwargs.values()]
        self.filler = float(next((v for v in given if v is not None), 0.0))
        if not self._channels_too():
            return ""
        if self.layer.mode != "constant" or len(x.axes) > 1:
            return "it repeats single channels"
        return unchangeable(self.layer)

    @property
    def border(self):
        """Whether zeros come around the positions."""
        return bool(
            self.layer.mode == "constant"
            and self.filler == 0
            and np.delete(self._widths, self.node.inputs[0].axes, 0).any()
        )

    def moved(self, numbers):
        """Returns the numbers of channels, -1 at what is of none."""
        if self.layer.mode != "constant":
            return numbers  # what is around them is of the same channels
        axes = self.node.inputs[0].axes
        one = [slice(None if a in axes else 1) for a in range(numbers[0].ndim)]
        few = numbers[0][tuple(one)]
        return [np.pad(few, self._widths, constant_values=-1)]

    def axes_of(self, numbers, y):
        """Returns the channel axes of the input."""
        return self.node.inputs[0].axes

    def all_constants(self, input_constants):
        """Returns the constants; those at a border are as the call sees it."""
        if not self.border:
            return super().all_constants(input_constants)
        ((channels, sources),) = self._sources
        given = np.append(input_constants[0], self.filler)
        found = np.full(self.node.outputs[0].channels, self.filler)
        found[channels[sources >= 0]] = given[sources[sources >= 0]]
        return [found]

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns the operation with as many more channels as stay."""
        if not self._channels_too():
            return Rewrite()
        (axis,) = self.node.inputs[0].axes
        widths = self._widths.tolist()
        before, after = widths[axis]
        end = len(kept_outputs) - after
        widths[axis] = [
            int(kept_outputs[:before].sum()),
            int(kept_outputs[end:].sum()),
        ]
        return Rewrite({"pad_width": widths}, skipped=not np.any(widths))

    def _channels_too(self) -> bool:
        return bool(self._widths[list(self.node.inputs[0].axes)].any())
