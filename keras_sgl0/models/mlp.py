"""Multilayer perceptrons."""

import keras
from keras import layers

from keras_sgl0.models.gated_layers import Gate, GatedLayers, network
from keras_sgl0.utils.validation import integer, sizes


def MLP(  # noqa: N802
    input_shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    gate: Gate | None = None,
    widths: tuple[int, ...] = (300, 100),
) -> keras.Model:
    """Builds a perceptron: dense layers with ReLU, then one to the logits.

    With the default widths and 28x28 images it is the papers' 784-300-100-10:
    266,610 parameters and 1,184 neurons in the reading of Bui et al., kernel
    shapes (784, 300), (300, 100), (100, 10). Inputs of more axes are flattened.

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated; biases normal with standard deviation `.01`.

    With gates, one for each input of each layer, 266,200 parameters are behind
    them: the kernels. They start larger by `1 / (1 - droprate_init)`.

    Args:
        input_shape: The shape of one input.
        num_classes: The number of logits.
        kernel_regularizer: A Keras regularizer for all kernels.
        gate: A function `gate(layer, group_size)` that returns the gate layer
            for the layer of that name (fc1, fc2, ...), one gate of which rules
            `group_size` parameters. Default: no gates.
        widths: The units of the hidden layers; may be empty.

    Returns:
        A Functional model.

    Raises:
        ValueError: If an argument is no shape or no number of units.

    Example:
        >>> model = MLP(gate=lambda layer, group_size: HardConcrete())

    Reference:
        Louizos et al., arXiv 1712.01312, section 4.1.
    """
    input_shape = sizes("input_shape", input_shape, at_least=1)
    widths = sizes("widths", widths, at_least=0)
    integer("num_classes", num_classes, at_least=1)
    add = GatedLayers(kernel_regularizer, gate)
    x = inputs = keras.Input(input_shape)
    if len(input_shape) > 1:
        x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate(widths, 1):
        x = add.dense(x, units, name=f"fc{number}", activation="relu")
    outputs = add.dense(x, num_classes, name=f"fc{len(widths) + 1}")
    return network(inputs, outputs, "mlp", prunable=add)
