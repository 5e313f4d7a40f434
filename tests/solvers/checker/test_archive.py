"""Archives are judged by what they declare, before anything is inflated."""

import io
import math
import os
import re
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from solvers.checker import archive as archives
from solvers.checker.archive import Archive, read_archive
from solvers.checker.problem import read_problem
from solvers.instances import load


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def header(descr="<f8", shape="(1, 3)", order="False"):
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped(path, members):
    """A zip file of stored members; those that declare more than they hold are deflated, with padding.

    Padding makes it as likely as can be that there is what is declared.
    """
    body, directory = b"", b""
    for name, content in members.items():
        size, method, raw = declared_size(content), 0, content
        if size > len(content):
            deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
            raw = (
                deflate.compress(content)
                + deflate.flush(zlib.Z_SYNC_FLUSH)
                + b"\0\0\0\xff\xff" * (size // 5000 + 1)
            )
            method = 8
        facts = (20, 0, method, 0, 0, zlib.crc32(content), len(raw), size, len(name), 0)
        entry = struct.pack("<4s2B5H3L5H2L", b"PK\1\2", 20, 3, *facts, 0, 0, 0, 0, len(body))
        directory += entry + name.encode()
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *facts) + name.encode() + raw
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def declared_size(content):
    """Bytes that an array's header says there are, header included; of anything else, its own."""
    found = re.search(rb"'descr': '.*?(\d+)'.*'shape': \(([\d, ]*)\)", content)
    if not found:
        return len(content)
    item = int(found[1]) * (4 if b"U" in found[0].split(b",")[0] else 1)
    count = math.prod(int(x) for x in found[2].split(b",") if x.strip())
    size = content.index(b"\n") + 1 + item * count
    return min(max(size, len(content)), 2**32 - 1)


def unreadable(path, words):
    for read in (lambda: load(path), lambda: read_problem(path)):
        with pytest.raises(ValueError, match=words) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.fixture
def never_inflated(monkeypatch):
    """Fails if an array is made."""
    monkeypatch.setattr(Archive, "read", lambda self, name: pytest.fail(f"{name} was read"))


def test_arrays_come_back_as_they_are(tmp_path):
    given = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.array("text"), "d": np.zeros((0, 3), np.float32), "e": np.array(True),
        "f": np.arange(3, dtype=">i2"), "g": np.array(["ab", "c"]), "h": np.array(2.5),
    }  # fmt: skip
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **given)
        found = read_archive(tmp_path / "a.npz", "file", lambda declared: None)
        assert found.keys() == given.keys()
        for name, array in given.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


ONE, UNIT = npy(np.ones((1, 3))), npy(np.eye(3))
BOMBS = {
    "weights of more inputs than the curvature": ("weights", "<f8", "(1, 402653184)", {"hessian": UNIT}),
    "a curvature of other weights": ("hessian", "<f8", "(20000, 20000)", {}),
    "a stack of another number of rows": ("hessian", "<f8", "(9000000, 3, 3)", {}),
    "a factor of other columns": ("factor", "<f8", "(3, 90000000)", {}),
    "a gradient of other rows": ("gradient", "<f8", "(90000000, 3)", {"hessian": UNIT}),
    "columns without end": ("movable", "<i8", "(90000000,)", {"hessian": UNIT}),
    "counts without end": ("prune", "<i8", "(90000000,)", {"hessian": UNIT}),
    "a name without end": ("budget", "<U90000000", "()", {"hessian": UNIT}),
    "dampings without end": ("damping", "<f8", "(90000000,)", {"factor": UNIT}),
    "flags without end": ("refit", "|b1", "(90000000,)", {"hessian": UNIT}),
    "a field of no problem": ("zeros", "<f8", "(90000000,)", {"hessian": UNIT}),
}


