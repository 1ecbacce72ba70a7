"""MobileNetV2 for small images."""

import keras
from keras import layers

from keras_sgl0.models.gated_layers import (
    Gate,
    GatedLayers,
    he_normal,
    network,
    prunable_layers,
    weight_decay_penalty,
)
from keras_sgl0.utils.validation import finite_float, image_shape, integer

# Expansion, maps, blocks and stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SMALLEST_SIDE = 4


def MobileNetV2(  # noqa: N802
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    gate: Gate | None = None,
    width: float = 1.0,
    dropout: float = 0.2,
    weight_decay: float = 4e-5,
) -> keras.Model:
    r"""Builds MobileNetV2, with strides for small images.

    A 3x3 convolution, 17 inverted residual blocks, a 1x1 convolution, the mean
    over positions, dropout, a dense layer to the logits. A block is

    `x + project(depthwise(expand(x)))`

    where `expand`, a 1x1 convolution, makes 6 maps of each, `depthwise` has
    3x3 kernels and `project` is a 1x1 convolution; each is followed by batch
    normalization, the first two by ReLU up to 6. The first block has no
    expansion; a block that changes the maps or halves the sides has no sum. No
    convolution has biases. With 10 classes it has 2,236,682 trainable
    parameters, whatever the size of the images.

    *Strides.* The paper halves images of 224 pixels five times, to 7x7: in the
    first convolution and in the blocks that make 24, 32, 64 and 160 maps. Of
    these halvings the first ones are left out, as many as it takes to leave at
    least 4x4: two for 32x32, one for 64x64, none from 128x128 on.

    The penalty, or the gates, are on the expansions, whose maps only their own
    block reads: 16 kernels of shape (1, 1, in, 6 * in). All other kernels but
    the depthwise ones have a weight decay, without penalty and gates the
    expansions, too. It is `weight_decay / 2 * sum(w^2)` in the loss, with the
    gradient `weight_decay * w`.

    Kernels start normal with standard deviation `sqrt(2 / fan_in)`, not
    truncated, and larger by `1 / (1 - droprate_init)` behind gates; biases of
    the dense layer normal with `.01`.

    Args:
        input_shape: Height, width and channels; both sides at least 4.
        num_classes: The number of logits.
        kernel_regularizer: A Keras regularizer for the expansions.
        gate: A function `gate(layer, group_size)` that returns the gate layer
            for the convolution of that name (block2_expand, ...), one gate of
            which rules `group_size` weights. Default: no gates.
        width: What the numbers of maps are multiplied by, which are rounded to
            multiples of 8 then, never down by more than a tenth. The last
            convolution has at least 1280.
        dropout: The share of the dense layer's inputs dropped in training.
        weight_decay: Coefficient of the weight decay. At least 0.

    Returns:
        A Functional model.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> model = MobileNetV2((64, 64, 3), 200, SGL0(1e-6), width=0.5)

    Reference:
        Sandler et al.: MobileNetV2: inverted residuals and linear bottlenecks,
        CVPR 2018, arXiv 1801.04381, table 2.
    """
    input_shape = image_shape(input_shape, at_least=_SMALLEST_SIDE)
    integer("num_classes", num_classes, at_least=1)
    width = finite_float("width", width, above=0)
    dropout = finite_float("dropout", dropout, at_least=0, below=1)
    decay = weight_decay_penalty(weight_decay)
    plain = GatedLayers(decay)
    pruned = prunable_layers(kernel_regularizer, gate, decay)
    bare = {"use_bias": False, "padding": "same"}
    first_stride, *strides = _strides(min(input_shape[:2]))

    def normalized(x, name, rectify=True):
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(6, name=f"{name}_relu")(x) if rectify else x

    def block(x, expansion, filters, stride, name):
        y = x
        if expansion > 1:
            expand = f"{name}_expand"
            y = pruned.conv(y, expansion * x.shape[-1], 1, expand, **bare)
            y = normalized(y, expand)
        depthwise = f"{name}_depthwise"
        y = layers.DepthwiseConv2D(
            3,
            stride,
            # The fan-out of such a kernel is what reaches one output.
            depthwise_initializer=he_normal(mode="fan_out"),
            name=depthwise,
            **bare,
        )(y)
        y = normalized(y, depthwise)
        project = f"{name}_project"
        y = plain.conv(y, filters, 1, project, **bare)
        y = normalized(y, project, rectify=False)
        if stride == 1 and x.shape[-1] == filters:
            y = layers.Add(name=f"{name}_add")([x, y])
        return y

    inputs = keras.Input(input_shape)
    x = plain.conv(
        inputs, _maps(32 * width), 3, "conv", strides=first_stride, **bare
    )
    x = normalized(x, "conv")
    number = 0
    for (expansion, filters, blocks, _), stride in zip(
        _STAGES, strides, strict=True
    ):
        for place in range(blocks):
            number += 1
            x = block(
                x,
                expansion,
                _maps(filters * width),
                1 if place else stride,
                f"block{number}",
            )
    x = plain.conv(x, _maps(1280 * max(1.0, width)), 1, "last", **bare)
    x = normalized(x, "last")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    outputs = plain.dense(x, num_classes, "fc")
    return network(inputs, outputs, f"mobilenet_v2_{width:g}", prunable=pruned)


def _strides(side: int) -> list[int]:
    """Returns the strides of the first convolution and of the stages."""
    strides = [2, *(stride for *_, stride in _STAGES)]
    affordable = (side // _SMALLEST_SIDE).bit_length() - 1
    for _ in range(strides.count(2) - affordable):
        strides[strides.index(2)] = 1
    return strides


def _maps(number: float) -> int:
    """Returns the multiple of 8 next to a number, not below nine tenths."""
    rounded = max(8, int(number + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * number else rounded + 8
