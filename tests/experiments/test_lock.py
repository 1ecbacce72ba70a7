"""The lock of a folder, between processes, threads and machines."""

import signal
import threading
import time

import pytest
from processes import Program
from test_scripts import environment_with

from keras_sgl0.experiments import lock as locking
from keras_sgl0.experiments.lock import Lock
from keras_sgl0.utils.validation import RunError

HOLD = """
import sys, time
from keras_sgl0.experiments.lock import Lock
Lock(sys.argv[1]).wait()
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def soon(monkeypatch):
    """A dead holder is given up after half a second."""
    monkeypatch.setattr(locking, "SECONDS_BETWEEN_BEATS", 0.05)
    monkeypatch.setattr(locking, "SECONDS_UNTIL_DEAD", 0.5)


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


def on_another_machine(path, number=0):
    path.with_name(f"lock.{number}").write_text("7 node3/pid:[1]")


def test_one_at_a_time_holds_it(path):
    first, second = Lock(path), Lock(path)
    assert first.holder() is None
    assert first.acquire()
    assert not second.acquire()
    assert second.holder().startswith("pid ")
    first.release()
    assert second.holder() is None
    assert second.acquire()
    assert files(path) == ["lock.1"]
    second.release(remove=True)
    assert files(path) == []


def test_a_lock_that_is_not_held_is_not_released(path):
    first, second = Lock(path), Lock(path)
    first.acquire()
    second.release()
    assert second.holder()


def test_of_many_threads_each_gets_it_once(path):
    inside, most, done = [0], [0], []

    def work(number):
        with Lock(path):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            inside[0] -= 1
        done.append(number)

    locking_often = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in locking_often:
        thread.start()
    for thread in locking_often:
        thread.join(60)
    assert sorted(done) == list(range(8))
    assert most == [1]


def test_that_a_process_has_died_is_seen_at_once(path):
    program = path.with_name("hold.py")
    program.write_text(HOLD)
    path = path.with_name("held")
    process = Program(program, path, env=environment_with())
    lock = Lock(path)
    while not lock.holder():
        assert process.poll() is None
    assert not lock.acquire()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert lock.acquire()


def test_a_holder_elsewhere_is_dead_when_it_no_longer_touches(path, soon):
    on_another_machine(path)
    lock = Lock(path)
    assert lock.holder() == "pid 7 on node3"
    assert not lock.acquire()
    time.sleep(0.3)
    on_another_machine(path)  # a touch
    assert lock.holder()
    time.sleep(0.3)
    assert lock.holder()
    time.sleep(0.3)
    assert lock.holder() is None
    assert lock.acquire()
    assert files(path) == ["lock.1"]


def test_a_live_holder_goes_on_touching(path, soon):
    first, second = Lock(path), Lock(path)
    first.acquire()
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        assert second.holder()
        time.sleep(0.1)
    first.require_held()


def test_who_was_held_up_for_too_long_is_told(path, soon):
    first = Lock(path)
    first.acquire()
    first.require_held()
    on_another_machine(path, 1)
    time.sleep(0.3)
    with pytest.raises(RunError, match="pid 7 on node3 has taken over"):
        first.require_held()
    first.release()
    assert Lock(path).holder() == "pid 7 on node3"


def test_who_was_too_slow_takes_nothing_away(path, monkeypatch):
    """Between its look and its file, others came and went."""
    lock = Lock(path)
    looks = iter([[3], [4, 5]])
    path.with_name("lock.3").write_text("released")
    on_another_machine(path, 5)
    monkeypatch.setattr(lock, "_numbers", lambda: next(looks))
    assert not lock.acquire()
    assert files(path) == ["lock.3", "lock.5"]


def test_a_file_that_is_not_written_yet_holds(path, soon):
    path.with_name("lock.0").touch()
    lock = Lock(path)
    assert lock.holder() == "a process"
    time.sleep(0.6)
    assert lock.acquire()


def test_another_process_alike_is_not_alive(path):
    """A dead process's number may be another one's by now: it is waited for."""
    path.with_name("lock.0").write_text(f"1 {locking._machine()}")
    assert not Lock(path).acquire()
