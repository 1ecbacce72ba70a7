import pytest

from keras_sgl0.experiments import benchmark


def test_every_variant_takes_its_turns():
    times = benchmark.overhead(benchmark.network("mlp"), 8, rounds=2, steps=1)
    assert list(times) == [
        "plain",
        "group lasso",
        "group lasso, proximal",
        'SGL0, refresh="step"',
        'SGL0, refresh="batch"',
        "coupled group lasso",
        "coupled group lasso, proximal",
        "coupled SGL0",
    ]
    assert all(len(t) == 2 and min(t) > 0 for t in times.values())


def test_the_size_of_a_network():
    build = benchmark.network("resnet", 8, 0.5)
    assert build(None).output_shape == (None, 10)
    assert len(build(None).prunable_layers) == 3
    assert len(benchmark.network("resnet")(None).prunable_layers) == 9
    with pytest.raises(ValueError, match="Expected none, as mobilenet_v2"):
        benchmark.network("mobilenet_v2", depth=8)
