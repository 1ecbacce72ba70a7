"""Runs as jobs: of submitit on this machine, and of a Slurm that we feign."""

import os
import pathlib
import signal
import stat
import sys
import time

import pytest
from test_sweep import starts, stub

from keras_sgl0.experiments.cluster import SubmititExecutor
from keras_sgl0.experiments.executors import Task
from keras_sgl0.experiments.grid import plan
from keras_sgl0.experiments.sweep import sweep

pytestmark = pytest.mark.tensorflow

# One program for sbatch, sacct, scancel and scontrol. Jobs are processes, and
# what is known of them is in the folder `slurm` beside it. A job that finds the
# file `hold` stays in the queue.
SLURM = """#!{python}
import json, os, pathlib, re, signal, subprocess, sys, time
home = pathlib.Path(__file__).parent / "slurm"
home.mkdir(exist_ok=True)
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]

def note(job, state):
    (home / job).write_text(state)

if name == "sbatch":
    text = pathlib.Path(arguments[0]).read_text()
    (home / "script").write_text(text)
    job = str(100 + len(list(home.glob("*.jobs"))))
    (home / (job + ".jobs")).touch()
    array = re.search("--array=0-([0-9]+)", text)
    tasks = range(int(array[1]) + 1) if array else [None]
    for task in tasks:
        own = job if task is None else f"{{job}}_{{task}}"
        note(own, "PENDING")
        subprocess.Popen(
            [sys.argv[0].replace("sbatch", "srun"), own, arguments[0]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    print("Submitted batch job", job)
elif name == "srun":  # here: what runs a job
    own, script = arguments
    while (home / "hold").exists():
        time.sleep(0.05)
    line = [l for l in open(script) if l.startswith("srun")][-1]
    command = line[line.index("{python}"):].strip()
    job, _, task = own.partition("_")
    more = {{"SLURM_JOB_ID": job, "SUBMITIT_EXECUTOR": "slurm"}}
    if task:
        more |= {{"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": task}}
    while True:
        note(own, "RUNNING")
        process = subprocess.Popen(command.split(), env=os.environ | more)
        (home / (own + ".pid")).write_text(str(process.pid))
        status = process.wait()
        if not (home / (own + ".again")).exists():
            break
        (home / (own + ".again")).unlink()
    note(own, "FAILED" if status else "COMPLETED")
elif name == "scontrol":
    (home / (arguments[1] + ".again")).touch()
elif name == "scancel":
    os.kill(int((home / (arguments[0] + ".pid")).read_text()), signal.SIGKILL)
elif name == "sacct":
    print("JobID|State|NodeList")
    for path in home.iterdir():
        if re.fullmatch("[0-9]+(_[0-9]+)?", path.name):
            print(path.name, path.read_text(), "here", sep="|")
"""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """The folder of what Slurm knows."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sbatch", "srun", "sacct", "scancel", "scontrol"):
        path = folder / name
        path.write_text(SLURM.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    (folder / "slurm").mkdir()
    return folder / "slurm"


@pytest.fixture
def local(monkeypatch):
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_jobs_on_this_machine(tmp_path, local):
    runs = plan(["digits"], [0, 1, 2])
    body = "if recipe['seed'] == 1: sys.exit(3)"
    jobs = SubmititExecutor(tmp_path / "jobs", "local", parallel=2)
    report, failed = sweep(runs, tmp_path, stub(body), jobs)
    assert report.rows[0].count == 2
    assert list(failed) == ["digits-1"]
    assert failed["digits-1"].startswith("exit status 3 in job ")
    assert [starts(tmp_path, run) for run in runs] == [1, 1, 1]
    assert jobs.room(0) == 2


def test_a_preempted_job_is_queued_again(tmp_path, local):
    (run,) = plan(["digits"])
    body = """
if (folder / "starts").read_text().count("started") == 1:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise
"""
    task = Task(
        run.name,
        stub(body)(run, str(tmp_path / run.name)),
        tmp_path / "digits-0.log",
    )
    (job,) = SubmititExecutor(tmp_path / "jobs", "local", 1).start([task])
    folder = tmp_path / run.name
    wait_for((folder / "environment").exists)
    assert job.ended() is None
    # As Slurm does: to the job, and to what it has started.
    pid = job._job.job_id
    for _ in range(2):
        pid = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        pid = int(pid)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGUSR2)
    wait_for(lambda: starts(tmp_path, run) == 2)
    assert (folder / "interrupted").exists()
    wait_for(lambda: job.ended() is not None)
    assert job.ended().startswith("exit status 0")
    assert (folder / "result.json").exists()


def test_a_cancelled_job_has_ended(tmp_path, local):
    (run,) = plan(["digits"])
    command = stub("time.sleep(60)")(run, str(tmp_path / run.name))
    task = Task(run.name, command, tmp_path / "digits-0.log")
    (job,) = SubmititExecutor(tmp_path / "jobs", "local", 1).start([task])
    wait_for((tmp_path / run.name / "environment").exists)
    job.stop()
    wait_for(lambda: job.ended() is not None)
    assert not (tmp_path / run.name / "result.json").exists()


def test_an_array_of_slurm(tmp_path, slurm):
    jobs = SubmititExecutor(
        tmp_path / "jobs",
        parallel=2,
        minutes=7,
        slurm_partition="gpu",
        cpus_per_task=3,
    )
    runs = plan(["digits"], [0, 1])
    report, failed = sweep(runs, tmp_path, stub(), jobs)
    assert (report.rows[0].count, failed) == (2, {})
    script = (slurm / "script").read_text()
    for line in (
        "--array=0-1%2",
        "--time=7",
        "--partition=gpu",
        "--cpus-per-task=3",
    ):
        assert f"#SBATCH {line}\n" in script
    assert len(list(slurm.glob("*.jobs"))) == 1


def test_a_job_in_the_queue_is_not_submitted_again(tmp_path, slurm):
    (run,) = runs = plan(["digits"])
    task = Task(
        run.name,
        stub()(run, str(tmp_path / run.name)),
        tmp_path / "digits-0.log",
    )
    (slurm / "hold").touch()
    # A launcher that is killed, and the next one.
    SubmititExecutor(tmp_path / "jobs").start([task])
    (job,) = SubmititExecutor(tmp_path / "jobs").start([task])
    assert job.ended() is None
    (slurm / "hold").unlink()
    jobs = SubmititExecutor(tmp_path / "jobs")
    report, failed = sweep(runs, tmp_path, stub(), jobs)
    assert (report.rows[0].count, failed) == (1, {})
    assert starts(tmp_path, run) == 1
    assert len(list(slurm.glob("*.jobs"))) == 1
    # A job that has ended is another matter.
    (tmp_path / run.name / "result.json").unlink()
    sweep(runs, tmp_path, stub(), jobs)
    assert len(list(slurm.glob("*.jobs"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "here"}, "`cluster`. Expected one of 'slurm', 'local'"),
        ({"cluster": "local"}, "`parallel`. Expected an integer of at least 1"),
        ({"parallel": 0}, "`parallel`. Expected an integer of at least 1"),
        ({"minutes": 0}, "`minutes`. Expected an integer of at least 1"),
        ({"slurm_color": 1}, "submitit cannot use the cluster 'slurm'.*color"),
    ],
)
def test_bad_clusters(tmp_path, slurm, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        SubmititExecutor(tmp_path, **arguments)


def test_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"submitit cannot use.*srun"):
        SubmititExecutor(tmp_path)
