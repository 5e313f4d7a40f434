"""Calls on a real Dask cluster on loopback: a scheduler and three workers, processes that are killed here."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, CancelledError

import psutil
import pytest

pytest.importorskip("distributed")

from solvers.executors import ProcessDied, TimeLimitExceeded, executor
from solvers.executors import on_dask as dask
from solvers.executors.on_dask import DaskCluster, facts

from .test_processes import burn, gone


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A scheduler and workers, processes of their own."""

    def __init__(self, workers):
        self.address = f"tcp://127.0.0.1:{free_port()}"
        host, port = self.address.removeprefix("tcp://").split(":")
        self.scheduler = self.start("dask_scheduler", "--host", host, "--port", port)
        self.workers = [self.worker() for _ in range(workers)]

    def start(self, program, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments, "--no-dashboard"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def worker(self):
        return self.start("dask_worker", self.address, "--nthreads", "1", "--no-nanny")

    def connect(self, workers):
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                made = executor(f"dask:{self.address}")
            except ValueError:  # still starting, on a busy machine
                continue
            if made.workers >= workers:
                return made
            made.shutdown()
            time.sleep(0.2)
        raise AssertionError("the workers did not come")

    def end(self):
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(3)
    yield made
    made.end()


@pytest.fixture
def pool(cluster):
    made = cluster.connect(3)
    with made:
        yield made


def begin(file, pause):
    """Tell its process and whose child that is, and take its time."""
    with open(file, "a") as told:
        told.write(f"{os.getpid()} {os.getppid()}\n")
    time.sleep(pause)
    return os.getppid()


def told(file, lines=1):
    """What `begin` told, once so many calls have begun."""
    for _ in range(400):
        if file.exists() and file.read_text().count("\n") >= lines:
            return [[int(number) for number in line.split()] for line in file.read_text().splitlines()]
        time.sleep(0.05)
    raise AssertionError("the calls did not begin")


def test_calls_are_held_to_limits_in_processes_of_the_workers(cluster, pool, tmp_path):
    workers = {process.pid for process in cluster.workers}
    assert pool.submit(begin, str(tmp_path / "told"), 0).result() in workers
    found = pool.call(abs, -3).result()
    assert (found.value, found.host) == (3, os.uname().nodename)
    assert found.memory > 5
    with pytest.raises(TimeLimitExceeded, match=r"longer than its limit of 0.3 s"):
        pool.call(burn, seconds=0.3).result()
    with pytest.raises(ProcessDied, match="left with status 3"):
        pool.submit(os._exit, 3).result()
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


def test_one_key_is_run_once_for_two_drivers(cluster, pool, tmp_path):
    file = tmp_path / "told"
    with cluster.connect(1) as other:
        calls = [driver.call(begin, str(file), 0.5, key="same") for driver in (pool, other, other)]
        assert len({call.result().value for call in calls}) == 1
    assert len(told(file)) == 1


def test_what_is_cancelled_is_killed(cluster, tmp_path):
    file = tmp_path / "told"
    made = cluster.connect(3)
    call = made.call(begin, str(file), 600)
    ((pid, _),) = told(file)
    made.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        call.result(10)
    assert gone(pid)


DRIVER = """
import sys
from solvers.executors import executor
from tests.solvers.executors.test_on_dask import begin

executor(sys.argv[1]).call(begin, sys.argv[2], 600, key="left").result()
"""


@pytest.mark.slow
def test_what_a_killed_driver_left_is_killed_and_done_by_the_next(cluster, pool, tmp_path):
    file = tmp_path / "told"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster.address, str(file)])
    ((pid, _),) = told(file)
    driver.kill()
    driver.wait()
    again = pool.call(begin, str(file), 0, key="left")
    assert again.result(60).value in {process.pid for process in cluster.workers}
    assert gone(pid)
    assert len(told(file)) == 2


def test_a_worker_killed_half_way_loses_nothing(cluster, pool, tmp_path):  # the last one: a worker is gone
    file = tmp_path / "told"
    calls = [pool.call(begin, str(file), 0.3, key=f"cell {i}") for i in range(12)]
    begun = told(file, 4)
    child, parent = begun[-1]
    next(worker for worker in cluster.workers if worker.pid == parent).kill()
    found = [call.result(60).value for call in calls]
    assert len(found) == 12
    assert gone(child)
    assert len(told(file)) <= 15  # what it was at, and what it had done and not yet handed in, twice


def test_workers_of_another_release_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(dask, "PACKAGE", "no-such-package")
    here = facts()
    assert here[1] == "no-such-package (not installed)"
    with pytest.raises(
        ValueError, match=r"worker tcp://.* has Python 3.* here are Python 3.*start it with the same"
    ):
        executor(cluster.address)


def test_a_scheduler_that_is_not_there_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(dask, "CONNECT", 0.3)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ValueError, match=rf"executor 'dask:{address}': no Dask scheduler answers") as caught:
        executor(f"dask:{address}")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="write the scheduler's address"):
        executor("dask:host")


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_calls(tmp_path):
    made = Cluster(1)
    try:
        pool = made.connect(1)
        call = pool.call(hashlib.pbkdf2_hmac, "sha256", b"a", b"b", 10**9)
        time.sleep(0.3)
        children = psutil.Process(made.workers[0].pid).children(recursive=True)
        made.scheduler.send_signal(signal.SIGKILL)
        with pytest.raises(ProcessDied, match="the cluster let go of the call"):
            call.result(60)
        pool.shutdown()
        made.workers[0].kill()
        assert all(gone(child.pid) for child in children)
    finally:
        made.end()


@pytest.mark.parametrize("status", ["closing", "closed"])
def test_a_client_that_has_lost_its_scheduler_takes_no_calls(status):
    class Client:
        def submit(self, *args, **kwargs):
            self.status = status
            if status == "closed":
                raise RuntimeError("Client is closed")

        def nthreads(self):
            return {}

        def run(self, function):
            return {}

        status = "running"

    workers = DaskCluster("dask:x", Client())
    with pytest.raises(BrokenExecutor, match="executor 'dask:x': its scheduler is gone"):
        workers.call(abs, -1)
