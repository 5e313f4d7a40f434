import math
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cbs.study.cell import Answer, Cell
from cbs.study.database import Full, named
from cbs.study.schema import COLUMNS, DONE, FAILED, LAYOUT, PLANNED, RUNNING
from cbs.study.store import Store
from tests.cbs.study.servers import postgresql

WHO = {"study": "s", "version": "1", "machine": "m", "revision": "r"}


def cells(count, start=0):
    return [
        Cell("solve", f"i{i}", f"d{i}", "auto", {"depth": i}, 1.5, 1e-4, 2**40 + i, {"solver": "auto"},
             {"family": "f", "m": 1, "n": i, "variant": "joint", "budget": "per_row", "sparsity": 0.5})
        for i in range(start, start + count)
    ]  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "sqlite":
        yield os.fspath(tmp_path / "s.sqlite")
        return
    with postgresql(tmp_path) as url:
        yield url


def test_a_store_keeps_what_cells_came_to(place):
    with Store.open(place, create=True) as store:
        keys, new = store.plan(cells(1200), **WHO)
        assert (len(keys), new) == (1200, 1200)
        assert store.plan(cells(1200), **WHO)[1] == 0
        assert store.members("s") == keys
        first, second, third = keys[:3]
        assert store.claim(first, "me")
        assert not store.claim(first, "you")
        answer = Answer(
            {"status": "optimal", "value": 1.5, "bound": -math.inf, "gap": math.inf, "nodes": np.int64(2**40),
             "certified": True, "seconds": np.float64(0.25)},
            {"stats": {"x": 1}}, {"trace_seconds": np.arange(3.0)},
        )  # fmt: skip
        assert not store.finish(first, "you", answer, "there")
        assert store.finish(first, "me", answer, "there")
        assert not store.finish(first, "me", answer, "there")
        assert store.claim(second, "me")
        assert store.fail(second, "me", "it broke")
        assert store.claim(third, "me")
        assert store.release(third, "me", "interrupted")
        assert store.counts() == {PLANNED: 1198, RUNNING: 0, DONE: 1, FAILED: 1}
        frame = store.frame(keys)
    assert list(frame.columns) == [name for name in COLUMNS if name != "arrays"]
    assert frame["key"].tolist() == keys
    row = frame.iloc[0]
    assert (row["value"], row["bound"], row["gap"], row["nodes"]) == (1.5, -math.inf, math.inf, 2**40)
    assert (row["result"], row["options"], row["seed"]) == ({"stats": {"x": 1}}, {"depth": 0}, 2**40)
    assert (row["n"], row["sparsity"], row["host"], row["seconds"]) == (0, 0.5, "there", 0.25)
    assert bool(row["certified"]) is True
    assert frame.iloc[1]["error"] == "it broke"
    assert math.isnan(frame.iloc[1]["value"])
    assert frame.iloc[2]["attempts"] == 1
    with Store.open(place) as store:
        assert store.arrays(first)["trace_seconds"].tolist() == [0, 1, 2]
        assert store.arrays(second) == store.arrays("no such key") == {}
        assert store.retry() == 1
        assert store.frame([second])["error"].isna().all()
        assert store.counts()[PLANNED] == 1199


def test_two_studies_may_share_cells(tmp_path):
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        one, _ = store.plan(cells(4), **WHO)
        two, new = store.plan(cells(4, start=2), **{**WHO, "study": "t"})
        assert new == 2
        assert set(one) & set(two) == set(one[2:])
        assert store.studies() == {"s": 4, "t": 4}
        store.plan(cells(2), **WHO)  # the study asks for less now: what was computed stays
        assert store.members("s") == one[:2]
        assert len(store.frame()) == 6
        store.plan(cells(1, start=5), **WHO, whole=False)
        assert len(store.members("s")) == 3


