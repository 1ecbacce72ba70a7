"""The residual networks for small images."""

import keras
from keras import layers

from keras_sgl0.models.gated_layers import (
    Gate,
    GatedLayers,
    batch_norm,
    network,
    prunable_layers,
    weight_decay_penalty,
)
from keras_sgl0.utils.validation import (
    finite_float,
    image_shape,
    integer,
    require,
)


def ResNet(  # noqa: N802
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    gate: Gate | None = None,
    depth: int = 20,
    width: float = 1.0,
    weight_decay: float = 1e-4,
) -> keras.Model:
    r"""Builds a residual network for small images, ResNet-20 by default.

    A 3x3 convolution to 16 maps, three stages of `(depth - 2) / 6` blocks with
    16, 32 and 64 maps, the mean over positions, a dense layer to the logits.
    The first convolution is followed by batch normalization and ReLU, and a
    block is

    `relu(x + bn2(conv2(relu(bn1(conv1(x))))))`

    with 3x3 convolutions. The first block of the second and of the third stage
    doubles the maps and halves the sides, in `conv1`; a 1x1 convolution of `x`
    with stride 2 and its own batch normalization takes the place of `x` in the
    sum. This is the paper's option B, a projection; on CIFAR-10 the paper has
    its option A, which pads with zeros and has no weights. No convolution has
    biases.

    For 32x32x3 images and 10 classes ResNet-20 has 272,474 trainable
    parameters, 2,752 of them in the two projections, and 40,813,184
    multiply-adds.

    The penalty, or the gates, are on `conv1` of every block, whose maps only
    `conv2` of the block reads: 9 kernels of shape (3, 3, in, out) in
    ResNet-20. All else has a weight decay: kernels, the dense layer's biases
    and what batch normalization learns; without penalty and gates `conv1` has
    it, too. It is `weight_decay / 2 * sum(w^2)` in the loss, with the gradient
    `weight_decay * w`.

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated, and larger by `1 / (1 - droprate_init)` behind gates; the dense
    layer's biases normal with `.01`. Batch normalization has PyTorch's
    settings: a momentum of .9 and an epsilon of 1e-5.

    Args:
        input_shape: Height, width and channels; both sides at least 4.
        num_classes: The number of logits.
        kernel_regularizer: A Keras regularizer for `conv1` of every block.
        gate: A function `gate(layer, group_size)` that returns the gate layer
            for the convolution of that name (stage1_block1_conv1, ...), one
            gate of which rules `group_size` weights. Default: no gates.
        depth: The number of layers, `6n + 2` for n blocks a stage.
        width: What 16, 32 and 64 maps are multiplied by, those of the first
            convolution too. Each product is rounded to the nearest integer,
            and is at least 1.
        weight_decay: Coefficient of the weight decay. At least 0.

    Returns:
        A Functional model.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> model = ResNet()
        >>> count_macs(model).macs
        40813184
        >>> narrower = ResNet(width=0.7)  # 11, 22 and 45 maps
        >>> deeper = ResNet(depth=56)

    Reference:
        He et al.: Deep residual learning for image recognition, CVPR 2016,
        arXiv 1512.03385, section 4.2; the initial weights: He et al., ICCV
        2015, arXiv 1502.01852.
    """
    input_shape = image_shape(input_shape, at_least=4)
    integer("num_classes", num_classes, at_least=1)
    depth = integer("depth", depth, at_least=8)
    blocks, rest = divmod(depth - 2, 6)
    require(rest == 0, "depth", "6n + 2: 8, 14, 20, 26, ...", depth)
    width = finite_float("width", width, above=0)
    decay = weight_decay_penalty(weight_decay)
    plain = GatedLayers(decay)
    pruned = prunable_layers(kernel_regularizer, gate, decay)

    def relu(x, name):
        return layers.ReLU(name=f"{name}_relu")(x)

    def conv1(x, filters, strides, name):
        padding = "same"
        if strides > 1:
            # 'same' padding would not center on the positions the shortcut
            # takes.
            x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
            padding = "valid"
        return pruned.conv(
            x,
            filters,
            3,
            name,
            use_bias=False,
            strides=strides,
            padding=padding,
        )

    def block(x, filters, strides, name):
        y = conv1(x, filters, strides, f"{name}_conv1")
        y = relu(batch_norm(y, decay, f"{name}_bn1"), f"{name}_bn1")
        y = plain.conv(
            y, filters, 3, f"{name}_conv2", use_bias=False, padding="same"
        )
        y = batch_norm(y, decay, f"{name}_bn2")
        if strides > 1:
            shortcut = f"{name}_shortcut"
            x = plain.conv(
                x, filters, 1, shortcut, use_bias=False, strides=strides
            )
            x = batch_norm(x, decay, f"{shortcut}_bn")
        return relu(layers.Add(name=f"{name}_add")([x, y]), name)

    maps = [max(1, round(number * width)) for number in (16, 32, 64)]
    inputs = keras.Input(input_shape)
    x = plain.conv(inputs, maps[0], 3, "conv", use_bias=False, padding="same")
    x = relu(batch_norm(x, decay, "bn"), "bn")
    for stage, filters in enumerate(maps, 1):
        for number in range(1, blocks + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            x = block(x, filters, strides, f"stage{stage}_block{number}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = plain.dense(x, num_classes, "fc", bias_regularizer=decay)
    name = f"resnet_{depth}_{width:g}"
    return network(inputs, outputs, name, prunable=pruned)
