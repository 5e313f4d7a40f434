import json
import os
import time
import zipfile

import numpy as np
import pytest

from solvers.runtime import checkpoint as module
from solvers.runtime.checkpoint import Checkpoint, pack, unpack

KEY = {"problem": "abc", "gap": 1e-4}
PIECES = [
    ("numbers", [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.ones((1, 3))]),
    ("flags", [np.array([1, -1], np.int8)]),
    ("nothing", [np.zeros((0, 4), np.int32), np.zeros((0, 4), np.int32)]),
]


def test_what_is_saved_is_loaded(tmp_path):
    file = Checkpoint(tmp_path / "search", KEY)
    assert file.load() is None
    file.save(PIECES)
    found = Checkpoint(str(tmp_path / "search"), KEY).load()
    for name, pieces in PIECES:
        np.testing.assert_array_equal(found[name], np.concatenate(pieces))
        assert found[name].dtype == pieces[0].dtype
    assert [path.name for path in tmp_path.iterdir()] == ["search"]


def test_it_is_an_archive_that_others_can_read_without_pickles(tmp_path):
    Checkpoint(tmp_path / "search", KEY).save(PIECES)
    with np.load(tmp_path / "search", allow_pickle=False) as file:
        assert json.loads(str(file["key"])) == {"format": "cbs checkpoint 3", **KEY}
        assert file["numbers"].shape == (3, 3)


@pytest.mark.parametrize(("change", "named"), [({"gap": 1e-3}, "gap"), ({"problem": "x" * 64}, "problem")])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, change, named):
    Checkpoint(tmp_path / "search", KEY).save(PIECES)
    other = Checkpoint(tmp_path / "search", {**KEY, **change})
    for read in (other.check, other.load):
        with pytest.raises(
            ValueError, match=f"belongs to another {named} \\(.*\\); name another file"
        ) as error:
            read()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200 + len(str(tmp_path))


def damage(path, how):
    data = path.read_bytes()
    if how == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not an archive":
        path.write_bytes(b"hello" * 100)
    elif how == "a byte changed":
        at = data.index(np.arange(6.0).tobytes()) + 11
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    elif how == "no key":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("numbers.npy", b"")
    elif how == "a pickle":
        np.savez(path.with_suffix(".npz"), key=np.array([{"a": 1}], dtype=object))
        os.replace(path.with_suffix(".npz"), path)
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        if how == "written again":
            members["numbers.npy"] = members["numbers.npy"].replace(np.float64(5).tobytes(), bytes(8))
        stored = zipfile.ZIP_STORED if how == "written again" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", stored) as archive:
            for name, content in members.items():
                archive.writestr(name, content)


@pytest.mark.parametrize(
    "how",
    [
        "cut short", "empty", "not an archive", "a byte changed", "no key", "a pickle", "written again",
        "compressed",
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(tmp_path, how):
    file = Checkpoint(tmp_path / "search", KEY)
    file.save(PIECES)
    damage(tmp_path / "search", how)
    with pytest.raises(ValueError, match=r"search' is damaged \(.+\); delete it") as error:
        file.load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "why"),
    [("", "is a folder"), ("missing/search", "not a folder"), ("/dev/null", "no plain file")],
)
def test_a_file_that_can_not_be_is_refused_at_once(tmp_path, path, why):
    with pytest.raises(ValueError, match=why):
        Checkpoint(tmp_path / path, KEY)


def test_seconds_are_those_of_all_searches(tmp_path, monkeypatch):
    now = time.perf_counter()
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    for run in range(3):
        file = Checkpoint(tmp_path / "search", KEY)
        file.load()
        assert file.spent == 10.0 * run
        now += 10.0
        file.save(PIECES)
        assert file.seconds == 10.0 * (run + 1)


def test_a_write_that_fails_leaves_the_last_one(tmp_path):
    file = Checkpoint(tmp_path / "search", KEY)
    file.save(PIECES)

    def broken():
        yield PIECES[0]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        file.save(broken())
    assert [path.name for path in tmp_path.iterdir()] == ["search"]
    assert set(file.load()) == {"key", "numbers", "flags", "nothing"}


@pytest.mark.parametrize(("cost", "wait"), [(0.1, 30.0), (2.0, 40.0), (100.0, 60.0)])
def test_when_it_is_time_to_write(tmp_path, monkeypatch, cost, wait):
    now = time.perf_counter()
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    file = Checkpoint(tmp_path / "search", KEY)
    file._cost = cost
    assert not file.due
    now += wait - 0.01
    assert not file.due
    now += 0.02
    assert file.due
    file.put_off()
    assert not file.due


def test_things_with_arrays_of_many_shapes_come_back(tmp_path):
    things = [
        {"a": np.arange(6).reshape(2, 3), "b": np.float32(1.5).reshape(())},
        {"a": np.zeros((0, 4), np.int64), "record": np.array([(1, 2.0)], [("x", int), ("y", float)])},
        {},
        {"a": np.ones((1, 1), np.int64), "b": np.array(2.5)},
    ]
    file = Checkpoint(tmp_path / "search", {})
    file.save([*pack("thing", things), *pack("none", [])])
    found = unpack("thing", file.load())
    assert [sorted(thing) for thing in found] == [sorted(thing) for thing in things]
    for thing, other in zip(things, found, strict=True):
        for name, array in thing.items():
            assert other[name].shape == array.shape
            assert other[name].tolist() == array.tolist()
    assert unpack("none", file.load()) == []
    with pytest.raises(ValueError, match="does not fit"):
        unpack("thing", {**file.load(), "thing a": np.zeros(5)})
    with pytest.raises(KeyError):
        unpack("another", file.load())
