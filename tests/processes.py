"""Python programs in processes of their own that start at once.

To import Keras and TensorFlow takes longer than most of what the tests start
processes for. A server imports them once and then forks a process for each
program, which finds nothing else of the test's process: its arguments,
folder, environment and output are its own.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

FORK = multiprocessing.get_context("forkserver")
# No more than Keras: some programs must not have imported this package.
FORK.set_forkserver_preload(["keras"])


class Program:
    """A started program, used like `subprocess.Popen`.

    Args:
        path: The program's file.
        *arguments: What stands behind it on the command line.
        cwd: The folder it runs in.
        env: Its environment, but for what is read when Keras is imported.
    """

    def __init__(self, path, *arguments, cwd=".", env=os.environ):
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [
            pathlib.Path(self._folder.name, name) for name in ("out", "err")
        ]
        self._process = FORK.Process(
            target=_main,
            args=(
                [str(word) for word in (path, *arguments)],
                os.path.abspath(cwd),
                dict(env),
                self._outputs,
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=300):
        """Waits for its end and returns its output and its errors."""
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self._outputs, timeout)
        return tuple(path.read_text() for path in self._outputs)


def run_program(path, *arguments, **options):
    """Runs a program to its end, like `subprocess.run`."""
    program = Program(path, *arguments, **options)
    output, errors = program.communicate()
    return subprocess.CompletedProcess(
        [path, *arguments], program.returncode, output, errors
    )


def run_code(code, *arguments, check=False, **options):
    """Runs a program that is given as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "program.py")
        path.write_text(code)
        done = run_program(path, *arguments, **options)
    assert not (check and done.returncode), done.stderr
    return done


def _main(words, cwd, env, outputs):
    for number, path in enumerate(outputs, 1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    os.setsid()  # a signal for it and for what it starts spares the server
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")
