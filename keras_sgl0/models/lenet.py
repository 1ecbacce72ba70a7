"""LeNet-5-Caffe."""

import keras
from keras import layers

from keras_sgl0.validation import integer, require


def LeNet5Caffe(  # noqa: N802
    input_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """Builds LeNet-5-Caffe: 20 and 50 5x5 filters, then 500 dense units.

    Convolution, ReLU, max pooling, twice, then dense, ReLU, dense. The output
    is logits. For 28x28x1 images and 10 classes it has 431,080 parameters and
    1,370 neurons in the reading of Bui et al. (`axis="auto"`), 580 output
    channels (`axis=-1`). Kernel shapes: (5, 5, 1, 20), (5, 5, 20, 50),
    (800, 500), (500, 10).

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated; biases normal with standard deviation `.01`.

    Args:
        input_shape: Height, width and channels; both sides at least 16.
        num_classes: The number of logits.
        kernel_regularizer: A Keras regularizer for all four kernels.

    Returns:
        A Functional model.

    Raises:
        ValueError: If the input is too small or an argument no shape.

    Example:
        >>> model = LeNet5Caffe(kernel_regularizer=SGL0(0.1 / 60000))
        >>> model.count_params()
        431080

    Reference:
        Bui et al., arXiv 1912.07868, section 5.1.
    """
    require(
        len(input_shape) == 3
        and all(isinstance(n, int) and n >= 1 for n in input_shape)
        and min(input_shape[:2]) >= 16,
        "input_shape",
        "(height, width, channels), both sides at least 16",
        input_shape,
    )
    integer("num_classes", num_classes, at_least=1)

    def trained():
        return {
            "kernel_regularizer": kernel_regularizer,
            "kernel_initializer": keras.initializers.VarianceScaling(
                2.0, mode="fan_in", distribution="untruncated_normal"
            ),
            "bias_initializer": keras.initializers.RandomNormal(stddev=0.01),
        }

    inputs = keras.Input(tuple(input_shape))
    x = layers.Conv2D(20, 5, activation="relu", name="conv1", **trained())(
        inputs
    )
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(50, 5, activation="relu", name="conv2", **trained())(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(500, activation="relu", name="fc1", **trained())(x)
    outputs = layers.Dense(num_classes, name="fc2", **trained())(x)
    return keras.Model(inputs, outputs, name="lenet5_caffe")
