"""Pictures show the numbers of the files they are drawn from."""

import json
import pathlib
import shutil
import statistics
import sys

import keras
import matplotlib
import numpy as np
import pytest
from test_scripts import run_script

from keras_sgl0 import SGL0, count_macs, prune, structures
from keras_sgl0 import path as ks_path
from keras_sgl0.experiments import plots
from keras_sgl0.experiments.plots.methods import _front
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.models import LeNet5Caffe, ResNet

pytestmark = pytest.mark.tensorflow

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
SPARSITIES = ("weight_sparsity", "neuron_sparsity")


def write_run(folder, recipe, figures=(90, 60, 1), history="", **settings):
    """Writes what a run leaves, and returns its folder."""
    recipe = adapt(RECIPES[recipe], **settings).to_dict()
    names = (*SPARSITIES, "test_error")
    result = dict(zip(names, figures, strict=True))
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(
        json.dumps(result | {"recipe": recipe, "seed": recipe["seed"]})
    )
    if history:
        (folder / "history.csv").write_text(history)
    return folder


@pytest.fixture
def sweep(tmp_path):
    """Two methods, three factors, two seeds."""
    for name, first in (("mnist_sgl0", 80), ("mnist_cges", 70)):
        for i, factor in enumerate((0.01, 0.1, 1.0)):
            for seed in (0, 1):
                write_run(
                    tmp_path / f"{name}-{seed}-{factor}",
                    name,
                    (first + i + seed, i + 2 * seed, 1 + i - seed / 2),
                    factor=factor,
                    seed=seed,
                )
    return tmp_path


def lines(axis):
    """Returns the points of each line with error bars, and their bars."""
    found = {}
    for container in axis.containers:
        line, _, bars = container.lines
        ends = [bar.get_segments() for bar in bars]
        found[container.get_label()] = (line.get_xydata(), ends)
    return found


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_against_shows_means_and_deviations(sweep):
    figure = plots.against([sweep])
    assert [axis.get_title() for axis in figure.axes] == [
        "weight sparsity, %",
        "neuron sparsity, %",
        "test error, %",
    ]
    assert legend(figure) == ["CGES", "SGL0"]
    weights, neurons, error = map(lines, figure.axes)
    points, (bars,) = weights["SGL0"]
    assert points == pytest.approx(
        np.array([(0.01, 80.5), (0.1, 81.5), (1, 82.5)])
    )
    assert neurons["CGES"][0][:, 1] == pytest.approx([1, 2, 3])
    assert error["CGES"][0][:, 1] == pytest.approx([0.75, 1.75, 2.75])
    half = statistics.stdev([80, 81])
    assert bars[0][:, 1] == pytest.approx([80.5 - half, 80.5 + half])


def test_against_puts_ticks_at_the_values(sweep):
    for axis in plots.against([sweep]).axes:
        assert axis.get_xscale() == "log"
        ticks = [text.get_text() for text in axis.get_xticklabels()]
        assert ticks == ["0.01", "0.1", "1"]
        assert axis.get_xlabel() == "factor times N"


def test_against_in_other_units(sweep):
    axis = plots.against([sweep], unit=10).axes[0]
    assert lines(axis)["SGL0"][0][:, 0] == pytest.approx([0.001, 0.01, 0.1])
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert ticks == ["0.001", "0.01", "0.1"]
    assert axis.get_xlabel() == "factor times N / 10"


def test_against_another_setting(tmp_path):
    for density in (0.1, 0.2, 0.3):
        folder = tmp_path / str(density)
        write_run(folder, "digits_lenet_l0_constrained", density=(density,))
    axis = plots.against([tmp_path], "density").axes[0]
    assert lines(axis)["L0 gates"][0][:, 0] == pytest.approx([0.1, 0.2, 0.3])
    assert axis.get_xscale() == "linear"


