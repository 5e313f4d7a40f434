"""Of caches.py: compiled code of other releases."""

import solvers.caches
from solvers.caches import STAMP, forget_older_releases


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
    monkeypatch.setattr(solvers.caches, "PACKAGE", "no-such-package")
    assert forget_older_releases(tmp_path) == 0
    assert len(left(tmp_path)) == 5


def test_folders_that_cannot_be_written_are_left(tmp_path):
    compiled(tmp_path / "inside")
    (tmp_path / "inside" / "__pycache__" / STAMP).mkdir()
    assert forget_older_releases(tmp_path / "inside", "1.0") == 0
    assert len(left(tmp_path)) == 5


def test_the_installed_release_is_looked_up(tmp_path, monkeypatch):
    compiled(tmp_path)
    monkeypatch.setattr(solvers.caches, "version", lambda package: f"{package} 9")
    assert forget_older_releases(tmp_path) == 3
    assert (tmp_path / "__pycache__" / STAMP).read_text() == "combinatorial-brain-surgeon 9"
