"""A failed write harms nothing, and places that can't be written are told before the work."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from solvers.runtime.writing import check_place, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise kind

    with pytest.raises(kind):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_links_stay_and_their_targets_are_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    for name, before in (("old", b"old"), ("none yet", None)):
        target, link = tmp_path / "there" / name, tmp_path / f"link to {name}"
        if before:
            target.write_bytes(before)
        link.symlink_to(target)
        check_place("output", link)
        write(link)
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
    assert names(tmp_path / "there") == ["none yet", "old"]


@pytest.mark.skipif(os.name != "posix", reason="has other devices")
def test_devices_are_written_into(tmp_path):
    check_place("output", "/dev/null")
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write(pipe)
        assert reader.communicate()[0] == b"new"
    assert names(tmp_path) == ["pipe"]
    with pytest.raises(OSError, match="No space left"):
        write("/dev/full")


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
def test_an_open_pipe_is_written_into_by_its_name():
    """As `--csv /dev/stdout | less` does: the link leads to a pipe, which has no place of its own."""
    out, into = os.pipe()
    check_place("output", f"/dev/fd/{into}")
    write(f"/dev/fd/{into}")
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        assert pipe.read() == b"new"


def test_places_that_can_not_be_are_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, why in {
        tmp_path: "is a folder",
        tmp_path / "nowhere" / "file": "is not a folder",
        tmp_path / "file" / "below": "is not a folder",
        tmp_path / "dangling": "is not a folder",
        tmp_path / ("x" * 300): "can't be written",
        "/proc/nothing": "can't be written",
    }.items():
        with pytest.raises(ValueError, match=why) as error:
            check_place("output", place)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("output '")
    assert names(tmp_path) == ["dangling", "file", "loop"]
    check_place("output", tmp_path / "file")
    check_place("output", tmp_path / ("x" * 255))
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["dangling", "file", "loop"]


def test_protected_files_are_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "file").chmod(0o400)
    if os.access(tmp_path / "file", os.W_OK):  # root may write anything
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="protected"):
        check_place("output", tmp_path / "file")


HALF = """
import sys, time
from solvers.runtime.writing import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="has other signals")
def test_what_a_killed_process_left_is_removed_but_not_what_a_living_one_writes(tmp_path):
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", HALF, str(path)], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        check_place("output", path)
        assert len(names(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].endswith(".part")
    check_place("output", path)
    assert names(tmp_path) == []


def test_two_at_once_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"1" * 10)
        second.write(b"2" * 10)
    assert path.read_bytes() in (b"1" * 10, b"2" * 10)
    assert names(tmp_path) == ["file"]