@pytest.mark.parametrize(("name", "descr", "shape", "others"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_from_its_shapes(tmp_path, name, descr, shape, others, never_inflated):
    members = {"weights": ONE, "budget": npy(np.array("per_row")), "prune": npy(np.array(1))} | others
    members[name] = header(descr, shape)
    path = zipped(tmp_path / "bomb.npz", {f"{key}.npy": content for key, content in members.items()})
    assert path.stat().st_size < 1 << 22
    unreadable(path, f"{name}")


def test_more_than_the_machine_has_is_refused(tmp_path, never_inflated, monkeypatch):
    monkeypatch.setattr(archives, "_memory", lambda: 1e9)
    members = {"weights": header(shape="(1, 12000)"), "hessian": header(shape="(12000, 12000)")}
    path = zipped(tmp_path / "large.npz", {f"{key}.npy": content for key, content in members.items()})
    unreadable(path, r"declares 1.15e\+09 bytes, more than the 1e\+09 of this machine's memory")


def test_a_declaration_has_to_be_that_of_the_zip_file(tmp_path, never_inflated):
    content = bytearray(npy(np.ones((1, 3))))
    for shape in (b"(1, 4), ", b"(0, 3), ", b"(1,), }  "):
        wrong = bytes(content).replace(b"(1, 3), ", shape[:8])
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr("weights.npy", wrong)
        unreadable(tmp_path / "a.npz", "field 'weights' is not a plain array")
    many = zipped(tmp_path / "b.npz", {"weights.npy": ONE})
    raw = bytearray(many.read_bytes())
    at = raw.index(b"PK\1\2") + 24
    raw[at : at + 4] = struct.pack("<L", 1 << 30)
    many.write_bytes(bytes(raw))
    unreadable(many, "declares 152 bytes, has 1073741824 in 152 of the file")


def test_arrays_that_share_bytes_are_refused(tmp_path):
    path = zipped(tmp_path / "a.npz", {f"{i}.npy": npy(np.ones(1000)) for i in range(2)})
    raw = path.read_bytes()
    at = raw.index(b"PK\1\2")
    first = raw[at : raw.index(b"PK\1\2", at + 1)]
    body = raw[: raw.index(b"PK\3\4", 4)]
    entries = b"".join(first.replace(b"0.npy", b"%d.npy" % i) for i in range(9))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, len(entries), len(body), 0)
    path.write_bytes(body + entries + end)
    unreadable(path, "its arrays overlap")


STRANGE = {
    "objects": (npy(np.array([{}], dtype=object)), "it holds '|O'"),
    "records": (npy(np.zeros(1, "f8,i4")), "header is not that of a plain array"),
    "dates": (npy(np.zeros(1, "M8[s]")), "it holds '<M8"),
    "no array": (b"weights", "does not start as one"),
    "nothing": (b"", "does not start as one"),
    "another version": (b"\x93NUMPY\x09\x00" + npy(np.ones(1))[8:], "does not start as one"),
    "a header cut short": (npy(np.ones(1))[:40], "cut short"),
    "a long header": (b"\x93NUMPY\x02\x00" + struct.pack("<L", 1 << 31), "its header has 2147483648 bytes"),
    "a header of brackets": (header(shape="(" * 60), "header is not that"),
    "a header with a call": (header(descr="<f8' + exit() + '"), "header is not that"),
    "a negative shape": (header(shape="(-1, 3)"), "header is not that"),
    "a fraction": (header(shape="(1.5, 3)"), "header is not that"),
    "too many axes": (header(shape="(" + "1," * 40 + ")"), "its shape is"),
    "a shape beyond counting": (header(shape="(4611686018427387904, 4)"), "its shape is"),
    "a type that is none": (header(descr="<f7"), "data type 'f7' not understood|not a plain array"),
    "booleans that are none": (header("|b1", "(1, 3)") + b"\0\1\7", "neither true nor false"),
    "letters that are none": (header("<U1", "(1,)") + b"\xff" * 4, "letters that are none"),
}


@pytest.mark.parametrize(("content", "words"), STRANGE.values(), ids=STRANGE)
def test_members_that_are_no_plain_arrays(tmp_path, content, words):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("weights.npy", content)
    with pytest.raises(ValueError, match=words) as caught:
        read_archive(tmp_path / "a.npz", "file", lambda declared: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "bits", "words"),
    [(10, 12, "compressed by method 12"), (10, 14, "method 14"), (10, 99, "method 99"), (8, 1, "encrypted"),
     (8, 0x20, "patched|can't be read"), (8, 0x40, "encryption|can't be read")],
)  # fmt: skip
def test_zip_files_of_other_kinds(tmp_path, offset, bits, words):
    path = zipped(tmp_path / "a.npz", {"weights.npy": ONE})
    raw = bytearray(path.read_bytes())
    for start, at in ((raw.index(b"PK\1\2"), offset), (0, offset - 2)):
        raw[start + at : start + at + 2] = struct.pack("<H", bits)
    path.write_bytes(bytes(raw))
    unreadable(path, words)


def test_names_that_are_none(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("weights.npy", ONE)
        file.writestr("weights.npy", ONE)
    unreadable(tmp_path / "a.npz", "two arrays 'weights'")
    for name in ("weights", "folder/", "../weights.npz"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr(name, ONE)
        unreadable(tmp_path / "a.npz", "is not an array")
    for name in ("../weights.npy", "gewichte\u00fc.npy", "a\nb.npy", "n" * 60_000 + ".npy"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            file.writestr(name, ONE)
        unreadable(tmp_path / "a.npz", "unknown field|can't be read|need 'hessian'|is missing")


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    unreadable(tmp_path / "pipe", "is not a file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    unreadable(tmp_path / "loop", "can't be read")
    unreadable(tmp_path / ("x" * 300), "too long")
    unreadable(tmp_path, "is a folder")


def test_an_honest_large_file_is_read(tmp_path):
    """Zeros deflate a thousandfold, and are no crime."""
    np.savez_compressed(
        tmp_path / "a.npz", weights=np.zeros((4, 1000)), hessian=np.eye(1000), budget="per_row", prune=500
    )
    assert (tmp_path / "a.npz").stat().st_size < 40_000
    assert load(tmp_path / "a.npz").n == read_problem(tmp_path / "a.npz").n == 1000


def test_a_file_that_changes_while_it_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    archive = Archive(tmp_path / "a.npz", "file")
    np.savez(tmp_path / "a.npz", a=np.ones(4))
    with pytest.raises(ValueError, match="no longer what it was"):
        archive.read("a")
    np.savez(tmp_path / "a.npz", b=np.ones(4))
    with pytest.raises(ValueError, match="can't be read"):
        archive.read("a")
