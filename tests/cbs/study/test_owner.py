import os
import subprocess
import sys
from pathlib import Path

import psutil

from cbs.study import owner as owners
from cbs.study.owner import gone, owner


def test_owners_are_processes():
    assert not gone(owner())
    host, number, born = owner().split(":")
    assert gone(f"{host}:{number}:{float(born) - 5:.2f}")
    assert not gone(f"another-{host}:{number}:{born}")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert gone(f"{host}:{child.pid}:0.00")
    assert gone(f"{host}:{child.pid}:0.00#2")
    assert not gone(f"{owner()}#7")


def test_a_clock_that_is_set_makes_no_process_another(monkeypatch):
    before = owners._born(os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)
    assert owners._born(os.getpid()) == before or not Path("/proc/self/stat").exists()
