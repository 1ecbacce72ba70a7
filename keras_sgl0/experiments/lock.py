"""A lock between processes on one or several machines, as files in a folder."""

import os
import pathlib
import socket
import threading
import time

from keras_sgl0.utils.validation import RunError

# The holder touches its file this often. It counts as dead after the longer
# time, in which even a network file system with its caches shows a touch.
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_UNTIL_DEAD = 100.0
_SECONDS_BETWEEN_LOOKS = 0.5
_RELEASED = "released"


class Lock:
    """A lock that many processes may ask for and that one at a time holds.

    `flock` does nothing on some network file systems, but all of them let only
    one process create a file. The files of a lock are numbered: `NAME.0`,
    `NAME.1` and so on. The highest number counts. Whoever creates the next one
    holds the lock, and may do so once the one before is released or its holder
    is dead. As numbers only go up, a process that was too slow cannot take away
    what another one has got.

    The holder touches its file regularly. Others go by their own clocks, so
    those of the machines need not agree. That a process of the same machine has
    died is seen at once. A holder that was held up for too long loses the lock;
    `require_held` tells it.

    Args:
        path: The path of the lock, in a folder that exists when it is used. A
            dot and the number are appended.

    Attributes:
        lost: Whether another process has taken over from this one.

    Example:
        >>> with Lock("runs/search/lock"):
        ...     change_the_files()
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).expanduser()
        self._number: int | None = None
        self._seen: tuple[object, float] = (None, 0.0)
        self._ended = threading.Event()
        self.lost = False

    def holder(self) -> str | None:
        """Returns who holds the lock, such as "pid 7 on node3", or `None`.

        A lock on another machine counts as held when it is first looked at;
        whether its holder is alive, later looks tell.
        """
        numbers = self._numbers()
        return self._holder_of(numbers[-1]) if numbers else None

    def acquire(self) -> bool:
        """Takes the lock if nobody holds it. Returns whether it did.

        Raises:
            OSError: If the folder cannot be written.
        """
        numbers = self._numbers()
        if numbers and self._holder_of(numbers[-1]):
            return False
        number = numbers[-1] + 1 if numbers else 0
        try:
            with open(self._file(number), "x") as file:
                file.write(f"{os.getpid()} {_machine()}")
        except FileExistsError:
            return False
        # Another one may have come and gone since the first look.
        if self._numbers()[-1] > number:
            self._file(number).unlink(missing_ok=True)
            return False
        self._remove_below(number)
        self._number, self.lost = number, False
        self._ended = threading.Event()
        threading.Thread(
            target=self._beat, args=(number, self._ended), daemon=True
        ).start()
        return True

    def wait(self) -> None:
        """Takes the lock as soon as nobody else holds it."""
        while not self.acquire():
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def release(self, remove: bool = False) -> None:
        """Gives the lock back, if this object holds it.

        Args:
            remove: Whether to remove its file. Only if those who take the lock
                later find that nothing is left to be done.
        """
        number, self._number = self._number, None
        if number is None:
            return
        self._ended.set()
        if remove:
            self._file(number).unlink(missing_ok=True)
        elif not self.lost and self._file(number).exists():
            self._file(number).write_text(_RELEASED)

    def require_held(self) -> None:
        """Raises if another process has taken the lock over.

        Raises:
            RunError: If so.
        """
        if self.lost:
            raise RunError(
                f"This process did not touch {self.path} for more than "
                f"{SECONDS_UNTIL_DEAD:.0f} s, and {self.holder()} has taken "
                "over. Nothing is lost."
            )

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *_):
        self.release()

    def _file(self, number):
        return self.path.with_name(f"{self.path.name}.{number}")

    def _numbers(self):
        paths = self.path.parent.glob(f"{self.path.name}.*")
        ends = [path.suffix[1:] for path in paths]
        return sorted(int(end) for end in ends if end.isdigit())

    def _remove_below(self, number):
        for lower in self._numbers():
            if lower < number:
                self._file(lower).unlink(missing_ok=True)

    def _holder_of(self, number):
        """Returns who holds the lock by the file with this number."""
        try:
            # To open a file makes a network file system look anew.
            with open(self._file(number)) as file:
                text = file.read()
                touched = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None
        if text == _RELEASED:
            return None
        pid, _, machine = text.partition(" ")
        if machine == _machine() and not _is_alive(int(pid)):
            return None
        look, now = (number, text, touched), time.monotonic()
        if look != self._seen[0]:
            self._seen = look, now
        if now - self._seen[1] > SECONDS_UNTIL_DEAD:
            return None
        # Between being created and being written, a file is empty.
        return f"pid {pid} on {machine.split('/')[0]}" if text else "a process"

    def _beat(self, number, ended):
        while not ended.wait(SECONDS_BETWEEN_BEATS):
            try:
                self.lost = self._numbers()[-1:] != [number]
                if self.lost:
                    return
                os.utime(self._file(number))
            except OSError:
                continue  # a file system that does not answer for a while


def _machine():
    """Returns where process numbers are unique: a host, or a container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{space}"


def _is_alive(pid):
    if os.name != "posix":
        return True  # there, this would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
