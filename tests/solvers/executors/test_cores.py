"""Cores of their own: locks that processes hold on them."""

import json
import os
import subprocess
import sys

import pytest

TAKE = """
import json, os, sys
from pathlib import Path
from solvers.executors import cores
os.sched_getaffinity = lambda pid: {0, 1, 2, 3}
pinned = []
os.sched_setaffinity = lambda pid, cores: pinned.append(sorted(cores))
print(json.dumps([cores.take(int(count), Path(sys.argv[1])) for count in sys.argv[2:]] + pinned), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processors can't be chosen here"
)


def start(folder, *counts):
    """A process that takes so many cores of four, and keeps them until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(folder), *map(str, counts)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_every_process_gets_cores_that_no_other_has(tmp_path):
    folder = tmp_path / "locks"
    first, second = start(folder, 2), None
    try:
        assert json.loads(first.stdout.readline()) == [[0, 1], [0, 1]]
        second = start(folder, 1, 2, 1, 4)
        # one, then two of which one is left, then that one; all of them would pin nothing
        assert json.loads(second.stdout.readline()) == [[2], None, [3], None, [2], [3]]
        first.kill()
        first.wait()
        third = start(folder, 1)
        assert json.loads(third.stdout.readline()) == [[0], [0]]  # free again, however it ended
        third.communicate("")
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()


def test_without_a_place_for_locks_nothing_is_pinned(tmp_path):
    (tmp_path / "file").touch()
    process = start(tmp_path / "file", 1)
    assert json.loads(process.communicate("")[0]) == [None]
