"""Wide residual networks."""

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


def WideResNet(  # noqa: N802
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    gate: Gate | None = None,
    depth: int = 28,
    width: float = 10,
    dropout: float | None = None,
    weight_decay: float = 5e-4,
) -> keras.Model:
    r"""Builds a wide residual network, WRN-28-10 by default.

    A 3x3 convolution to 16 maps, three stages of `(depth - 4) / 6` blocks with
    `16 * width`, `32 * width` and `64 * width` maps, batch normalization,
    ReLU, the mean over positions, a dense layer to the logits. A block is

    `x + conv2(dropout(relu(bn2(conv1(relu(bn1(x)))))))`

    with 3x3 convolutions. The first block of a stage changes the number of
    maps: a 1x1 convolution of `relu(bn1(x))` takes the place of `x` in the
    sum. That of the second and third stage halves the sides, in `conv2` and in
    the 1x1 convolution; `conv1` never does. No convolution has biases.

    For 32x32x3 images and 10 classes WRN-28-10 has 36,461,232 kernel weights,
    36,479,194 trainable parameters and 10,736 neurons in the reading of Bui et
    al. (`axis="auto"`).

    The penalty, or the gates, are on `conv1` of every block, whose maps meet
    nothing but their own batch normalization before `conv2` reads them: 12
    kernels of shape (3, 3, in, out), 16,842,240 weights and 4,480 neurons. All
    else has a weight decay: kernels, the dense layer's biases and what batch
    normalization learns; without penalty and gates `conv1` has it, too. It is
    `weight_decay / 2 * sum(w^2)` in the loss, with the gradient `weight_decay
    * w`, as the authors write it and PyTorch's optimizers apply it.

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
        depth: The number of layers, `6n + 4` for n blocks a stage.
        width: What 16, 32 and 64 maps are multiplied by, a multiple of 1/16.
        dropout: The share of what `conv2` reads that is dropped in training.
            Default: .3, but 0 with gates, which are in its place then.
        weight_decay: Coefficient of the weight decay. At least 0.

    Returns:
        A Functional model.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> factor = 0.1 / 50000
        >>> model = WideResNet(kernel_regularizer=SGL0(factor, axis="auto"))
        >>> sparsity_report(model).parameters
        36479194

    Reference:
        Zagoruyko, Komodakis: Wide residual networks, BMVC 2016, in the layout
        of Louizos et al., arXiv 1712.01312, section 4.2, which Bui et al.,
        arXiv 1912.07868, section 5.2, took over.
    """
    input_shape = image_shape(input_shape, at_least=4)
    integer("num_classes", num_classes, at_least=1)
    depth = integer("depth", depth, at_least=10)
    blocks, rest = divmod(depth - 4, 6)
    require(rest == 0, "depth", "6n + 4: 10, 16, 22, 28, ...", depth)
    width = finite_float("width", width, above=0)
    require(
        (16 * width).is_integer(),
        "width",
        "a multiple of 1/16",
        width,
    )
    if dropout is None:
        dropout = 0.3 if gate is None else 0.0
    dropout = finite_float("dropout", dropout, at_least=0, below=1)
    decay = weight_decay_penalty(weight_decay)
    plain = GatedLayers(decay)
    pruned = prunable_layers(kernel_regularizer, gate, decay)
    bare = {"use_bias": False, "padding": "same"}

    def rectified(x, name):
        x = batch_norm(x, decay, name)
        return layers.ReLU(name=f"{name}_relu")(x)

    def halved(x, filters, name):
        # 'same' padding would not center on the positions the shortcut takes.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        return plain.conv(x, filters, 3, name, use_bias=False, strides=2)

    def block(x, filters, strides, name):
        y = rectified(x, f"{name}_bn1")
        if x.shape[-1] != filters:
            x = plain.conv(
                y, filters, 1, f"{name}_shortcut", strides=strides, **bare
            )
        y = pruned.conv(y, filters, 3, f"{name}_conv1", **bare)
        y = rectified(y, f"{name}_bn2")
        if dropout:
            y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
        if strides > 1:
            y = halved(y, filters, f"{name}_conv2")
        else:
            y = plain.conv(y, filters, 3, f"{name}_conv2", **bare)
        return layers.Add(name=f"{name}_add")([x, y])

    inputs = keras.Input(input_shape)
    x = plain.conv(inputs, 16, 3, "conv", **bare)
    for stage, strides in enumerate((1, 2, 2), 1):
        filters = int(16 * width) * 2 ** (stage - 1)
        for number in range(1, blocks + 1):
            name = f"stage{stage}_block{number}"
            x = block(x, filters, strides if number == 1 else 1, name)
    x = rectified(x, "bn")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = plain.dense(x, num_classes, "fc", bias_regularizer=decay)
    return network(inputs, outputs, f"wrn_{depth}_{width:g}", prunable=pruned)
