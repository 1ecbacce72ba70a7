"""Where the runs of a sweep are executed: as processes of this machine."""

import abc
import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keras_sgl0.utils.validation import integer

_SECONDS_TO_STOP = 10


@dataclasses.dataclass(frozen=True)
class Task:
    """What an executor starts.

    Attributes:
        name: The name of the run.
        command: Its command, which resumes the run if it was killed.
        log: The file that its output is appended to.
    """

    name: str
    command: list[str]
    log: Path


class Job(abc.ABC):
    """A task that was started."""

    @abc.abstractmethod
    def ended(self) -> str | None:
        """Returns how it ended, such as "exit status 0"; `None` if not yet."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends it, if it has not ended. It may be started again later."""


class Executor(abc.ABC):
    """What starts the tasks of a sweep."""

    @abc.abstractmethod
    def room(self, running: int) -> int:
        """Returns how many more tasks to start.

        Args:
            running: The number of jobs that have not ended.
        """

    @abc.abstractmethod
    def start(self, tasks: Sequence[Task]) -> Sequence[Job]:
        """Starts tasks and returns a job for each.

        Args:
            tasks: The tasks, no more than there is room for.
        """


class LocalExecutor(Executor):
    """Starts each task as a process of this machine.

    Args:
        parallel: The number of processes at a time. They share the cores.

    Raises:
        ValueError: If `parallel` is less than 1.

    Example:
        >>> sweep(runs, "runs/sweep", command, LocalExecutor(parallel=4))
    """

    def __init__(self, parallel: int = 1):
        self.parallel = integer("parallel", parallel, at_least=1)

    def room(self, running: int) -> int:
        """Returns how many more processes there may be."""
        return self.parallel - running

    def start(self, tasks: Sequence[Task]) -> list["Process"]:
        """Starts a process for each task."""
        environment = os.environ | task_environment(self.parallel)
        return [Process(task, environment) for task in tasks]


class Process(Job):
    """The process of a task.

    Args:
        task: The task.
        environment: The environment variables.
    """

    def __init__(self, task: Task, environment: dict[str, str]):
        with open(task.log, "a") as log:
            self._process = subprocess.Popen(
                task.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ended(self) -> str | None:
        """Returns the exit status as text, `None` if it is running."""
        status = self._process.poll()
        return None if status is None else f"exit status {status}"

    def wait(self) -> int:
        """Waits for its end and returns the exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """Ends the process, by force if it takes too long."""
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def task_environment(parallel: int) -> dict[str, str]:
    """Returns environment variables for tasks that share a machine.

    Args:
        parallel: The number of tasks at a time.
    """
    # The output goes to a log file, where a progress bar is only noise.
    variables = {"TQDM_DISABLE": "1"}
    if parallel > 1:
        share = str(max(1, (os.cpu_count() or 1) // parallel))
        variables |= {
            "OMP_NUM_THREADS": share,
            "TF_NUM_INTRAOP_THREADS": share,
            "TF_NUM_INTEROP_THREADS": share,
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }
    return variables
