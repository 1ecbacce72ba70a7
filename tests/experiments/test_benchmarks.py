"""What is measured, on networks that are small enough for a test."""

import json
import os
import time

import keras
import pytest

from keras_sgl0.experiments import plots
from keras_sgl0.experiments.benchmarks import networks, shrinking
from keras_sgl0.experiments.benchmarks.engines import engines
from keras_sgl0.experiments.benchmarks.inference import inference
from keras_sgl0.experiments.benchmarks.networks import by_title, network
from keras_sgl0.experiments.benchmarks.overhead import overhead
from keras_sgl0.experiments.benchmarks.shrinking import (
    ShrinkCosts,
    shrink_costs,
)
from keras_sgl0.experiments.benchmarks.tables import StepTimes
from keras_sgl0.structures.families import structures


def test_every_variant_takes_its_turns():
    report = overhead(network("mlp"), 8, rounds=2, steps=1)
    assert list(report.times) == [
        "plain",
        "group lasso",
        "group lasso, proximal",
        'SGL0, refresh="step"',
        'SGL0, refresh="batch"',
        "coupled group lasso",
        "coupled group lasso, proximal",
        "coupled SGL0",
    ]
    assert all(len(t) == 2 and min(t) > 0 for t in report.times.values())
    assert set(report.bases) <= set(report.times)


def test_the_size_of_a_network():
    build = network("resnet", 8, 0.5)
    assert build(None).output_shape == (None, 10)
    assert len(build(None).prunable_layers) == 3
    assert len(network("resnet")(None).prunable_layers) == 9
    with pytest.raises(ValueError, match="Expected none, as mobilenet_v2"):
        network("mobilenet_v2", depth=8)


def test_ratios_are_those_of_the_rounds():
    times = {"a": [1.0, 2.0, 4.0], "b": [2.0, 5.0, 4.0]}
    report = StepTimes(times, ("a",), batch_size=10)
    assert report.ratios("b", "a") == [2.0, 2.5, 1.0]
    assert [line.split() for line in str(report).splitlines()[2:]] == [
        ["a", "2000.", "1000.", "4000.", "5", "1.000", "1.000-1.000"],
        ["b", "4000.", "2000.", "5000.", "2", "2.000", "1.500-2.250"],
    ]
    assert report.to_dict()["times"] == times


def test_networks_by_title():
    assert by_title("WRN-10-1").count_params() < 100_000
    assert len(by_title("ResNet-8").prunable_layers) == 3
    assert by_title("lenet5_caffe").count_params() == 431_080
    with pytest.raises(ValueError, match="Expected WRN-16-4, ResNet-56"):
        by_title("WRN")


def test_half_of_each_family_dies():
    model = by_title("ResNet-8")
    networks.kill_half(model)
    found = structures(model)
    dead = ~found.alive(lambda w: keras.ops.convert_to_numpy(w))
    for family, count in enumerate(found.counts):
        assert dead[found.families == family].sum() == count // 2


def test_the_costs_of_shrinking(tmp_path, monkeypatch):
    report = shrink_costs(["mlp", "ResNet-8"], rounds=2)
    first, second = report.costs
    assert (first.network, second.network) == ("mlp", "ResNet-8")
    assert first.parameters == by_title("mlp").count_params()
    assert len(first.seconds) == 2 and first.median > 0
    if os.path.exists("/proc/self/clear_refs"):
        assert first.peak >= 0
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(report.to_dict() | {"versions": {}}))
    assert ShrinkCosts.read(path) == report
    assert "ResNet-8" in str(report)
    monkeypatch.setattr(shrinking.sys, "platform", "darwin")
    assert shrinking._peak(int) is None
    with pytest.raises(ValueError, match="names of networks"):
        shrink_costs([], rounds=1)


def test_the_figure_of_the_costs(tmp_path):
    pytest.importorskip("matplotlib")
    costs = [
        shrinking.ShrinkCost("WRN-16-1", 9, 10**6, [2.0, 1.0, 4.0], 5_000_000),
        shrinking.ShrinkCost("WRN-16-2", 9, 4 * 10**6, [3.0], None),
        shrinking.ShrinkCost("VGG16", 9, 9 * 10**6, [5.0], 7_000_000),
    ]
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(ShrinkCosts(tuple(costs)).to_dict()))
    times, memory = plots.shrink_costs(path).axes
    wide, single = times.lines
    assert wide.get_xydata().tolist() == [[1, 1], [4, 3]]
    assert single.get_xydata().tolist() == [[9, 5]]
    assert memory.lines[0].get_xydata().tolist() == [[1, 5]]


