"""Sweeps: what is planned, run, taken up again, reported and averaged."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from processes import Program
from test_scripts import ROOT, environment_with, run_script

from keras_sgl0.experiments import executors
from keras_sgl0.experiments import sweep as sweeping
from keras_sgl0.experiments.executors import LocalExecutor, Task
from keras_sgl0.experiments.grid import grid_from_text, plan
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.result_tables import fill_page
from keras_sgl0.experiments.run_folder import run_lock
from keras_sgl0.experiments.sweep import sweep, unfinished
from keras_sgl0.experiments.sweep_report import sweep_report

pytestmark = pytest.mark.tensorflow

# Stands in for a training: notes what it finds, and leaves a run's files.
STUB = """
import json, os, pathlib, sys, time
folder, recipe = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
folder.mkdir(exist_ok=True)
with open(folder / "starts", "a") as file:
    file.write("started\\n")
(folder / "environment").write_text(json.dumps(dict(os.environ)))
start = time.time()
{body}
with open(folder / "history.csv", "w") as file:
    file.write("epoch\\n" + "0\\n" * recipe["epochs"])
(folder / "times").write_text(json.dumps([start, time.time()]))
result = {{
    "recipe": recipe,
    "seed": recipe["seed"],
    "weight_sparsity": 80 + recipe["seed"],
    "neuron_sparsity": 100 * recipe["factor"],
    "test_error": 0.5,
}}
(folder / "model.keras").touch()
(folder / "result.json").write_text(json.dumps(result))
"""


def stub(body=""):
    """Returns a command whose process does what `body` says first."""

    def command(run, folder):
        code = STUB.format(body=body)
        recipe = json.dumps(run.recipe.to_dict())
        return [sys.executable, "-c", code, folder, recipe]

    return command


def starts(folder, run):
    return (folder / run.name / "starts").read_text().count("started")


def names(runs):
    return [run.name for run in runs]


def test_a_plan_is_a_grid():
    grid = {"factor": [".1", "0.2"], "epochs": [3, 4]}
    runs = plan(["digits", "digits_cges"], [0, 7], grid)
    assert len(runs) == 16
    assert names(runs)[:4] == [
        "digits-0-epochs=3-factor=0.1",
        "digits-7-epochs=3-factor=0.1",
        "digits-0-epochs=3-factor=0.2",
        "digits-7-epochs=3-factor=0.2",
    ]
    last = runs[-1]
    expected = {"factor": 0.2, "epochs": 4, "seed": 7}
    assert last.name == "digits_cges-7-epochs=4-factor=0.2"
    assert last.recipe.to_dict() == (
        RECIPES["digits_cges"].to_dict() | expected
    )


def test_what_is_planned_twice_runs_once():
    grid = {"factor": [".1", "0.1", "1e-1"]}
    assert len(plan(["digits"] * 2, [0, 0], grid)) == 1


@pytest.mark.parametrize(
    ("setting", "text", "value", "name"),
    [
        ("milestones", ".2+.4", (0.2, 0.4), "0.2+0.4"),
        ("milestones", "", (), ""),
        ("normalize", "true", True, "true"),
        ("axis", "-1", -1, "-1"),
        ("axis", "auto", "auto", "auto"),
        ("epsilon", "1e-7", 1e-7, "1e-07"),
        ("factor", "1.", 1.0, "1"),
        ("optimizer", "sgd", "sgd", "sgd"),
        ("batch_size", "16", 16, "16"),
    ],
)
def test_a_setting_from_text(setting, text, value, name):
    (run,) = plan(["digits"], grid={setting: [text]})
    assert getattr(run.recipe, setting) == value
    assert run.name == f"digits-0-{setting}={name}"


def test_a_setting_that_may_be_none_from_text():
    (run,) = plan(["cifar10_wrn_16_1_sgl0"], grid={"dropout": [".2"]})
    assert run.recipe.dropout == 0.2


@pytest.mark.parametrize(
    ("recipes", "seeds", "grid", "message"),
    [
        (["cifar"], [0], {}, "`recipes`. Expected one of 'digits', .*='cifar'"),
        ([], [0], {}, r"`recipes`. Expected at least one value. Rec.*\[\]"),
        (["digits"], [], {}, "`seeds`. Expected at least one value"),
        (["digits"], [-1], {}, "`seed`. Expected an integer of at least 0"),
        (["digits"], ["x"], {}, "`seed`. Expected .*Received: seed='x'"),
        (["digits"], [0], {"factor": []}, "`factor`. Expected at least one va"),
        (
            ["digits"],
            [0],
            {"seed": [1]},
            "`set`. Expected any setting exc",
        ),
        (
            ["digits"],
            [0],
            {"lambda": [1]},
            r"`setting`. Expected one of 'dataset', .*'lambda' \(recipe 'dig",
        ),
        (
            ["digits"],
            [0],
            {"factor": [".1", "much"]},
            "`factor`. Expected a finite number .*factor='much' .recipe 'dig",
        ),
        (["digits"], [0], {"milestones": ["a"]}, r"`milestones`.*\('a',\)"),
        (["digits"], [0], {"normalize": ["1"]}, "Expected True or False"),
    ],
)
def test_bad_plans(recipes, seeds, grid, message):
    with pytest.raises(ValueError, match=message):
        plan(recipes, seeds, grid)


def test_a_grid_from_text():
    assert grid_from_text(["factor=.1,.2", "milestones="]) == {
        "factor": [".1", ".2"],
        "milestones": [""],
    }


@pytest.mark.parametrize("texts", [[""], ["factor"], ["a=1", "a=2"]])
def test_bad_grids(texts):
    expected = "`set`. Expected NAME=VALUE,VALUE,... once for each name. Rec"
    with pytest.raises(ValueError, match=expected):
        grid_from_text(texts)


def test_a_sweep_averages_over_seeds(tmp_path):
    runs = plan(["digits"], [0, 1, 4], {"factor": [0.02, 0.1]})
    report, failed = sweep(runs, tmp_path / "made" / "here", stub())
    assert not failed
    first, second = report.to_dict()["rows"]
    assert first == {
        "recipe": "digits",
        "settings": {"factor": "0.02"},
        "count": 3,
        "seeds": [0, 1, 4],
        "mean": {
            "weight_sparsity": pytest.approx(245 / 3),
            "neuron_sparsity": 2,
            "test_error": 0.5,
        },
        "deviation": {
            "weight_sparsity": statistics.stdev([80, 81, 84]),
            "neuron_sparsity": 0,
            "test_error": 0,
        },
    }
    assert second["settings"] == {"factor": "0.1"}


def test_a_sweep_leaves_its_tables(tmp_path):
    runs = plan(["digits", "digits_cges"], [0, 1], {"epochs": [2]})
    report, _ = sweep(runs[:-1], tmp_path, stub())
    assert (tmp_path / "sweep.md").read_text().splitlines() == [
        "| recipe | epochs | runs | weight sparsity | neuron sparsity "
        "| test error | run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| digits | 2 | 2 | 80.50 ± .71 | 30.00 ± .00 | .50 ± .00 "
        "| [0](digits-0-epochs=2/) [1](digits-1-epochs=2/) |",
        "| digits_cges | 2 | 1 | 80.00 | 30.00 | 0.50 "
        "| [0](digits_cges-0-epochs=2/) |",
    ]
    with open(tmp_path / "sweep.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["weight_sparsity_mean"] == "80.5"
    assert first["weight_sparsity_std"] == str(statistics.stdev([80, 81]))
    assert (second["count"], second["weight_sparsity_std"]) == ("1", "")
    lines = str(report).splitlines()
    assert lines[0].split() == (
        "recipe epochs runs weight sparsity neuron sparsity test error".split()
    )
    assert lines[2].split() == (
        "digits 2 2 80.50 ± .71 30.00 ± .00 .50 ± .00".split()
    )


def test_its_markdown_is_one_that_is_kept_up_to_date(tmp_path):
    sweep(plan(["digits"], [0, 1]), tmp_path, stub())
    path = tmp_path / "sweep.md"
    text = path.read_text()
    path.write_text(text.replace("80.50", "?"))
    assert fill_page(path) == text


def test_more_seeds_extend_the_table_and_repeat_nothing(tmp_path):
    runs = plan(["digits"], [0, 1, 2])
    sweep(runs[:2], tmp_path, stub())
    report, _ = sweep(runs[1:], tmp_path, stub())
    assert [row.count for row in report.rows] == [3]
    assert [starts(tmp_path, run) for run in runs] == [1, 1, 1]


def test_runs_with_other_settings_are_not_averaged(tmp_path):
    short = plan(["digits"], [0], {"epochs": [2]})[0]
    command = stub()(short, str(tmp_path / "digits-0"))
    subprocess.run(command, check=True)
    sweep(plan(["digits"], [1]), tmp_path, stub())
    assert [row.count for row in sweep_report(tmp_path).rows] == [1, 1]


def test_rows_come_in_the_order_of_their_numbers(tmp_path):
    grid = {"factor": [10, 9, 0.5], "optimizer": ["sgd", "adam"]}
    report, _ = sweep(plan(["digits"], grid=grid), tmp_path, stub())
    shown = [tuple(row.settings.values()) for row in report.rows]
    factors = ("0.5", "9", "10")
    assert shown == [(f, o) for f in factors for o in ("adam", "sgd")]


def test_other_folders_are_rows_of_their_own(tmp_path):
    run = plan(["digits"])[0]
    for name in ("best", "digits-0-old"):
        subprocess.run(stub()(run, str(tmp_path / name)), check=True)
    rows = sweep_report(tmp_path).rows
    assert [row.recipe for row in rows] == ["best", "digits-0-old"]
    assert not sweep_report(tmp_path / "best").rows


def test_a_failed_run_is_reported_and_stops_no_other(tmp_path):
    body = """
