"""Machine code that is kept: found again by what it was made of, wherever its source lies."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from solvers.runtime import kept
from solvers.runtime.compiled import njit
from solvers.runtime.kept import fingerprint

SOURCE = """
from solvers.runtime.compiled import njit

FACTOR = 2.0

@njit()
def inner(x):
    return FACTOR * x

@njit()
def outer(x):
    return inner(x) + 1.0
"""
CALL = """
import logging, sys
from numba.core import event

class Listener(event.Listener):
    def on_start(self, event):
        print("compiled", event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
import module
print(module.outer(20.5))
"""


def start(folder, cache, source=SOURCE, call=CALL):
    folder.mkdir(exist_ok=True)
    (folder / "module.py").write_text(source)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        "NUMBA_CACHE_DIR": str(cache),
    }
    return subprocess.Popen(
        [sys.executable, "-c", call], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*args, **options):
    out, err = (process := start(*args, **options)).communicate()
    assert process.returncode == 0, err
    return out.split("\n")[:-1]


def test_code_is_found_by_what_it_was_made_of(tmp_path):
    cache = tmp_path / "cache"
    assert run(tmp_path / "a", cache) == ["compiled outer", "compiled inner", "42.0"]
    kept_there = list(cache.rglob("*.code"))
    assert len(kept_there) == 1
    moved = "# a comment\n\n" + SOURCE.replace("def outer(x):", 'def outer(x):\n    """What it is."""')
    assert run(tmp_path / "b", cache, moved) == ["42.0"]
    callee = SOURCE.replace("FACTOR * x", "FACTOR * x + 0.5")
    assert run(tmp_path / "c", cache, callee) == ["compiled outer", "compiled inner", "42.5"]
    constant = SOURCE.replace("2.0", "4.0")
    assert run(tmp_path / "d", cache, constant) == ["compiled outer", "compiled inner", "83.0"]
    kept_there[0].write_bytes(b"no code")
    assert run(tmp_path / "a", cache) == ["compiled outer", "compiled inner", "42.0"]
    assert run(tmp_path / "a", cache) == ["42.0"]


def test_of_several_processes_one_compiles(tmp_path):
    cache = tmp_path / "cache"
    processes = [start(tmp_path / "a", cache) for _ in range(3)]
    said = "".join(process.communicate()[0] for process in processes)
    assert said.count("42.0") == 3
    assert said.count("compiled outer") == 1


def test_a_full_disk_costs_the_kept_code_alone(tmp_path):
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9));"
    )
    said = run(tmp_path / "a", tmp_path / "cache", call=full + "import module; print(module.outer(20.5))")
    assert said == ["42.0"]
    assert not list((tmp_path / "cache").rglob("*.code"))
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder")
    assert run(tmp_path / "a", tmp_path / "cache")[-1] == "42.0"


def test_what_nobody_has_used_for_long_is_deleted(tmp_path, monkeypatch):
    for name in ("new.code", "old.code"):
        (tmp_path / name).write_text("x")
    long_ago = time.time() - 86400 * (kept.DAYS + 1)
    os.utime(tmp_path / "old.code", (long_ago, long_ago))
    kept._forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.code"]


@pytest.mark.parametrize("options", [{"fastmath": {"contract"}}, {"error_model": "numpy"}])
def test_options_are_told_apart(options):
    def half(x):
        return x / 2

    assert fingerprint(njit(cache=False)(half)) != fingerprint(njit(cache=False, **options)(half))
    assert fingerprint(njit(cache=False)(half)) == fingerprint(njit(cache=False)(half))
