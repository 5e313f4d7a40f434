import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from solvers.peers import process
from solvers.peers.process import Overdue, PeerFailed, expiring, running
from tests.solvers.peers import standins

ROW = {
    "H": np.diag([1.0, 2.0, 3.0]), "w": np.array([1.0, 1.0, 1.0]), "keep": 1, "value": 2.0, "gap": 1e-4,
    "seconds": 10.0, "memory": 1e9, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def behaviour(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBS_PEERS", str(folder))
        yield standins.make(folder, "abess")
        process._close()


def never():
    return False


def test_one_process_answers_row_after_row_and_solve_after_solve(behaviour):
    with running("abess") as start:
        first = start()
        assert first.version == "9.9"
        assert first.ask(ROW, never)["support"] == [2]
        assert first.ask(ROW | {"keep": 2}, never)["support"] == [1, 2]
    with running("abess") as start:
        assert start() is first
        first.close()
        assert start() is not first


def test_a_killed_process_is_gone_with_what_it_was_doing(behaviour):
    with running("abess") as start:
        peer = start()
        child = psutil.Process(peer._process.pid)
        behaviour.write_text("sleep")
        with pytest.raises(Overdue):
            peer.ask(ROW, expiring(never, 0.05))
        behaviour.write_text("")
        assert not child.is_running()
        assert not peer.alive
        assert start().ask(ROW, never)["support"] == [2]


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"support": [3], "bound": 0, "done": True, "seconds": 0, "nodes": 0},
        {"support": [-1], "bound": 0, "done": True, "seconds": 0, "nodes": 0},
        {"support": [0], "bound": float("nan"), "done": True, "seconds": 0, "nodes": 0},
        {"support": "x", "bound": 0, "done": True, "seconds": 0, "nodes": 0},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(behaviour, answer):
    with running("abess") as start, pytest.raises(PeerFailed, match="answered what is no answer"):
        start()._checked(answer, 3)


def test_a_process_that_can_not_start_says_why(behaviour):
    package = behaviour.with_name("__init__.py")
    whole = package.read_text()
    package.write_text("import nothing_like_it")
    process._close()
    with running("abess") as start, pytest.raises(PeerFailed, match="No module named 'nothing_like_it'"):
        start()
    package.write_text(whole)


def test_it_ends_when_whoever_started_it_is_killed(behaviour):
    code = """
import sys
from pathlib import Path
from solvers.peers.process import running
from tests.solvers.peers.test_process import ROW
with running("abess") as start:
    peer = start()
    Path(sys.argv[1]).write_text("sleep")
    print(peer._process.pid, flush=True)
    peer.ask(ROW, lambda: False)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(behaviour)], stdout=subprocess.PIPE, env=os.environ
    )
    child = psutil.Process(int(other.stdout.readline()))
    other.kill()
    other.communicate()
    behaviour.write_text("")
    for _ in range(400):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_an_environment_that_can_not_start_names_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("CBS_PEERS", str(tmp_path))
    (standins.make(tmp_path, "abess").parent / "__init__.py").write_text("raise SystemExit(3)")
    again = r"abess.*; make it anew by: cbs peers install --again abess"
    with pytest.raises(PeerFailed, match=again), running("abess") as start:
        start()
