"""Backbones of KerasHub, where it is installed."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs

import keras_sgl0 as ks
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.flat_copy import FlatCopy

keras_hub = pytest.importorskip("keras_hub")

TEXT = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 12,
}


@pytest.mark.parametrize("name", ["Bert", "DistilBert", "GPT2"])
def test_a_backbone_of_known_length_is_unfolded(name):
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**TEXT)
    inputs = {
        key: keras.Input((6,), dtype=x.dtype, name=key)
        for key, x in backbone.input.items()
    }
    model = keras.Model(inputs, backbone(inputs))
    graph = trace(model)
    assert not any(node.reason for node in graph.nodes)
    rng = np.random.default_rng(0)
    values = {key: rng.integers(0, 2, (2, 6)) for key in inputs}
    assert_same_outputs(model, FlatCopy(graph, "copy").model, inputs=values)


def test_a_decoder_of_unknown_length_stays_whole():
    backbone = keras_hub.models.GPT2Backbone(**TEXT)
    whole = [node for node in trace(backbone).nodes if node.reason]
    assert [node.type for node in whole] == ["TransformerDecoder"]
    assert "sizes of its inputs are not known" in whole[0].reason


def test_gemma_is_cut():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        head_dim=4,
    )
    inputs = {
        key: keras.Input((6,), dtype=x.dtype, name=key)
        for key, x in backbone.input.items()
    }
    y = keras.layers.Dense(3)(backbone(inputs))
    rng = np.random.default_rng(0)
    values = {key: rng.integers(0, 2, (2, 6)) for key in inputs}
    model = keras.Model(inputs, y)
    for v in model.weights:
        v.assign(rng.uniform(-0.5, 0.5, v.shape))
    found = ks.structures(model)
    dead = np.arange(found.size) % 2 == 0
    found.zero(dead)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small, inputs=values)
    assert small.count_params() == found.cost(~dead).parameters
    assert ks.count_macs(small).macs == found.cost(~dead).macs
    norm = small.get_layer("final_normalization")
    assert norm.scale.shape == (4,)


def test_swin_is_cut():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3),
        patch_size=4,
        embed_dim=8,
        depths=[2, 1],
        num_heads=[2, 2],
        window_size=4,
    )
    y = keras.layers.Dense(3)(backbone.output)
    model = keras.Model(backbone.input, y)
    rng = np.random.default_rng(0)
    for v in model.trainable_weights:
        v.assign(rng.uniform(-0.5, 0.5, v.shape))
    assert not any(node.reason for node in trace(model).nodes)
    found = ks.structures(model)
    dead = np.arange(found.size) % 2 == 0
    found.zero(dead)
    small, _ = ks.shrink(model, 0)
    assert small.count_params() == found.cost(~dead).parameters
    assert ks.count_macs(small).macs == found.cost(~dead).macs


def test_the_token_and_the_positions_of_vit_are_cut():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    y = keras.layers.Dense(3)(backbone.output)
    model = keras.Model(backbone.input, y)
    rng = np.random.default_rng(0)
    for v in model.trainable_weights:
        v.assign(rng.uniform(-0.5, 0.5, v.shape))
    assert not any(node.reason for node in trace(model).nodes)
    found = ks.structures(model)
    dead = np.arange(found.size) % 2 == 0
    found.zero(dead)
    small, _ = ks.shrink(model, 0)
    assert_same_outputs(model, small)
    assert small.count_params() == found.cost(~dead).parameters
    assert ks.count_macs(small).macs == found.cost(~dead).macs
    assert small.get_layer("class_token").embeddings.shape == (1, 4)