if recipe["seed"] == 1:
    print("nothing works")
    sys.exit(3)
"""
    runs = plan(["digits"], [0, 1, 2])
    report, failed = sweep(runs, tmp_path, stub(body))
    log = tmp_path / "digits-1.log"
    expected = f"exit status 3, see {log}: nothing works"
    assert failed == {"digits-1": expected}
    assert report.rows[0].count == 2
    report, failed = sweep(runs, tmp_path, stub())
    assert (report.rows[0].count, failed) == (3, {})
    assert [starts(tmp_path, run) for run in runs] == [1, 2, 1]
    assert log.read_text() == "nothing works\n"


def test_a_run_that_leaves_nothing_has_failed(tmp_path):
    _, failed = sweep(plan(["digits"]), tmp_path, stub("sys.exit()"))
    assert failed == {"digits-0": f"exit status 0, see {tmp_path}/digits-0.log"}


def test_a_killed_run_has_failed_and_goes_on_next_time(tmp_path):
    body = "os.kill(os.getpid(), 9)"
    _, failed = sweep(plan(["digits"]), tmp_path, stub(body))
    assert "exit status -9" in failed["digits-0"]
    _, failed = sweep(plan(["digits"]), tmp_path, stub())
    assert not failed


def test_a_run_without_its_model_is_not_finished(tmp_path):
    runs = plan(["digits"])
    sweep(runs, tmp_path, stub())
    assert unfinished(runs, tmp_path) == []
    (tmp_path / "digits-0" / "model.keras").unlink()
    assert unfinished(runs, tmp_path) == runs


def test_a_run_of_another_recipe_is_not_finished(tmp_path):
    sweep(plan(["digits"]), tmp_path, stub())
    run = plan(["digits"], grid={"factor": [0.5]})[0]
    (tmp_path / "digits-0").rename(tmp_path / run.name)
    assert unfinished([run], tmp_path) == [run]


def test_so_many_at_a_time_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    runs = plan(["digits"], range(5))
    sweep(runs, tmp_path, stub("time.sleep(0.6)"), LocalExecutor(2))
    spans = [
        json.loads((tmp_path / run.name / "times").read_text()) for run in runs
    ]
    at_a_time = [
        sum(begin <= moment < end for begin, end in spans)
        for moment, _ in spans
    ]
    assert max(at_a_time) == 2
    path = tmp_path / "digits-0" / "environment"
    environment = json.loads(path.read_text())
    assert environment["TF_NUM_INTRAOP_THREADS"] == "4"
    assert environment["OMP_NUM_THREADS"] == "4"


def test_there_is_at_least_one_at_a_time():
    message = "`parallel`. Expected an integer of at least 1. Received: par"
    with pytest.raises(ValueError, match=message):
        LocalExecutor(0)


def test_one_at_a_time_has_all_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep(plan(["digits"]), tmp_path, stub())
    path = tmp_path / "digits-0" / "environment"
    assert "OMP_NUM_THREADS" not in json.loads(path.read_text())


def test_a_bar_shows_epochs_runs_and_the_time_left(tmp_path, capsys):
    runs = plan(["digits"], [0, 1, 2, 3], {"epochs": [3]})
    sweep(runs[:1], tmp_path, stub(), progress=False)
    assert not capsys.readouterr().err
    fail = "if recipe['seed'] == 2: sys.exit(1)\ntime.sleep(0.5)"
    sweep(runs, tmp_path, stub(fail))
    bars = capsys.readouterr().err.split("\r")
    assert " 3/12 " in bars[1]
    assert " 9/9 " in bars[-1]
    assert "3 of 4 runs done, 1 failed" in bars[-1]
    assert any("6/12 [00:00<00:0" in bar for bar in bars)


def record_processes(monkeypatch):
    processes = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return processes


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("time.sleep(60)", -signal.SIGTERM),
        (
            "import signal; signal.signal(15, signal.SIG_IGN); "
            "(folder / 'deaf').touch(); time.sleep(60)",
            -signal.SIGKILL,
        ),
    ],
    ids=["terminated", "killed"],
)
def test_an_interrupt_stops_the_runs(tmp_path, monkeypatch, body, status):
    processes = record_processes(monkeypatch)
    runs = plan(["digits"], [0, 1, 2])
    ready = "deaf" if status == -signal.SIGKILL else "environment"

    def interrupt(seconds):
        deadline = time.monotonic() + 20
        while len(list(tmp_path.glob(f"*/{ready}"))) < 2:
            assert time.monotonic() < deadline
        raise KeyboardInterrupt

    # Not in the module `time` itself, as waiting for a process sleeps too.
    monkeypatch.setattr(sweeping, "time", SimpleNamespace(sleep=interrupt))
    monkeypatch.setattr(executors, "_SECONDS_TO_STOP", 0.5)
    with pytest.raises(KeyboardInterrupt):
        sweep(runs, tmp_path, stub(body), LocalExecutor(2))
    assert [process.returncode for process in processes] == [status] * 2
    monkeypatch.undo()
    report, failed = sweep(runs, tmp_path, stub())
    assert (report.rows[0].count, failed) == (3, {})


def test_a_run_that_another_sweep_is_at_is_waited_for(tmp_path, monkeypatch):
    runs = plan(["digits"], [0, 1])
    looks = []
    (tmp_path / "digits-0").mkdir()
    other = run_lock(tmp_path / "digits-0")
    assert other.acquire()

    def look(seconds):
        looks.append(seconds)
        if unfinished(runs[1:], tmp_path) or len(looks) < 4:
            assert not (tmp_path / "digits-0" / "starts").exists()
        else:
            other.release()
        time.sleep(0.1)

    monkeypatch.setattr(sweeping, "time", SimpleNamespace(sleep=look))
    report, failed = sweep(runs, tmp_path, stub())
    assert (report.rows[0].count, failed) == (2, {})


def test_a_run_that_outlives_its_sweep_is_not_run_twice(tmp_path):
    (run,) = runs = plan(["digits"])
    locked = """
