"""Searches: the space, the front, hopeless trials, and workers that die."""

import json
import signal
import time

import keras
import pytest
from processes import Program
from test_scripts import environment_with, run_script

from keras_sgl0.experiments import search as searching
from keras_sgl0.experiments.objectives import (
    OBJECTIVES,
    HopelessError,
    StopHopeless,
    objectives_by_name,
)
from keras_sgl0.experiments.recipe_changes import adapt
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run_folder import RunFolder
from keras_sgl0.experiments.run_result import RunResult, Shrunk
from keras_sgl0.experiments.search import search
from keras_sgl0.experiments.search_report import SearchReport, Trial
from keras_sgl0.experiments.search_report import search_report as report_on
from keras_sgl0.experiments.search_space import (
    Dimension,
    space_from_text,
    with_values,
)
from keras_sgl0.utils.validation import RunError

pytestmark = pytest.mark.tensorflow

RECIPE = adapt(RECIPES["digits"], validation=0.2, model="mlp", epochs=4)
SPACE = "factor=loguniform(.01,10),normalize=choice(true,false)"
BOTH = ["validation_error", "macs"]


def feigned(recipe, workdir, *_, callbacks=(), **__):
    """Stands in for `run`: a trade-off that depends on the factor."""
    folder = RunFolder(workdir)
    folder.claim(recipe.to_dict())
    with open(folder.file("starts"), "a") as file:
        file.write("started\n")
    more = [make(recipe, workdir) for make in callbacks]
    rows = []
    for epoch in range(recipe.epochs):
        row = {
            "val_error": 0.01 * recipe.factor,
            "weight_sparsity": 0.5,
            "neuron_sparsity": 0.0,
            "seconds": 2.0,
        }
        rows.append(row)
        folder.write_history(rows)
        for callback in more:
            callback.on_epoch_end(epoch, row)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10, kernel_initializer="zeros"))
    model.save(folder.file("model.keras"))
    return RunResult(
        weight_sparsity=50.0,
        neuron_sparsity=0.0,
        test_error=recipe.factor,
        recipe=recipe.to_dict(),
        seed=0,
        shrunk=Shrunk(macs_after=round(1000 / recipe.factor)),
    )


@pytest.fixture
def feign(monkeypatch):
    monkeypatch.setattr(searching, "run", feigned)


def search_in(folder, trials=4, objectives=BOTH, recipe=RECIPE, **more):
    space = space_from_text(SPACE)
    return search(
        recipe, space, objectives, folder, trials, progress=False, **more
    )


def starts(folder, number):
    path = folder / f"trial-{number}" / "starts"
    return path.read_text().count("started")


def test_a_space_from_text():
    text = (
        "factor=loguniform(.01, 10),depth=integer(10,28), augment=choice(a,b)"
    )
    space = space_from_text(text)
    assert space == {
        "factor": Dimension("loguniform", (0.01, 10.0)),
        "depth": Dimension("integer", (10, 28)),
        "augment": Dimension("choice", ("a", "b")),
    }
    again = ",".join(f"{name}={own}" for name, own in space.items())
    assert space_from_text(again) == space
    assert space["factor"].distribution().log
    assert space["depth"].distribution().high == 28
    assert space["augment"].distribution().choices == ("a", "b")
    assert space_from_text("a=loginteger(1,8)")["a"].distribution().log


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "NAME=KIND"),
        ("factor", "NAME=KIND"),
        ("factor=.1", "NAME=KIND"),
        ("factor=uniform(.1)", "NAME=KIND"),
        ("factor=normal(0,1)", "NAME=KIND"),
        ("factor=choice()", "NAME=KIND"),
        ("factor=uniform(a,b)", "could not convert"),
        ("factor=uniform(0,1),factor=uniform(0,1)", "NAME=KIND"),
        ("factor=uniform(1,0)", "LOW below HIGH"),
        ("factor=loguniform(0,1)", "above 0 for a logarithm"),
    ],
)
def test_bad_spaces(text, message):
    with pytest.raises(ValueError, match=f"`space`. Expected .*{message}"):
        space_from_text(text)


def test_values_become_settings_of_the_recipe():
    recipe = with_values(RECIPE, {"density": 0.25, "normalize": "true"})
    assert (recipe.density, recipe.normalize) == ((0.25,), True)


