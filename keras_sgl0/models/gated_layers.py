"""Adding layers to a network: the papers' initial weights, and gates."""

from collections.abc import Callable

import keras
from keras import layers

from keras_sgl0.utils.validation import (
    choice,
    finite_float,
    get_regularizer,
    require,
)

Gate = Callable[[str, int], keras.layers.Layer]
FANS = ("fan_in", "fan_out")


class GatedLayers:
    """Adds convolutions and dense layers, each with its gates if wanted.

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated; biases normal with `.01`. What is behind gates, kernels and the
    biases of convolutions, is divided by `1 - droprate_init`, so that the sums
    start as large as without gates.

    Args:
        kernel_regularizer: For all kernels; `None` for none.
        gate: `gate(layer, group_size)` makes the gate layer of the layer of
            that name, one gate of which rules `group_size` parameters; `None`
            for no gates.
        dense_fan: What the standard deviation of dense kernels goes by,
            `"fan_in"` or `"fan_out"`.

    Attributes:
        names: The names of the layers added so far.

    Raises:
        ValueError: If an argument is something else.
    """

    def __init__(
        self,
        kernel_regularizer: keras.regularizers.Regularizer | None,
        gate: Gate | None = None,
        dense_fan: str = "fan_in",
    ):
        self.kernel_regularizer = get_regularizer(
            "kernel_regularizer", kernel_regularizer
        )
        require(gate is None or callable(gate), "gate", "a function", gate)
        self.gate = gate
        self.dense_fan = choice("dense_fan", dense_fan, FANS)
        self.names: list[str] = []

    def conv(self, x, filters: int, size: int, name: str, **options):
        """Returns a convolution of `x`, its maps gated.

        Args:
            x: Symbolic images `(batch, height, width, channels)`.
            filters: The number of output maps.
            size: The kernel's height and width.
            name: Of the layer.
            **options: Of `keras.layers.Conv2D`.
        """
        self.names.append(name)
        biases = options.get("use_bias", True)
        gate = self._gate(name, x.shape[-1] * size * size + biases)
        open_share = _open_share(gate)
        y = layers.Conv2D(
            filters,
            size,
            # First, as seeds are drawn in this order.
            **self._kernel(open_share, "fan_in"),
            bias_initializer=_normal(0.01 / open_share),
            name=name,
            **options,
        )(x)
        return gate(y) if gate else y

    def dense(self, x, units: int, name: str, **options):
        """Returns a dense layer of `x`, its inputs gated.

        Args:
            x: Symbolic vectors `(batch, in)`.
            units: The number of outputs.
            name: Of the layer.
            **options: Of `keras.layers.Dense`.
        """
        self.names.append(name)
        gate = self._gate(name, units)
        return layers.Dense(
            units,
            **self._kernel(_open_share(gate), self.dense_fan),
            bias_initializer=_normal(0.01),
            name=name,
            **options,
        )(gate(x) if gate else x)

    def _gate(self, name, group_size):
        if self.gate is None:
            return None
        made = self.gate(name, group_size)
        is_layer = isinstance(made, keras.layers.Layer | None)
        require(is_layer, "gate", "a function that returns a layer", made)
        return made

    def _kernel(self, open_share, fan):
        return {
            "kernel_regularizer": self.kernel_regularizer,
            "kernel_initializer": he_normal(2.0 / open_share**2, fan),
        }


def prunable_layers(
    kernel_regularizer: keras.regularizers.Regularizer | None,
    gate: Gate | None,
    decay: keras.regularizers.Regularizer | None,
) -> GatedLayers:
    """Returns what adds layers with a penalty or gates, else a weight decay.

    Args:
        kernel_regularizer: As in `GatedLayers`.
        gate: As in `GatedLayers`.
        decay: The weight decay that all else has.
    """
    add = GatedLayers(kernel_regularizer, gate)
    if add.kernel_regularizer is None and gate is None:
        add.kernel_regularizer = decay
    return add


def network(inputs, outputs, name: str, prunable: GatedLayers) -> keras.Model:
    """Returns a model that says which of its layers a penalty is meant for.

    Args:
        inputs: The symbolic inputs.
        outputs: The symbolic outputs.
        name: The model's name.
        prunable: What added the layers that may lose channels. Their names
            are the attribute `prunable_layers` of the model, a tuple in the
            order of the layers. It is not saved with the model.
    """
    model = keras.Model(inputs, outputs, name=name)
    model.prunable_layers = tuple(prunable.names)
    return model


def he_normal(
    scale: float = 2.0, mode: str = "fan_in"
) -> keras.initializers.Initializer:
    """Returns the initializer of normal weights, not truncated.

    Args:
        scale: The variance times the fan.
        mode: `"fan_in"` or `"fan_out"`.
    """
    return keras.initializers.VarianceScaling(
        scale, mode=mode, distribution="untruncated_normal"
    )


def weight_decay_penalty(
    weight_decay: float,
) -> keras.regularizers.Regularizer | None:
    """Returns `weight_decay / 2 * sum(w^2)`, `None` where it is 0.

    Its gradient is `weight_decay * w`, which is what a weight decay adds in
    the papers and in PyTorch; Keras's `L2(l2)` is `l2 * sum(w^2)`.

    Args:
        weight_decay: The coefficient. At least 0.

    Raises:
        ValueError: If it is out of range.
    """
    decay = finite_float("weight_decay", weight_decay, at_least=0)
    return keras.regularizers.L2(decay / 2) if decay else None


def _normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)


def _open_share(gate) -> float:
    return 1 - getattr(gate, "droprate_init", 0.0)


def batch_norm(
    x, decay: keras.regularizers.Regularizer | None, name: str
) -> keras.KerasTensor:
    """Returns `x` after batch normalization with PyTorch's settings.

    Args:
        x: Symbolic images.
        decay: The weight decay of gamma and beta, `None` for none.
        name: Of the layer.
    """
    return layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        beta_regularizer=decay,
        gamma_regularizer=decay,
        name=name,
    )(x)
