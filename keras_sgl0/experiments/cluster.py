"""Runs of a sweep as jobs of a cluster, by submitit."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_sgl0.experiments.executors import (
    Executor,
    Job,
    Task,
    task_environment,
)
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import InputError, choice, integer

CLUSTERS = ("slurm", "local")
# The states of a job that Slurm will still work on.
_ALIVE = (
    *("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "RESIZING"),
    *("RUNNING", "SUSPENDED", "PREEMPTED", "COMPLETING"),
)


class SubmititExecutor(Executor):
    """Starts each task as a job; several at once are an array.

    A job that is preempted or reaches its time limit is queued again, and its
    run goes on from its folder. The jobs outlive this process. On Slurm, a
    sweep that is started again takes up the jobs that it finds in the queue.

    Args:
        folder: A folder that all machines share, for submitit's files.
        cluster: "slurm", or "local" for submitit's own jobs on this machine.
        parallel: The number of jobs at a time, `None` for as many as the
            cluster gives; "local" needs a number.
        minutes: The time limit of a job.
        **parameters: Others of submitit's `AutoExecutor.update_parameters`,
            such as `cpus_per_task`, `gpus_per_node`, `mem_gb` and
            `slurm_partition`.

    Raises:
        ValueError: If there is no such cluster or parameter, or if submitit
            (extra `cluster`) is not installed.

    Example:
        >>> jobs = SubmititExecutor("runs/sweep/jobs", slurm_partition="gpu")
        >>> report, failed = sweep(runs, "runs/sweep", command, jobs)
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        cluster: str = "slurm",
        parallel: int | None = None,
        minutes: int = 240,
        **parameters: Any,
    ):
        with name_extra():
            import cloudpickle
            import submitit
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        choice("cluster", cluster, CLUSTERS)
        if parallel is not None or cluster == "local":
            integer("parallel", parallel, at_least=1)
        integer("minutes", minutes, at_least=1)
        self.folder = Path(folder).expanduser().absolute()
        self.cluster, self.parallel = cluster, parallel
        parameters |= {"timeout_min": minutes, "name": "keras_sgl0"}
        if parallel is not None:
            parameters["slurm_array_parallelism"] = parallel
        try:
            # A long training takes many jobs, each up to the time limit.
            often = {f"{cluster}_max_num_timeout": 1000}
            self._executor = submitit.AutoExecutor(
                self.folder, cluster=cluster, **often
            )
            self._executor.update_parameters(**parameters)
        except (RuntimeError, ValueError, TypeError, NameError) as problem:
            raise InputError(
                f"submitit cannot use the cluster {cluster!r}: {problem}"
            ) from problem

    def room(self, running: int) -> int:
        """Returns how many more jobs to submit; Slurm takes all of them."""
        if self.cluster == "slurm":
            return 10**6
        return (self.parallel or 1) - running

    def start(self, tasks: Sequence[Task]) -> list["SubmittedJob"]:
        """Submits the tasks that are not in the queue yet, as an array."""
        jobs = {task.name: self._queued(task) for task in tasks}
        new = [task for task in tasks if jobs[task.name] is None]
        share = (self.parallel or 1) if self.cluster == "local" else 1
        with self._executor.batch() if new else contextlib.nullcontext():
            submitted = [self._submit(task, share) for task in new]
        for task, job in zip(new, submitted, strict=True):
            self._note(task).write_text(job.job_id)
            jobs[task.name] = SubmittedJob(job)
        return [job for job in jobs.values() if job is not None]

    def _submit(self, task, share):
        log = str(task.log.absolute())
        training = Training(task.command, log, task_environment(share))
        return self._executor.submit(training)

    def _note(self, task):
        """Returns the file with the identity of a task's last job."""
        return self.folder / f"{task.name}.job"

    def _queued(self, task):
        """Returns the job of a task that Slurm still has, if any."""
        if self.cluster != "slurm" or not self._note(task).exists():
            return None
        import submitit

        job: Any = submitit.SlurmJob(self.folder, self._note(task).read_text())
        if job.paths.result_pickle.exists():
            return None
        state = job.watcher.get_state(job.job_id, mode="force")
        return SubmittedJob(job) if state.split()[0] in _ALIVE else None


class SubmittedJob(Job):
    """A job of submitit.

    Args:
        job: What submitit returned.
    """

    def __init__(self, job: Any):
        self._job = job

    def ended(self) -> str | None:
        """Returns how it ended, `None` if it waits or runs."""
        if not self._job.done():
            return None
        where = f"job {self._job.job_id}"
        # Without a result, submitit would wait for one.
        if self._job.paths.result_pickle.exists():
            with contextlib.suppress(Exception):
                return f"exit status {self._job.result()} in {where}"
        return f"{where} ended as {self._job.state}"

    def stop(self) -> None:
        """Cancels it."""
        if not self._job.done():
            self._job.cancel()


class Training:
    """What a job does: a command, as a process of its own.

    So that signals are dealt with at once, whatever the training is at.

    Args:
        command: The command.
        log: The file that its output is appended to.
        environment: Environment variables beside those of the job.
    """

    # submitit sends this class as it is, so it uses nothing of this package:
    # a job that only waits need not import Keras.

    def __init__(
        self, command: list[str], log: str, environment: dict[str, str]
    ):
        self.command = command
        self.log = log
        self.environment = environment
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Runs the command and returns its exit status."""

        # A cluster that preempts a job signals all of its processes. The job
        # then ends the training, and would take a dead one for a failed one.
        def leave_signals_to_the_job():
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            # The job ends it by this one, which what runs in the background
            # of a script ignores.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with open(self.log, "a") as log:
            self._process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=leave_signals_to_the_job,
            )
        try:
            while not self._has_ended():
                time.sleep(0.2)
            return self._process.wait()
        finally:
            self._stop()

    def checkpoint(self) -> Any:
        """Ends the run before the job is queued again. submitit calls this."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(
            type(self)(self.command, self.log, self.environment)
        )

    def _stop(self):
        if self._process is None or self._has_ended():
            return  # or was never started
        # Unlike SIGTERM it lets the run give its lock back.
        self._process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not self._has_ended():
            self._process.kill()

    def _has_ended(self):
        # Signals interrupt what waits here, and their handler asks as well. In
        # the methods of Popen it would wait for a lock that it holds itself.
        if self._process is None or self._process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None