def test_a_search_finds_a_front(tmp_path, feign):
    report = search_in(tmp_path)
    assert [t.number for t in report.trials] == [0, 1, 2, 3]
    assert [t.state for t in report.trials] == ["complete"] * 4
    for trial in report.trials:
        recipe = json.loads(
            (tmp_path / trial.folder / "recipe.json").read_text()
        )
        assert recipe["factor"] == trial.settings["factor"] == trial.values[0]
        assert (trial.epochs, trial.seconds) == (4, 8.0)
    # Each is on the front: the less error, the more MACs.
    errors = [trial.values[0] for trial in report.front]
    assert len(errors) == 4 and errors == sorted(errors)
    assert report.best == report.front[0]
    assert report.best.test_error is not None
    assert sum(t.test_error is not None for t in report.trials) == 1
    text = (tmp_path / "search.md").read_text()
    assert text == report.to_markdown()
    assert "| validation error | MACs | test error | run |" in text
    assert "4 trials (4 complete): 16 epochs in 0.5 minutes" in text
    assert report.summary() in str(report)
    content = json.loads((tmp_path / "report.json").read_text())
    assert SearchReport.from_dict(content) == report


def test_a_search_goes_on_and_repeats_nothing(tmp_path, feign):
    first = search_in(tmp_path / "a", 3)
    test = (tmp_path / "a" / "test.json").read_text()
    assert search_in(tmp_path / "a", 3) == first
    assert (tmp_path / "a" / "test.json").read_text() == test
    report = search_in(tmp_path / "a", 5)
    assert report.trials[:3] == first.trials or report.best != first.best
    assert [starts(tmp_path / "a", n) for n in range(5)] == [1] * 5
    # As if it had never stopped.
    again = search_in(tmp_path / "b", 5)
    settings = [trial.settings for trial in report.trials]
    assert [trial.settings for trial in again.trials] == settings


def test_an_interrupted_trial_goes_on(tmp_path, monkeypatch):
    def interrupted(recipe, workdir, *arguments, **more):
        feigned(recipe, workdir)
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_in(tmp_path)
    assert report_on(tmp_path).trials[0].state == "running"
    # As if this process had died, which holds the lock of the trial.
    for path in tmp_path.glob("trial-0.lock.*"):
        path.write_text("released")
    monkeypatch.setattr(searching, "run", feigned)
    report = search_in(tmp_path)
    assert [t.state for t in report.trials] == ["complete"] * 4
    assert [starts(tmp_path, n) for n in range(4)] == [2, 1, 1, 1]


def test_a_failing_trial_says_why_and_stops_no_other(tmp_path, monkeypatch):
    def fail(recipe, workdir, *arguments, **more):
        if workdir.endswith("trial-1"):
            raise RunError("The loss became nan.")
        return feigned(recipe, workdir)

    monkeypatch.setattr(searching, "run", fail)
    report = search_in(tmp_path, 3)
    states = [trial.state for trial in report.trials]
    assert states == ["complete", "failed", "complete"]
    problem = (tmp_path / "trial-1" / "problem.txt").read_text()
    assert problem == "The loss became nan.\n"
    assert "2 complete, 1 failed" in report.summary()


def test_one_objective_has_a_best_trial(tmp_path, feign):
    report = search_in(tmp_path, 3, ["validation_error"])
    (best,) = report.front
    assert best.values == [min(trial.values[0] for trial in report.trials)]


def test_a_front_has_what_nothing_dominates():
    def trial(number, *values):
        return Trial(number, "complete", {}, list(values), 1, 1.0)

    report = SearchReport(
        ("validation_error", "weight_sparsity"),
        (
            trial(0, 2.0, 80.0),
            trial(1, 1.0, 70.0),
            trial(2, 2.0, 79.0),
            trial(3, 1.0, 70.0),
            Trial(4, "pruned", {}, [], 1, 1.0),
            trial(5, 3.0, 90.0),
        ),
    )
    assert [own.number for own in report.front] == [1, 3, 0, 5]


def run_folders(tmp_path, errors):
    for number, error in enumerate(errors):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        row = {"val_error": error, "neuron_sparsity": 0.5}
        RunFolder(folder).write_history([row] * 6)
        yield str(folder)


@pytest.mark.parametrize(
    ("error", "sparsity", "stops"),
    [(0.35, 0.4, True), (0.25, 0.4, False), (0.35, 0.6, False)],
    ids=["worse in both", "better error", "better sparsity"],
)
def test_a_hopeless_trial_stops(tmp_path, error, sparsity, stops):
    others = list(run_folders(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5]))
    both = objectives_by_name(BOTH).values()
    stop = StopHopeless(both, others, str(tmp_path / "own"), epochs=6)
    row = {"val_error": error, "neuron_sparsity": sparsity}
    stop.on_epoch_end(0, row)  # a sixth of the epochs: too soon to tell
    if not stops:
        return stop.on_epoch_end(1, row)
    with pytest.raises(HopelessError, match="3 of 5 trials were better"):
        stop.on_epoch_end(1, row)


def test_few_trials_make_no_trial_hopeless(tmp_path):
    others = list(run_folders(tmp_path, [0.1, 0.2, 0.3, 0.4]))
    both = objectives_by_name(BOTH).values()
    stop = StopHopeless(both, others, str(tmp_path / "own"), epochs=6)
    stop.on_epoch_end(5, {"val_error": 1.0, "neuron_sparsity": 0.0})


