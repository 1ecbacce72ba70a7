"""Backbones of KerasHub, where it is installed."""

import keras
import numpy as np
import pytest
from helpers import assert_same_outputs

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