def test_the_time_of_a_layer_and_of_a_parameter():
    costs = ShrinkCosts(
        tuple(
            shrinking.ShrinkCost("", layers, size, [9.0, seconds], None)
            for layers, size, seconds in (
                (10, 10**6, 0.102),
                (20, 10**6, 0.202),
                (10, 10**8, 0.3),
            )
        )
    )
    assert costs.rates() == pytest.approx((0.01, 2e-9))
    assert "about 10.0 ms a layer and 2.0 ns a parameter" in str(costs)


def test_memory_is_that_of_the_peak():
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("only Linux says")
    peak = shrinking._peak(lambda: bytearray(50_000_000) and None)
    assert 49e6 < peak < 80e6


@pytest.mark.tensorflow
def test_inference_before_and_after():
    report = inference(["mlp"], ["litert"], rounds=2, batch_sizes=[1])
    comparison = report.comparisons["mlp"]
    names = [change.name for change in comparison.changes[-2:]]
    assert names == ["tensorflow, batch 1", "litert, batch 1"]
    assert all(change.spread is not None for change in comparison.changes[-2:])
    assert str(report).startswith("mlp\n")
    assert json.loads(json.dumps(report.to_dict()))["comparisons"]


@pytest.mark.tensorflow
def test_three_trainings_take_turns():
    from keras_sgl0.experiments import datasets
    from keras_sgl0.experiments.benchmarks import training
    from keras_sgl0.experiments.recipe_changes import adapt
    from keras_sgl0.experiments.recipes import RECIPES

    recipe = adapt(
        RECIPES["digits_group_lasso_coupled"],
        model="mlp",
        epochs=2,
        batch_size=500,
        factor=200.0,
    )
    data = datasets.load("digits")
    report = training.training_times(recipe, data, every=1)
    dense, sparse, shrinking = report.trainings
    assert [one.name for one in report.trainings] == [
        *("dense", "sparse", "sparse, shrinking"),
    ]
    assert all(len(one.seconds) == 2 for one in report.trainings)
    assert all(one.total > sum(one.seconds) > 0 for one in report.trainings)
    assert dense.parameters > sparse.parameters == shrinking.parameters
    assert sparse.error == pytest.approx(shrinking.error)
    assert "an epoch at the end" in str(report)
    for name, settings, words in (
        ("digits_plain", [], "a penalty on weights"),
        ("digits_plane", [], "`recipe`"),
        ("digits", ["epochs=1,2"], "`set`.*one value for each name"),
        ("digits", ["epoch=1"], "`setting`"),
    ):
        with pytest.raises(ValueError, match=words):
            training.train_recipe(name, settings, every=1)


@pytest.mark.tensorflow
def test_a_training_that_fails_ends_the_comparison():
    from keras_sgl0.experiments.benchmarks.training import _Turns

    def fails(wait):
        wait()
        raise ZeroDivisionError

    turns = _Turns(fails)
    turns.next()
    assert not turns.is_over
    with pytest.raises(ZeroDivisionError):
        turns.next()


@pytest.mark.tensorflow
def test_a_turn_lasts_up_to_the_end_of_the_epoch():
    from keras_sgl0.experiments.benchmarks.training import _Turns

    def sleeps(wait):
        for _ in range(2):
            time.sleep(0.05)
            wait()
        return 3, 1.5

    turns = _Turns(sleeps)
    while not turns.is_over:
        turns.next()
    assert turns.result == (3, 1.5)
    assert len(turns.seconds) == 2 and min(turns.seconds) > 0.04
    assert turns.rest < 0.05


@pytest.mark.slow
def test_engines_take_turns():
    pytest.importorskip("torch")
    before = os.environ.get("KERAS_BACKEND")
    report = engines("mlp", 8, rounds=2, steps=1, backends=["torch"])
    assert os.environ.get("KERAS_BACKEND") == before
    assert list(report.times) == ["torch", "torch, bfloat16"]
    assert report.bases == ("torch",)
    assert all(len(turns) == 2 for turns in report.times.values())