@pytest.mark.slow
def test_a_search_stops_hopeless_trials(tmp_path, feign):
    report = search_in(tmp_path, 14, ["validation_error"])
    pruned = [t for t in report.trials if t.state == "pruned"]
    assert pruned
    assert all(trial.epochs == 2 and not trial.values for trial in pruned)
    whole = search_in(tmp_path / "all", 14, ["validation_error"], prune=False)
    assert {trial.state for trial in whole.trials} == {"complete"}


def test_objectives_that_are_to_be_large():
    objective = OBJECTIVES["weight_sparsity"]
    assert objective.cost(80.0) == -80.0
    assert objective.early_cost({"weight_sparsity": "0.8"}) == -0.8
    assert OBJECTIVES["macs"].early_cost({"neuron_sparsity": 0.5}) == -0.5
    assert OBJECTIVES["validation_error"].early_cost({"val_error": 1}) == 1


WORKER = """
import pathlib, sys, time
sys.path.insert(0, {tests!r})
import test_search as tests
from keras_sgl0.experiments import search as searching

def slow(recipe, workdir, *arguments, **more):
    tests.RunFolder(workdir).claim(recipe.to_dict())
    with open(pathlib.Path(workdir, "starts"), "a") as file:
        file.write("started\\n")
    time.sleep(0.5)
    pathlib.Path(workdir, "starts").rename(pathlib.Path(workdir, "before"))
    result = tests.feigned(recipe, workdir)
    pathlib.Path(workdir, "before").replace(pathlib.Path(workdir, "starts"))
    return result

searching.run = slow
tests.search_in(pathlib.Path(sys.argv[1]), 8)
"""


def test_of_two_workers_one_is_killed(tmp_path):
    program = tmp_path / "worker.py"
    tests = str(searching.pathlib.Path(__file__).parent)
    program.write_text(WORKER.format(tests=tests))
    folder = tmp_path / "search"
    workers = [
        Program(program, folder, env=environment_with()) for _ in range(2)
    ]
    deadline = time.monotonic() + 120
    while not (folder / "trial-3" / "starts").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers[0].send_signal(signal.SIGKILL)
    for worker in workers:
        worker.communicate()
    assert [w.returncode for w in workers] == [-signal.SIGKILL, 0]
    report = report_on(folder)
    assert [t.state for t in report.trials] == ["complete"] * 8
    # That of the dead worker was taken up by the other one.
    assert sorted(starts(folder, n) for n in range(8)) in (
        [1] * 8,
        [1] * 7 + [2],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "`trials`. Expected an integer of at least 1"),
        ({"objectives": []}, "`objectives`. Expected different names"),
        ({"objectives": ["macs", "macs"]}, "`objectives`. Expected different"),
        ({"objectives": ["speed"]}, "`objectives`. Expected one of 'valid"),
        (
            {"recipe": RECIPES["digits"]},
            "`validation`. Expected a share of held-out images",
        ),
        (
            {"recipe": adapt(RECIPES["digits_plain"], validation=0.2)},
            r"`factor`. .*without a penalty.*\(in the space, factor=logunif",
        ),
    ],
)
def test_bad_searches(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        search_in(tmp_path / "search", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_search_is_refused(tmp_path, feign):
    search_in(tmp_path, 1)
    expected = "`folder`. Expected a new folder or one of the same recipe"
    with pytest.raises(ValueError, match=expected):
        search_in(tmp_path, 1, ["validation_error"])
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"search.json cannot be read"):
        search_in(tmp_path, 1)


def test_a_folder_that_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`folder`. Expected a folder that"):
        search_in(tmp_path / "file" / "here")
    with pytest.raises(ValueError, match=r"`folder`. Expected the folder of a"):
        report_on(tmp_path)


def test_a_damaged_journal_is_named(tmp_path, feign):
    search_in(tmp_path, 1)
    journal = tmp_path / "journal.log"
    journal.write_text("{\n" + journal.read_text())
    with pytest.raises(ValueError, match=r"journal.log cannot be read as a"):
        report_on(tmp_path)


def test_the_script(tmp_path):
    arguments = (
        "--model=mlp",
        "--epochs=1",
        "--batch_size=500",
        "--space=factor=loguniform(.1,10)",
        "--trials=2",
    )
    process = run_script(tmp_path, "search.py", *arguments)
    assert process.returncode == 0, process.stderr
    folder = (
        tmp_path / "runs" / "search-digits-0-model=mlp-epochs=1-batch_size=500"
    )
    report = report_on(folder)
    assert str(report) in process.stdout
    assert [t.state for t in report.trials] == ["complete"] * 2
    result = json.loads((folder / "trial-1" / "result.json").read_text())
    assert result["recipe"]["validation"] == 0.2
    assert report.trials[1].values == [
        result["test_error"],
        result["shrunk"]["macs_after"],
    ]
    assert (folder / "front.png").exists()