def test_heartbeats_are_the_owner_s(tmp_path):
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        keys, _ = store.plan(cells(2), **WHO)
        store.claim(keys[0], "me")
        store.claim(keys[1], "you")
        before = store.states()
        store.beat("me")
        after = store.states()
        assert after[keys[0]][2] > before[keys[0]][2]
        assert after[keys[1]] == before[keys[1]]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "is no file"),
        (lambda path: path.write_bytes(b"no database" * 100), "file is not a database"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: sqlite3.connect(path).execute("create table other (x)"), "holds other tables"),
    ],
)
def test_what_is_no_store_is_refused_in_a_line(tmp_path, make, told):
    path = tmp_path / "s.sqlite"
    make(path)
    with pytest.raises(ValueError, match=told) as raised:
        Store.open(path)
    assert "\n" not in str(raised.value)


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "s.sqlite"
    Store.open(path, create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("update meta set value = ? where name = 'layout'", (str(LAYOUT + 1),))
    connection.close()
    for create in (False, True):
        with pytest.raises(ValueError, match=f"newer version .layout {LAYOUT + 1}"):
            Store.open(path, create=create)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://127.0.0.1:9/nothing", "can't be opened"),
        ("oracel://host/db", "no driver for 'oracel'"),
        ("://", "no URL"),
        ("postgres://127.0.0.1:9/nothing", "can't be opened"),
        ("sqlite:///:memory:", "would be lost"),
    ],
)
def test_databases_that_can_t_be_reached_are_refused_in_a_line(url, told):
    with pytest.raises(ValueError, match=told) as raised:
        Store.open(url, create=True)
    assert "\n" not in str(raised.value)


def test_passwords_are_not_told():
    with pytest.raises(ValueError, match="can't be opened") as raised:
        Store.open("postgresql://me:secret@127.0.0.1:9/nothing")
    assert "secret" not in str(raised.value)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk takes root"
)
def test_a_full_disk_loses_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small]).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        with Store.open(small / "s.sqlite", create=True) as store:
            keys, _ = store.plan(cells(30), **WHO)
            noise = np.random.default_rng(0)
            kept = []

            def fill():
                for key in keys:
                    store.claim(key, "me")
                    store.finish(key, "me", Answer({"value": 1.0}, {}, {"a": noise.random(5000)}), "h")
                    kept.append(key)

            with pytest.raises(Full, match="the disk is full"):
                fill()
            assert 0 < len(kept) < 30
        with Store.open(small / "s.sqlite") as store:
            states = store.states()
            assert all(states[key][0] == DONE for key in kept)
            assert store.arrays(kept[-1])["a"].shape == (5000,)
    finally:
        subprocess.run(["umount", small], check=True)


def test_places_are_told_without_their_passwords():
    assert named("a/b.sqlite") == "a/b.sqlite"
    assert named("postgresql://me:secret@host/base") == "postgresql+psycopg://me:***@host/base"


def test_programs_that_make_a_store_at_once_get_one(place):
    ready = threading.Barrier(4)

    def make(_):
        ready.wait()
        with Store.open(place, create=True) as store:
            return sum(store.counts().values())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [0, 0, 0, 0]


def test_a_store_where_nothing_can_be_written_is_read(tmp_path, monkeypatch):
    folder = tmp_path / "a folder? #1 100%"
    folder.mkdir()
    with Store.open(folder / "s.sqlite", create=True) as store:
        store.plan(cells(3), **WHO)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(folder / "s.sqlite") as store:
        assert store.counts()[PLANNED] == 3
        assert len(store.frame(store.members("s"))) == 3
        with pytest.raises(ValueError, match="can't be written"):
            store.claim(store.members("s")[0], "me")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_that_can_t_be_written_is_refused(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(ValueError, match="is no folder"):
            Store.open(tmp_path / "no" / "s.sqlite", create=True)
        return
    Path(tmp_path).chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ValueError, match="can't be opened"):
        Store.open(tmp_path / "s.sqlite", create=True)
