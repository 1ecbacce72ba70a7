"""Backbones of KerasHub with tiny configs."""

import functools

import keras
from keras import layers

from networks.common import NETWORKS, network


def _hub(name, **config):
    import keras_hub

    return getattr(keras_hub.models, name)(**config)


def _with_head(name, **config):
    """Returns a backbone of a known length, and a dense layer that reads it."""
    model = _hub(name, **config)
    if not isinstance(model.input, dict):
        return keras.Model(model.input, layers.Dense(10)(model.output))
    # With a known length its layers can be followed.
    inputs = {
        key: keras.Input(
            [_LENGTH if n is None else n for n in x.shape[1:]],
            dtype=x.dtype,
            name=key,
        )
        for key, x in model.input.items()
    }
    outputs = keras.tree.flatten(model(inputs))
    return keras.Model(inputs, [layers.Dense(10)(y) for y in outputs])


_LENGTH = 12


_TEXT = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 16,
}
_LLAMA = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
_HUB = {
    "BertBackbone": _TEXT,
    "DistilBertBackbone": _TEXT,
    "RobertaBackbone": _TEXT,
    "GPT2Backbone": _TEXT,
    "OPTBackbone": _TEXT,
    "BartBackbone": _TEXT,
    "LlamaBackbone": _LLAMA,
    "MistralBackbone": _LLAMA,
    "GemmaBackbone": _LLAMA | {"head_dim": 8},
    "WhisperBackbone": {
        "vocabulary_size": 100,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "max_encoder_sequence_length": 16,
        "max_decoder_sequence_length": 16,
    },
    "ViTBackbone": {
        "image_shape": (32, 32, 3),
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 32,
        "mlp_dim": 64,
    },
    "SwinTransformerBackbone": {
        "image_shape": (32, 32, 3),
        "patch_size": 4,
        "embed_dim": 32,
        "depths": [2, 2],
        "num_heads": [4, 4],
        "window_size": 4,
    },
    "MobileNetBackbone": {
        "stackwise_expansion": [[40, 56], [64, 144]],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_filters": [[16, 16], [24, 24]],
        "stackwise_kernel_size": [[3, 5], [5, 3]],
        "stackwise_num_strides": [[2, 1], [1, 1]],
        "stackwise_se_ratio": [[0.25, None], [0.25, 0.25]],
        "stackwise_activation": [["relu6", "hard_swish"], ["hard_swish"] * 2],
        "stackwise_padding": [[1, 2], [2, 1]],
        "output_num_filters": 64,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
        "input_num_filters": 16,
        "image_shape": (32, 32, 3),
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 64,
    },
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0] * 2,
        "stackwise_depth_coefficients": [1.0] * 2,
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [2, 2],
        "stackwise_input_filters": [16, 16],
        "stackwise_output_filters": [16, 24],
        "stackwise_expansion_ratios": [1, 4],
        "stackwise_strides": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_block_types": ["v1", "v1"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "image_shape": (32, 32, 3),
    },
}
for _name, _config in _HUB.items():
    NETWORKS[_name] = functools.partial(_with_head, _name, **_config)


def _hub_resnet(size):
    return _hub(
        "ResNetBackbone",
        input_conv_filters=[16],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(size, size, 3),
    )


@network
def ResNetBackbone():
    return _hub_resnet(64)


@network
def DeepLabV3Backbone():
    return _hub(
        "DeepLabV3Backbone",
        image_encoder=_hub_resnet(64),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[6, 12],
        upsampling_size=4,
        image_shape=(64, 64, 3),
    )


@network
def RetinaNetBackbone():
    return _hub(
        "RetinaNetBackbone",
        image_encoder=_hub_resnet(128),
        min_level=3,
        max_level=4,
        use_p5=False,
        image_shape=(128, 128, 3),
    )


@network
def SegFormerBackbone():
    encoder = _hub(
        "MiTBackbone",
        layerwise_depths=[1, 1],
        image_shape=(32, 32, 3),
        hidden_dims=[16, 32],
        num_layers=2,
        layerwise_num_heads=[2, 4],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
    )
    return _hub(
        "SegFormerBackbone", image_encoder=encoder, projection_filters=32
    )