def test_against_leaves_out_what_has_no_factor(sweep):
    for name in ("mnist_sgl0_density", "mnist_lenet_l0_constrained_layers"):
        write_run(sweep / name, name)
    share = write_run(sweep / "share", "mnist_sgl0", share_of_max=0.1)
    # Version 0.1 accepted a factor beside it.
    path = share / "result.json"
    old = path.read_text()
    assert '"factor": 0.1' in old
    path.write_text(old.replace('"factor": 0.1', '"factor": 7.0'))
    write_run(sweep / "plain", "mnist_plain", (0, 0, 0.8))
    write_run(sweep / "plain1", "mnist_plain", (0, 0, 0.9), seed=1)
    figure = plots.against([sweep])
    assert legend(figure) == ["CGES", "SGL0", "no penalty"]
    level = figure.axes[2].get_lines()[-1]
    assert level.get_label() == "no penalty"
    assert level.get_ydata() == pytest.approx([0.85, 0.85])
    for axis in figure.axes:
        assert max(x for x, _ in lines(axis)["SGL0"][0]) == 1


def test_gates_with_a_factor_are_a_method(sweep):
    write_run(sweep / "gates", "mnist_lenet_l0")
    assert "L0 gates" in legend(plots.against([sweep]))


def test_a_label_says_what_tells_a_line_from_the_others(sweep):
    write_run(sweep / "admm", "mnist_sgl0_admm")
    write_run(sweep / "short", "mnist_sgl0", epochs=50)
    write_run(sweep / "normalized", "mnist_sgl0", epochs=50, normalize=True)
    assert legend(plots.against([sweep])) == [
        "CGES",
        "SGL0, by ADMM",
        "SGL0, by splitting, normalize false, epochs 200",
        "SGL0, by splitting, normalize true",
        "SGL0, by splitting, normalize false, epochs 50",
    ]


def test_more_lines_than_colours_are_told_apart(tmp_path):
    for batch_size in range(1, 31):
        write_run(tmp_path / f"{batch_size}", "digits", batch_size=batch_size)
    axis = plots.against([tmp_path]).axes[0]
    looks = {
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line, *_ in (container.lines for container in axis.containers)
    }
    assert len(looks) == 30


def test_pareto_shows_points_and_front(sweep):
    write_run(sweep / "plain", "mnist_plain", (0, 0, 0.8))
    write_run(sweep / "density", "mnist_sgl0_density", (85, 0, 0.6))
    figure = plots.pareto([sweep])
    assert legend(figure) == [
        "CGES",
        "SGL0, by density",
        "SGL0, by factor",
        "Pareto front",
        "no penalty",
    ]
    weights, _ = figure.axes
    points, bars = lines(weights)["SGL0, by factor"]
    assert points == pytest.approx(
        np.array([(80.5, 0.75), (81.5, 1.75), (82.5, 2.75)])
    )
    assert len(bars) == 2
    names = {line.get_label(): line for line in weights.get_lines()}
    assert names["Pareto front"].get_xydata().tolist() == [[85, 0.6]]


def test_the_front_has_no_point_to_its_lower_right():
    x, y = [1, 2, 3, 4, 4, 0], [1, 3, 2, 5, 4, 1]
    assert _front(x, y) == [(1, 3, 4), (1, 2, 4)]


def test_all_committed_runs_can_be_drawn():
    assert len(legend(plots.pareto([RESULTS]))) > 8
    assert "L0 gates" in " ".join(legend(plots.against([RESULTS])))


HISTORY = """epoch,val_error,weight_sparsity,{}
0,.5,.1,{}
1,.25,.3,{}
"""


def test_epochs_shows_a_panel_for_what_there_is(tmp_path):
    split = HISTORY.format("threshold,beta", ".3,1", ".2,2")
    write_run(tmp_path / "split", "digits", history=split)
    target = HISTORY.format("density,strength,seconds", ".9,1,5", ".5,2,5")
    write_run(tmp_path / "target", "digits_sgl0_density", history=target)
    figure = plots.epochs([tmp_path])
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == [
        "weight sparsity, %",
        "test error, %",
        "threshold",
        "beta",
        "density of the target, %",
        "strength of the penalty",
    ]
    assert legend(figure) == ["split", "target"]
    error = panels["test error, %"].get_lines()[0]
    assert error.get_xydata().tolist() == [[1, 50], [2, 25]]
    (threshold,) = panels["threshold"].get_lines()
    assert threshold.get_ydata().tolist() == [0.3, 0.2]
    (density,) = panels["density of the target, %"].get_lines()
    assert density.get_ydata().tolist() == [90, 50]