from keras_sgl0.experiments.run_folder import run_lock
run_lock(folder).wait()
(folder / "locked").touch()
time.sleep(2)
"""
    command = stub(locked)(run, str(tmp_path / run.name))
    task = Task(run.name, command, tmp_path / "digits-0.log")
    (orphan,) = LocalExecutor().start([task])
    while not (tmp_path / run.name / "locked").exists():
        assert orphan.ended() is None
    report, failed = sweep(runs, tmp_path, stub())
    assert orphan.wait() == 0
    assert (report.rows[0].count, failed) == (1, {})
    assert starts(tmp_path, run) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"folder": "file/sweep"},
            "`workdir`. Expected a folder that can be written. Received: work",
        ),
        ({"folder": "damaged"}, "digits-0/result.json cannot be read"),
    ],
    ids=["folder", "damaged"],
)
def test_bad_sweeps(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    damaged = tmp_path / "damaged" / "digits-0"
    damaged.mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    (damaged / "model.keras").touch()
    arguments = {"folder": "here"} | arguments
    arguments["folder"] = tmp_path / arguments["folder"]
    with pytest.raises(ValueError, match=message):
        sweep(plan(["digits"]), command=stub(), **arguments)
    assert not list(tmp_path.rglob("starts"))


ARGUMENTS = (
    "--recipes=digits",
    "--seeds=0,1",
    "--set=model=mlp",
    "--set=epochs=2",
    "--set=batch_size=500",
    "--set",
    "learning_rate=.001",
    "--workdir=sweep",
    "--parallel=2",
)


def start_sweep(folder, *more):
    """Starts a real sweep, whose trainings are in its process group."""
    arguments = (ROOT / "scripts" / "sweep.py", *ARGUMENTS, *more)
    return Program(*arguments, cwd=folder, env=environment_with())


def await_epochs(folder, number):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        paths = folder.glob("sweep/*/history.csv")
        if any(p.read_text().count("\n") > number for p in paths):
            return
        time.sleep(0.05)
    raise AssertionError("no epoch was finished")


@pytest.fixture
def killed_and_resumed(tmp_path):
    """A sweep that is killed with a run, and started again."""
    process = start_sweep(tmp_path, "--parallel=1")
    await_epochs(tmp_path, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {
        path: path.read_bytes() for path in tmp_path.glob("sweep/*/result.json")
    }
    process = start_sweep(tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return tmp_path, before, output, errors


def test_a_killed_sweep_goes_on_where_it_was(killed_and_resumed):
    folder, before, output, errors = killed_and_resumed
    ending = "batch_size=500-epochs=2-learning_rate=0.001-model=mlp"
    runs = sorted((folder / "sweep").glob("*/"))
    assert [run.name for run in runs] == [
        f"digits-0-{ending}",
        f"digits-1-{ending}",
    ]
    for run in runs:
        assert (run / "history.csv").read_text().count("\n") == 3
        assert (run / "model.keras").exists()
        result = json.loads((run / "result.json").read_text())
        assert result["epochs"] == 2
        log = run.with_name(f"{run.name}.log").read_text()
        assert "files in sweep/digits" in log
        assert "%|" not in log
    for path, content in before.items():
        assert path.read_bytes() == content
    assert str(sweep_report(folder / "sweep")) in output
    assert "tables in sweep/sweep.md" in output
    assert "2 of 2 runs done" in errors


def test_a_failing_run_fails_the_script(tmp_path):
    sweep(plan(["digits"]), tmp_path / "sweep", stub())
    arguments = (*ARGUMENTS, "--seeds=0", "--set=axis=7")
    process = run_script(tmp_path, "sweep.py", *arguments)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "sweep.py: 1 of 1 runs failed\n digits-0-axis=7-" in process.stderr
    assert "train.py: Invalid value for argument `axis`" in process.stderr
    assert "digits" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=factor"], "sweep.py: Invalid value for argument `set`"),
        (["digits"], "Unexpected arguments: ['digits']"),
        (
            ["--recipes=mnist_sgl0", "--data_dir=nowhere"],
            "`data_dir`. Expected a folder that exists",
        ),
    ],
    ids=["set", "positional", "data_dir"],
)
def test_the_script_refuses(tmp_path, arguments, message):
    process = run_script(tmp_path, "sweep.py", *arguments)
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert message in process.stdout + process.stderr
    assert not list(tmp_path.iterdir())
