import pytest

import keras_sgl0 as ks

EXPECTED = {
    "lenet5_caffe": (28, 28, 1),
    "mlp": (12,),
    "wide_resnet": (8, 8, 3),
    "resnet": (8, 8, 3),
    "mobilenet_v2": (32, 32, 3),
}
SMALL = {
    "wide_resnet": {"depth": 10, "width": 0.25},
    "resnet": {"depth": 8, "width": 0.25},
}


@pytest.mark.parametrize("name", ks.models.BY_NAME)
@pytest.mark.parametrize("gated", [False, True])
def test_a_network_says_which_layers_a_penalty_is_meant_for(name, gated):
    small = SMALL.get(name, {})
    build = ks.models.BY_NAME[name]
    shape = EXPECTED[name]
    gates = []

    def gate(layer, group_size):
        gates.append(layer)
        return ks.HardConcrete()

    if gated:
        model = build(shape, 10, gate=gate, **small)
        assert model.prunable_layers == tuple(gates)
        return
    penalty = ks.GroupLasso(0.1)
    model = build(shape, 10, penalty, **small)
    carriers = [
        layer.name
        for layer in model.layers
        if getattr(layer, "kernel_regularizer", None) is penalty
    ]
    assert model.prunable_layers == tuple(carriers)
    assert build(shape, 10, **small).prunable_layers == tuple(carriers)


@pytest.mark.parametrize(
    ("build", "depth"), [(ks.models.WideResNet, 16), (ks.models.ResNet, 14)]
)
def test_of_residual_networks_the_first_convolutions_of_the_blocks(
    build, depth
):
    model = build((8, 8, 3), 10, depth=depth, width=0.25)
    assert len(model.prunable_layers) == 6
    assert all(name.endswith("_conv1") for name in model.prunable_layers)
