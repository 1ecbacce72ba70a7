"""LeNet-5-Caffe."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_sgl0.models.gated_layers import Gate, GatedLayers, network
from keras_sgl0.utils.validation import (
    finite_float,
    image_shape,
    integer,
    require,
    sizes,
)


def LeNet5Caffe(  # noqa: N802
    input_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    gate: Gate | None = None,
    dropout: float = 0.0,
    dense_fan: str = "fan_in",
    widths: Sequence[int] = (20, 50, 500),
) -> keras.Model:
    """Builds LeNet-5-Caffe: 20 and 50 5x5 filters, then 500 dense units.

    Convolution, ReLU, max pooling, twice, then dense, ReLU, dense. The output
    is logits. For 28x28x1 images and 10 classes it has 431,080 parameters and
    1,370 neurons in the reading of Bui et al. (`axis="auto"`), 580 output
    channels (`axis=-1`). Kernel shapes: (5, 5, 1, 20), (5, 5, 20, 50),
    (800, 500), (500, 10).

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated; biases normal with standard deviation `.01`.

    With gates, one for each output map of a convolution and each input of a
    dense layer, 430,570 parameters are behind them (the maps' biases count,
    those of dense layers do not), and what is behind them starts larger by
    `1 / (1 - droprate_init)`.

    Args:
        input_shape: Height, width and channels; both sides at least 16.
        num_classes: The number of logits.
        kernel_regularizer: A Keras regularizer for all four kernels.
        gate: A function `gate(layer, group_size)` that returns the gate layer
            for the layer of that name (conv1, conv2, fc1, fc2), one gate of
            which rules `group_size` parameters. Default: no gates.
        dropout: The share of both dense layers' inputs dropped in training.
        dense_fan: `"fan_out"` divides by the outputs of a dense kernel, not by
            its inputs, in its initial standard deviation.
        widths: The filters of both convolutions and the units of `fc1`, for a
            network that is narrower from the start.

    Returns:
        A Functional model.

    Raises:
        ValueError: If the input is too small, an argument no shape, `dropout`
            not in [0, 1), `dense_fan` another word or `widths` not three
            positive integers.

    Example:
        >>> model = LeNet5Caffe(kernel_regularizer=SGL0(0.1 / 60000))
        >>> model.count_params()
        431080
        >>> def gate(layer, group_size):
        ...     return HardConcrete(regularizer=ExpectedL0(1e-6, group_size))
        >>> gated = LeNet5Caffe(gate=gate)

    Reference:
        Bui et al., arXiv 1912.07868, section 5.1; the gates as in Louizos et
        al., arXiv 1712.01312, section 4.1.
    """
    input_shape = image_shape(input_shape, at_least=16)
    integer("num_classes", num_classes, at_least=1)
    dropout = finite_float("dropout", dropout, at_least=0, below=1)
    widths = sizes("widths", widths, at_least=3)
    require(len(widths) == 3, "widths", "three integers of at least 1", widths)
    first, second, third = widths
    add = GatedLayers(kernel_regularizer, gate, dense_fan)
    inputs = keras.Input(input_shape)
    x = add.conv(inputs, first, 5, name="conv1", activation="relu")
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = add.conv(x, second, 5, name="conv2", activation="relu")
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout1")(x)
    x = add.dense(x, third, name="fc1", activation="relu")
    if dropout:
        x = layers.Dropout(dropout, name="dropout2")(x)
    outputs = add.dense(x, num_classes, name="fc2")
    return network(inputs, outputs, "lenet5_caffe", prunable=add)
