"""Compiled code of other releases, and where it is kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import solvers.runtime.caches
from solvers.runtime.caches import STAMP, forget_older_releases


def compiled(folder):
    """Something of every kind that lies beside compiled modules."""
    inner = folder / "inner" / "__pycache__"
    inner.mkdir(parents=True)
    (folder / "__pycache__").mkdir(exist_ok=True)
    names = ["a.f-1.py311.nbi", "a.f-1.py311.1.nbc", "a.cpython-311.pyc"]
    for name in names:
        (inner / name).write_text("x")
    (folder / "__pycache__" / names[0]).write_text("x")
    (folder / "inner" / "a.nbi").write_text("not compiled code: it lies elsewhere")
    return inner


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != STAMP)


def test_a_new_release_forgets_what_an_older_one_compiled(tmp_path):
    inner = compiled(tmp_path)
    assert forget_older_releases(tmp_path, "1.0") == 3
    assert left(tmp_path) == ["a.cpython-311.pyc", "a.nbi"]
    (inner / "b.nbi").write_text("compiled by 1.0")
    assert forget_older_releases(tmp_path, "1.0") == 0
    assert (inner / "b.nbi").exists()
    assert forget_older_releases(tmp_path, "1.1") == 1
    assert not (inner / "b.nbi").exists()


def test_where_nothing_is_installed_nothing_is_done(tmp_path, monkeypatch):
    compiled(tmp_path)
    monkeypatch.setattr(solvers.runtime.caches, "PACKAGE", "no-such-package")
    assert forget_older_releases(tmp_path) == 0
    assert len(left(tmp_path)) == 5


def test_folders_that_cannot_be_written_are_left(tmp_path):
    compiled(tmp_path / "inside")
    (tmp_path / "inside" / "__pycache__" / STAMP).mkdir()
    assert forget_older_releases(tmp_path / "inside", "1.0") == 0
    assert len(left(tmp_path)) == 5


def test_the_installed_release_is_looked_up(tmp_path, monkeypatch):
    compiled(tmp_path)
    monkeypatch.setattr(solvers.runtime.caches, "version", lambda package: f"{package} 9")
    assert forget_older_releases(tmp_path) == 3
    assert (tmp_path / "__pycache__" / STAMP).read_text() == "combinatorial-brain-surgeon 9"


PACKAGE = """
from numba import njit

@njit(cache=True)
def twice(x):
    return 2 * x
"""


def call(folder, **environment):
    """What a process prints that finds a place for a package's code, and compiles some of it."""
    code = (
        "from pathlib import Path; import solvers.runtime.caches;"
        "place = solvers.runtime.caches.find_a_place(Path('package'));"
        "import package.inner.module as m; print(m.twice(21), place)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment}
    env.pop("XDG_CACHE_HOME", None)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    answer, place = run.stdout.split()
    assert answer == "42"
    return None if place == "None" else Path(place)


def test_code_is_kept_where_it_can_be(tmp_path):
    inner = tmp_path / "package" / "inner"
    inner.mkdir(parents=True)
    (inner / "module.py").write_text(PACKAGE)
    nowhere = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path / "temporary"), "NUMBA_CACHE_DIR": ""}
    (tmp_path / "temporary").mkdir()
    assert call(tmp_path, **nowhere) is None
    assert list((inner / "__pycache__").glob("module.twice*.nbi"))
    shutil.rmtree(inner / "__pycache__")
    (inner / "__pycache__").write_text("no folder: nothing can be kept here")
    home = tmp_path / "home"
    assert call(tmp_path, **nowhere | {"HOME": str(home)}) is None
    assert list(home.rglob("module.twice*.nbi"))
    place = call(tmp_path, **nowhere)
    assert place.parent == tmp_path / "temporary"
    assert list(place.rglob("module.twice*.nbi"))
    assert call(tmp_path, **nowhere) == place
    place.chmod(0o777)
    another = call(tmp_path, **nowhere)
    assert another.parent == place.parent
    assert another != place
    assert not another.exists()


def test_a_full_disk_costs_the_kept_code_alone(tmp_path):
    (tmp_path / "full.py").write_text(PACKAGE)
    code = (
        "import resource, signal, solvers.runtime.caches, full; solvers.runtime.caches.spare_full_disks();"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9));"
        "print(full.twice(21))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "42\n"), run.stderr
