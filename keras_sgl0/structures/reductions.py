"""The rules of operations that take means and the like, and of halves."""

import numpy as np

from keras_sgl0.network.positions import product
from keras_sgl0.structures.registry import rule
from keras_sgl0.structures.rules import Channelwise, Rule
from keras_sgl0.structures.slices import Rewrite, Zeros


@rule(*("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std", "Norm"))
class Reduction(Channelwise):
    """A number for all positions along some axes, or the sum of all channels.

    A channel that is zero may be left out of a sum or a norm. It counts in a
    mean, and it may be the largest of all. There a zero takes its place.
    """

    several_axes = True

    @property
    def zeros_only(self) -> bool:
        """Whether only channels that are zero may go."""
        return self._is_over_channels()

    @property
    def why_outputs_stay(self) -> str:
        """Why no output can be cut, empty where it can."""
        if not self._is_over_channels():
            return ""
        return f"`{self.node.path}` sums over channels"

    def refusal(self):
        x = self.node.inputs[0]
        if self.layer.axis is None or 0 in self._gone():
            return "it is over all examples"
        if getattr(self.layer, "initial", None) is not None:
            return "it has an initial value"
        if self._is("Norm"):
            if len(self._gone()) > 1:
                return "it is the norm of a matrix"
            order = self.layer.ord
            if order is not None and (isinstance(order, str) or order < 0):
                return "a zero may count in its norm"
        if self._is_over_channels():
            if not self._gone() >= set(x.axes):
                return "it is over some of the channel axes"
            if len(x.axes) > 1 and not self._is_sum():
                return "a zero over several axes counts in it"
        return ""

    def axes(self):
        """Returns where the channel axes are after it."""
        x, gone = self.node.inputs[0], self._gone()
        if self.layer.keepdims:
            return x.axes
        if self._is_over_channels():
            return (max(x.rank - len(gone) - 1, 0),)
        return tuple(a - sum(g < a for g in gone) for a in x.axes)

    def ties(self):
        """Returns the ties of each channel, none with the sum of all."""
        return None if self._is_over_channels() else super().ties()

    def constants(self, input_constants):
        """Returns what comes of as many equal numbers as there are."""
        (given,) = input_constants
        if self._is_over_channels():
            known = self._is_sum() and (given == 0).all()
            return np.full(
                self.node.outputs[0].channels, 0.0 if known else np.nan
            )
        if self._is("Var", "Std"):
            return 0 * given
        if self._is("Sum"):
            x = self.node.inputs[0]
            number = product(x.shape[a] for a in self._gone())
            return np.where(given == 0, 0, (number or np.nan) * given)
        if self._is("Norm"):
            return np.where(given == 0, 0, np.nan)
        return given

    def reads(self, live, input_constants):
        """Returns that channels of live outputs are read."""
        if self._is_over_channels():
            return [np.full(self.node.inputs[0].channels, live.any())]
        return super().reads(live, input_constants)

    def rewrite(self, kept_inputs, kept_outputs, input_constants):
        """Returns zeros for the channels that count though they are cut."""
        if self._is_sum() or not self._is_over_channels():
            return Rewrite()
        (axis,) = self.node.inputs[0].axes
        cut = int((~kept_inputs[0]).sum())
        return Rewrite(zeros=Zeros(axis, cut, removed=False))

    def _gone(self) -> set[int]:
        return _axes_of(self.layer.axis, self.node.inputs[0].rank)

    def _is_over_channels(self) -> bool:
        return bool(self._gone() & set(self.node.inputs[0].axes))

    def _is_sum(self) -> bool:
        """Returns whether a zero adds nothing to it."""
        return self._is("Sum", "Norm")

    def _is(self, *types: str) -> bool:
        return self.node.type in types


@rule("Prod", "Median", "Logsumexp")
class OverPositions(Reduction):
    """A number for all positions along some axes, never one of channels."""

    def refusal(self):
        if self.layer.axis is not None and self._is_over_channels():
            return "it is over channels"
        return super().refusal()

    def constants(self, input_constants):
        """Returns what comes of equal numbers, where that is as simple."""
        (given,) = input_constants
        stays = ((given == 0) & self._is("Prod")) | self._is("Median")
        return np.where(stays, given, np.nan)


@rule("Moments")
class Moments(Rule):
    """The mean and the variance of each channel over positions."""

    carries = True

    def refusal(self):
        x = self.node.inputs[0]
        gone = _axes_of(self.layer.axes, x.rank)
        if 0 in gone:
            return "it is over all examples"
        if x.axis in gone:
            return "it is over channels"
        return ""

    def all_axes(self):
        """Returns where the channel axis is after it, twice."""
        x = self.node.inputs[0]
        (axis,) = x.axes
        if not self.layer.keepdims:
            axis -= sum(a < axis for a in _axes_of(self.layer.axes, x.rank))
        return [(axis,), (axis,)]

    def ties(self):
        """Returns that the moments of a channel are cut with it."""
        return [np.arange(self.node.inputs[0].channels)] * 3

    def all_constants(self, input_constants):
        """Returns the constant as the mean, and no variance."""
        (given,) = input_constants
        return [given, 0 * given]

    def all_reads(self, live, input_constants):
        """Returns the channels of both."""
        return [live[0] | live[1]]


@rule("Glu")
class Glu(Channelwise):
    """One half of the channels times the sigmoid of the other."""

    def refusal(self):
        x = self.node.inputs[0]
        if self.layer.axis % x.rank != x.axis:
            return "its halves are no channels"
        return super().refusal()

    def ties(self):
        """Returns that both halves are cut alike."""
        number = self.node.outputs[0].channels
        return [np.arange(2 * number) % number, np.arange(number)]

    def constants(self, input_constants):
        """Returns the products, zero where the first factor is."""
        first, second = np.split(input_constants[0], 2)
        with np.errstate(over="ignore"):
            product = first / (1 + np.exp(-second))
        return np.where(first == 0, 0, product)


def _axes_of(given, rank: int) -> set[int]:
    """Returns one or several axes, counted from the first."""
    return {int(axis) % rank for axis in np.atleast_1d(given)}