def test_epochs_shows_the_loss_and_the_learning_rate(tmp_path):
    text = HISTORY.format("loss,learning_rate", "3,.1", "2,.01")
    write_run(tmp_path / "run", "digits", history=text)
    panels = {
        axis.get_title(): axis.get_lines()[0].get_ydata().tolist()
        for axis in plots.epochs([tmp_path]).axes
    }
    assert panels["training loss"] == [3, 2]
    assert panels["learning rate"] == [0.1, 0.01]


def test_ticks_are_percentages_and_of_errors_there_are_several(tmp_path):
    columns = "neuron_sparsity"
    for name, errors in {"near": (0.0064, 0.0066), "far": (0.9, 0.01)}.items():
        first, last = errors
        text = f"epoch,val_error,weight_sparsity,{columns}\n"
        text += f"0,{first},0,0\n1,{last},1,0\n"
        folder = write_run(tmp_path / name, "digits", history=text)
        weights, neurons, error = plots.epochs([folder]).axes
        for axis in (weights, neurons):
            assert all(0 <= tick <= 100 for tick in axis.get_yticks())
            assert len(axis.get_yticks()) >= 2
        low, high = error.get_ylim()
        assert sum(low <= tick <= high for tick in error.get_yticks()) >= 3


def test_epochs_shows_the_targets_of_layers(tmp_path):
    columns = "density_fc1,density_fc2,multiplier_fc1,multiplier_fc2"
    text = HISTORY.format(columns, ".9,.8,0,1", ".5,.4,1,2")
    name = "digits_lenet_l0_constrained_layers"
    write_run(tmp_path / "layers", name, history=text)
    axes = plots.epochs([tmp_path]).axes
    for axis in axes[2:]:
        labels = [line.get_label() for line in axis.get_lines()]
        assert labels == ["fc1", "fc2"]
        shown = [text.get_text() for text in axis.get_legend().get_texts()]
        assert shown == labels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A LeNet with dead filters, a threshold and a tolerance."""
    folder = tmp_path_factory.mktemp("model") / "run"
    text = HISTORY.format("threshold", ".3", ".2")
    write_run(folder, "digits", history=text, tolerance=1e-4)
    keras.utils.set_random_seed(0)
    model = LeNet5Caffe(kernel_regularizer=SGL0(1e-3, "auto"))
    for name, dead in (("conv1", [0, 2]), ("conv2", range(40))):
        kernel = model.get_layer(name).kernel
        values = keras.ops.convert_to_numpy(kernel).copy()
        values[..., list(dead)] = 0
        kernel.assign(values)
    model.save(folder / "model.keras")
    return folder


def picture(figure):
    return np.ma.filled(figure.axes[0].get_images()[0].get_array(), np.nan)


def test_filters_of_one_channel_fill_a_square_and_dead_ones_are_grey(run):
    figure = plots.filters(run)
    title = "conv1: 18 of 20 filters are left"
    assert figure.axes[0].get_title() == title
    shown = picture(figure)
    assert shown.shape == (4 * 6 - 1, 5 * 6 - 1)
    model = keras.saving.load_model(run / "model.keras")
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
    np.testing.assert_array_equal(shown[:5, 6:11], kernel[:, :, 0, 1])
    np.testing.assert_array_equal(shown[:5, 18:23], kernel[:, :, 0, 3])
    np.testing.assert_array_equal(shown[18:, 24:], kernel[:, :, 0, 19])
    assert np.isnan(shown[5]).all()
    assert np.isnan(shown[:5, :5]).all()
    assert np.isnan(shown[:5, 12:17]).all()
    assert np.count_nonzero(~np.isnan(shown)) == 18 * 25


def test_filters_of_several_channels_are_columns(run):
    axis = plots.filters(run / "model.keras", "conv2").axes[0]
    assert axis.get_title() == "conv2: 10 of 50 filters are left"
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == [str(i) for i in range(40, 50)]
    shown = picture(axis.figure)
    assert shown.shape == (20 * 6 - 1, 50 * 6 - 1)
    assert np.isnan(shown[:, : 40 * 6]).all()
    model = keras.saving.load_model(run / "model.keras")
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv2").kernel)
    place = 41 * 6
    np.testing.assert_array_equal(
        shown[12:17, place : place + 5], kernel[:, :, 2, 41]
    )
    ticks = axis.get_xticks()
    assert (ticks > 40 * 6).all() and ticks[1] == place + 2


def test_weights_are_counted_without_zeros(run):
    figure = plots.weights(run)
    conv1, conv2, *_ = figure.axes
    assert conv1.get_title() == "conv1/kernel, 10.0% zero"
    assert conv2.get_title() == "conv2/kernel, 80.0% zero"
    assert sum(bar.get_height() for bar in conv1.patches) == 450
    assert sum(bar.get_height() for bar in conv2.patches) == 5000
    assert legend(figure) == ["tolerance 0.0001", "threshold 0.2"]
    places = [line.get_xdata()[0] for line in conv1.get_lines()]
    assert places == [1e-4, 0.2]


def test_weights_of_a_file_without_a_run(run, tmp_path):
    shutil.copy(run / "model.keras", tmp_path / "a.keras")
    assert legend(plots.weights(tmp_path / "a.keras")) == ["tolerance 1e-05"]


def test_weights_of_a_dead_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.layers[0].kernel.assign(np.zeros((3, 2)))
    model.save(tmp_path / "model.keras")
    (axis,) = plots.weights(tmp_path).axes
    assert axis.get_title().endswith("100.0% zero")


def test_structures_has_a_bar_for_each_family(tmp_path):
    model = ResNet(depth=8)
    model.save(tmp_path / "model.keras")
    (axis,) = plots.structures(tmp_path).axes
    report = structures(model).report()
    bars = [bar.get_width() for bar in axis.patches]
    assert bars == [100 * family.share for family in report.families]
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names[1] == "stage1_block1_conv1"
    assert len(names) == len(bars) == 6
    stays = f"{report.smallest_macs / report.macs:.1%}"
    assert axis.get_title() == (
        "resnet_8_1: 224 channels in 6 families\n"
        f"with one channel each, {stays} of the multiply-adds stay"
    )
    again = plots.structures(structures(model)).axes[0]
    assert [bar.get_width() for bar in again.patches] == bars


def test_structures_of_inputs_without_a_size():
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Conv2D(2, 3),
        ]
    )
    (axis,) = plots.structures(structures(model)).axes
    assert axis.get_xlabel().startswith("% of the parameters")


def test_before_and_after_shows_each_layer_with_a_kernel():
    before, after = ResNet(depth=8), ResNet(depth=8, width=0.5)
    figure = plots.before_and_after(before, after)
    channels, macs = figure.axes
    costs = [count_macs(model) for model in (before, after)]
    names = [text.get_text() for text in channels.get_yticklabels()]
    assert names == [e.layer for e in costs[0].layers if e.macs]
    for bars, cost in zip(macs.containers, costs, strict=True):
        found = [bar.get_width() for bar in bars]
        assert found == [e.macs for e in cost.layers if e.macs]
        assert sum(found) == cost.macs
    for bars, model in zip(channels.containers, (before, after), strict=True):
        widths = dict(zip(names, bars, strict=True))
        for name, bar in widths.items():
            kernel = model.get_layer(name).kernel
            assert bar.get_width() == kernel.shape[-1]


def test_a_report_is_drawn_as_its_models_are():
    model = ResNet(depth=8)
    small, report = prune(model, macs=0.5, importance="l2")
    wanted = plots.before_and_after(model, small)
    for own in (report, report.shrunk):
        figure = plots.shrunk(own)
        for axis, other in zip(figure.axes, wanted.axes, strict=True):
            assert axis.get_title() == other.get_title()
            assert [bar.get_width() for bar in axis.patches] == [
                bar.get_width() for bar in other.patches
            ]
    macs = figure.axes[1]
    shares = [float(text.get_text().rstrip("%")) for text in macs.texts]
    assert sum(shares) == pytest.approx(100, abs=len(shares) / 2)
    with pytest.raises(ValueError, match=r"`report`. Expected the report of"):
        plots.shrunk(model)


def test_before_and_after_without_sizes_shows_channels_alone():
    inputs = keras.Input((None, None, 3))
    conv = keras.layers.Conv2D(4, 3, name="conv")
    model = keras.Model(inputs, conv(inputs))
    (axis,) = plots.before_and_after(model, model).axes
    assert axis.get_title() == "output channels: 4 before, 4 after"
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"`before`. Expected a model with a"):
        plots.before_and_after(flat, model)


def test_save_writes_the_same_files_again(sweep, tmp_path):
    files = []
    for name in ("made/a", "made/b"):
        figure = plots.against([sweep])
        files.append(plots.save(figure, tmp_path / name))
        endings = [pathlib.Path(path).name[1:] for path in files[-1]]
        assert endings == [".png", ".svg"]
    for first, second in zip(*files, strict=True):
        data = pathlib.Path(first).read_bytes()
        assert len(data) > 10000
        assert data == pathlib.Path(second).read_bytes()


def test_drawing_leaves_no_state_behind(sweep):
    before = dict(matplotlib.rcParams)
    plots.save(plots.against([sweep]), sweep / "figure")
    assert dict(matplotlib.rcParams) == before


def empty_model(folder):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)]
    )
    model.layers[0].kernel.assign(np.zeros((3, 3, 1, 2)))
    model.save(folder / "dead.keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(folder / "dense.keras")
    (folder / "damaged.keras").write_text("no model")
    return folder


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda folder: plots.against([RESULTS], "lambda"),
            "`setting`. Expected one of 'dataset', ",
        ),
        (
            lambda folder: plots.against([RESULTS], "training"),
            r"`folders`. Expected runs with a number as training. Received: ",
        ),
        (
            lambda folder: plots.against([RESULTS], unit=0),
            "`unit`. Expected a finite number greater than 0. Received: ",
        ),
        (
            lambda folder: plots.against([folder / "plain"]),
            "Expected runs with a number as factor",
        ),
        (
            lambda folder: plots.against([folder / "nowhere"]),
            "`folders`. Expected folders of finished runs. Received: ",
        ),
        (
            lambda folder: plots.pareto([folder / "plain"]),
            "`folders`. Expected runs with a penalty. Received: ",
        ),
        (
            lambda folder: plots.epochs([folder / "plain"]),
            "`folder`. Expected a run's folder, with a history.csv",
        ),
        (
            lambda folder: plots.epochs([folder / "other"]),
            "`folders`. Expected runs with a history",
        ),
        (
            lambda folder: plots.filters(folder / "nowhere"),
            "`path`. Expected a run's folder or a .keras file",
        ),
        (
            lambda folder: plots.weights(folder / "damaged.keras"),
            "The model .*damaged.keras cannot be read",
        ),
        (
            lambda folder: plots.filters(folder / "dense.keras"),
            "`path`. Expected a model with a Conv2D. Received: ",
        ),
        (
            lambda folder: plots.filters(folder / "dead.keras"),
            "`layer`. Expected a layer with a filter left. Received: ",
        ),
        (
            lambda folder: plots.filters(folder / "dead.keras", "fc"),
            "`layer`. Expected one of 'conv2d.*'. Received: layer='fc'",
        ),
        (
            lambda folder: plots.structures(folder / "dense.keras"),
            "`source`. Expected a model of which something can be cut. Rec",
        ),
        (
            lambda folder: plots.save(
                plots.pareto([RESULTS]), folder / "a", ["doc"]
            ),
            "`formats`. Expected one of .*'png', .*. Received: formats='doc'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_drawn(tmp_path, draw, message):
    write_run(tmp_path / "plain", "mnist_plain")
    write_run(tmp_path / "other", "digits", history="epoch,seconds\n0,1\n")
    empty_model(tmp_path)
    with pytest.raises(ValueError, match=message):
        draw(tmp_path)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'keras_sgl0\[plot\]'"):
        plots.pareto([RESULTS])


def test_the_script_draws(tmp_path):
    arguments = ("against", str(RESULTS), "--setting=density")
    process = run_script(tmp_path, "plot.py", *arguments)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["plots/against.png", "plots/against.svg"]
    for name in process.stdout.split():
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["weights"],
            "Expected one of against, pareto, front, epochs, importances, "
            "frontier and folders of runs",
        ),
        (["weights", "a.keras", "--output=b"], "plot.py: Invalid value for"),
    ],
    ids=["usage", "file"],
)
def test_the_script_refuses(tmp_path, arguments, message):
    process = run_script(tmp_path, "plot.py", *arguments)
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert message in process.stdout + process.stderr
    assert not list(tmp_path.iterdir())


def test_path_shows_each_size():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    data = np.ones((8, 4)), np.ones((8, 1))
    found = ks_path(model, data, data, macs=[0.8, 0.5], epochs=0, verbose=0)
    figure = plots.path(found.report, "mae")
    line, level = figure.axes[0].get_lines()
    sizes = found.report.sizes
    assert list(line.get_xdata()) == [size.macs_after for size in sizes]
    values = [size.recovered["mae"] for size in sizes]
    assert list(line.get_ydata()) == values
    assert level.get_ydata()[0] == sizes[0].original["mae"]
    names = [axis.get_xlabel() for axis in figure.axes]
    assert names == ["multiply-adds", "parameters", "ms, tensorflow, batch 1"]
    (axis,) = plots.shrunk(sizes[0]).axes
    before, after = axis.containers
    (family,) = sizes[0].families
    assert [bar.get_width() for bar in before] == [family.structures]
    assert [bar.get_width() for bar in after] == [family.structures_after]
    with pytest.raises(ValueError, match="`metric`"):
        plots.path(found.report, "accuracy")
    found = ks_path(model, data, macs=[0.8], epochs=0, verbose=0)
    with pytest.raises(ValueError, match="no metric to draw"):
        plots.path(found.report)


def write_figures(path, error, macs=200_000, seed=0, held_out=0.0, weights=0):
    """Writes what a run of `benchmarks/frontier.py` leaves."""
    settings = {
        "macs": 0.0924,
        "weights": weights,
        "epochs": 120,
        "seed": seed,
        "held_out": held_out,
    }
    figures = {"macs": macs, "weights": 50_000, "error": error}
    path.write_text(json.dumps({**figures, "settings": settings}))
    return path


def test_frontier_shows_runs_beside_published_networks(tmp_path):
    paths = [
        write_figures(tmp_path / "0.json", 0.6),
        write_figures(tmp_path / "1.json", 0.8, macs=220_000, seed=1),
        write_figures(tmp_path / "2.json", 0.9, weights=2700),
    ]
    other = tmp_path / "other.json"
    figures = {"macs": 1000, "weights": 10, "error": 1.0}
    other.write_text(json.dumps({"method": "another", **figures}))
    figure = plots.frontier([*paths, other])
    macs, weights = map(lines, figure.axes)
    label = "target 9.24 %, 120 epochs"
    points, bars = macs[label]
    assert points == pytest.approx(np.array([(210_000, 0.7)]))
    half = statistics.stdev([0.6, 0.8])
    assert bars[1][0][:, 1] == pytest.approx([0.7 - half, 0.7 + half])
    assert weights[label][0] == pytest.approx(np.array([(50_000, 0.7)]))
    assert legend(figure) == [
        label,
        "target 9.24 %, 2,700 weights, 120 epochs",
        "another",
    ]
    for axis, cost in zip(figure.axes, (1000, 10), strict=True):
        (line,) = (e for e in axis.get_lines() if e.get_label() == "another")
        assert line.get_xydata().tolist() == [[cost, 1.0]]


def test_frontier_refuses(tmp_path):
    path = tmp_path / "figures.json"
    with pytest.raises(ValueError, match="Expected files of runs"):
        plots.frontier([])
    with pytest.raises(ValueError, match=r"figures\.json cannot be read"):
        plots.frontier([path])
    path.write_text('{"method": "another", "macs": 1}')
    with pytest.raises(ValueError, match=r"a file with \['error', 'weights'\]"):
        plots.frontier([path])
    write_figures(path, 0.6, held_out=0.2)
    with pytest.raises(ValueError, match="Expected errors on test images"):
        plots.frontier([path])


def test_frontier_of_the_results_has_every_run():
    frontier = RESULTS / "frontier"
    files = [*frontier.glob("0*/*.json"), *frontier.glob("published/*.json")]
    names = legend(plots.frontier(files))
    assert {"SBP", "BC-GHS", "target 9.24 %, 120 epochs"} <= set(names)
