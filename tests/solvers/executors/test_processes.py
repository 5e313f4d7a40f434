"""Calls on processes of this machine: real ones, killed, stopped and held to limits."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import psutil
import pytest

from solvers.executors import MemoryLimitExceeded, ProcessDied, TimeLimitExceeded, executor
from solvers.executors.process import POOLS
from solvers.executors.processes import guarded


@pytest.fixture(scope="module")
def pool():
    with executor("processes:2") as made:
        yield made


def burn():
    """Hours in C, without a look at anything."""
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)


def timed():
    """Work in C, and the processor time that it took."""
    begun = time.process_time()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1_000_000)
    return time.process_time() - begun


def fill():
    kept = []
    while True:
        kept.append(np.ones(1_000_000))


def child_that_fills():
    subprocess.run([sys.executable, "-c", "kept = b'x' * 300_000_000; import time; time.sleep(60)"])


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__("told")
        self.lock = threading.Lock()


def raise_it(error):
    raise error


def raise_unpicklable():
    raise Unpicklable(1, 2)


def pools_seen():
    import threadpoolctl

    a = np.ones((8, 8))
    a @ a
    from solvers.runtime.parallel import workers

    seen = {pool["user_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return seen, workers(), {name: os.environ[name] for name in POOLS}


def gone(pid):
    """Whether a process is gone, within some seconds."""
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_results_come_back_and_the_process_is_kept(pool):
    array = np.arange(3_000_000.0)
    assert np.array_equal(pool.submit(np.negative, array).result(), -array)
    assert len({pool.submit(os.getpid).result() for _ in range(6)}) <= 2
    assert pool.submit(dict, one=1).result() == {"one": 1}
    assert pool.submit(lambda x: x + 1, 2).result() == 3  # sent as code
    assert list(pool.map(abs, [-1, -2])) == [1, 2]


def test_a_call_is_measured(pool):
    idle = pool.call(time.sleep, 0.2).result()
    busy = pool.call(timed).result()
    assert idle.value is None
    assert idle.seconds >= 0.2
    assert idle.cpu_seconds < idle.seconds / 2
    tick = 0.02  # the kernel counts processor time in hundredths of a second
    assert busy.value > tick
    assert busy.value - tick <= busy.cpu_seconds <= 1.1 * busy.seconds + 0.1
    big = pool.call(np.full, 20_000_000, 1.0).result()
    assert big.memory > idle.memory + 150  # MiB, the array's 153


def test_a_process_that_was_interrupted_is_not_kept():
    with executor("processes:1") as made:
        before = made.submit(os.getpid).result()
        call = made.submit(time.sleep, 60)
        while not call.running():
            time.sleep(0.01)
        time.sleep(0.2)
        made.interrupt()  # perhaps in the middle of an import
        with pytest.raises(CancelledError):
            call.result(20)
        assert made.submit(os.getpid).result() != before


def test_time_is_up_for_a_function_that_asks_no_one(pool):
    with pytest.raises(TimeLimitExceeded, match=r"longer than its limit of 0.3 s") as caught:
        pool.call(burn, seconds=0.3).result()
    assert isinstance(caught.value, TimeoutError)
    assert 0.3 <= caught.value.seconds < 20
    assert pool.submit(abs, -3).result() == 3  # the pool goes on


def test_past_its_time_a_call_may_still_answer(pool):
    def polite():
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return "incumbent"

    assert pool.call(polite, seconds=0.3, grace=10.0).result().value == "incumbent"
    with pytest.raises(TimeLimitExceeded):
        pool.call(time.sleep, 60, seconds=0.3, grace=10.0).result()
    with pytest.raises(TimeLimitExceeded):
        pool.call(burn, seconds=0.2, grace=0.2).result()


@pytest.mark.parametrize("function", [fill, child_that_fills])
def test_memory_is_that_of_the_process_and_what_it_started(pool, function):
    with pytest.raises(MemoryLimitExceeded, match=r"more than its limit of 250 MiB") as caught:
        pool.call(function, memory=250).result()
    assert isinstance(caught.value, MemoryError)
    assert caught.value.memory > 250


def test_a_process_that_dies_is_told_and_replaced(pool):
    with pytest.raises(ProcessDied, match="killed by SIGKILL"):
        pool.submit(lambda: os.kill(os.getpid(), signal.SIGKILL)).result()
    with pytest.raises(ProcessDied, match="left with status 3"):
        pool.submit(os._exit, 3).result()
    assert pool.submit(abs, -3).result() == 3


def test_exceptions_come_back_as_themselves(pool):
    with pytest.raises(KeyError, match="mine") as caught:
        pool.submit(raise_it, KeyError("mine")).result()
    assert "in raise_it" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match=r"Unpicklable: told"):
        pool.submit(raise_unpicklable).result()
    with pytest.raises(RuntimeError, match=r"SystemExit\(2\)"):
        pool.submit(sys.exit, 2).result()
    with pytest.raises(TypeError, match="can't be sent to another process"):
        pool.submit(threading.Lock).result()
    with pytest.raises(TypeError, match="can't be sent to another process"):
        pool.submit(id, threading.Lock()).result()


def test_threads_are_pinned_from_the_start():
    with executor("processes:1", threads=2) as made:
        seen, rows, variables = made.submit(pools_seen).result()
    assert set(variables.values()) == {"2"}
    assert all(count <= 2 for count in seen.values())
    assert rows == min(2, len(os.sched_getaffinity(0)))
    with executor("processes:1") as made:
        seen, rows, _ = made.submit(pools_seen).result()
    assert set(seen.values()) == {1}
    assert rows == 1


def test_one_key_is_not_run_twice_at_once(pool, tmp_path):
    file = tmp_path / "runs"
    file.touch()

    def count():
        with file.open("a") as written:
            written.write("x")
        time.sleep(0.3)

    calls = [pool.call(count, key="same") for _ in range(3)]
    assert [call.result().value for call in calls] == [None] * 3
    assert file.read_text() == "x"
    pool.call(count, key="same").result()
    assert file.read_text() == "xx"  # what is done may be asked for again


def test_shutdown_ends_what_runs_and_cancels_what_waits():
    made = executor("processes:1")
    pid = made.submit(os.getpid).result()
    running, waiting = made.submit(burn), made.submit(burn)
    while not running.running():
        time.sleep(0.01)
    made.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        running.result(10)
    assert waiting.cancelled()
    assert gone(pid)


PARENT = """
import hashlib, os, sys, subprocess, time
from solvers.executors import executor

def burn(file):
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    open(file, "w").write(f"{os.getpid()} {grandchild.pid}\\n")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)

executor("processes:1").submit(burn, sys.argv[1]).result()
"""


def parent_and_pids(tmp_path):
    file = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], stderr=subprocess.DEVNULL)
    for _ in range(400):
        if file.exists() and file.read_text().endswith("\n"):
            return parent, [int(pid) for pid in file.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("the call did not begin")


def test_no_child_outlives_a_killed_parent(tmp_path):
    parent, pids = parent_and_pids(tmp_path)
    assert all(psutil.pid_exists(pid) for pid in pids)
    parent.kill()
    parent.wait()
    assert all(gone(pid) for pid in pids)


def test_a_thread_has_a_process_of_its_own_that_ends_with_it():
    found = []
    thread = threading.Thread(target=lambda: found.append(guarded(os.getpid).value))
    thread.start()
    thread.join()
    assert found[0] != os.getpid()
    assert gone(found[0])
