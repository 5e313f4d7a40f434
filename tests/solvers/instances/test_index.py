"""The index of a library: refused where it is damaged or newer, with one line that says why."""

import json

import pytest

from solvers.instances.index import read_index, write_index
from tests.solvers.instances.libraries import small_library


def test_an_index_reads_back(tmp_path):
    library = small_library(tmp_path)
    assert read_index(tmp_path) == library.index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(schema=2), "has schema 2, newer than the 1"),
        (lambda index: index.update(schema="1"), "has schema '1'"),
        (lambda index: index.update(format="other"), "is not one of 'cbs instances'"),
        (lambda index: index.pop("instances"), "'instances' is not an object"),
        (lambda index: index["data"].pop("b"), "instance 'both': its data 'b' is not listed"),
        (lambda index: index["data"]["a"].update(digest="12"), "data 'a' lacks a digest"),
        (lambda index: index["instances"]["a-r0"].pop("n"), "instance 'a-r0': no 'n'"),
        (lambda index: index["instances"]["a-r0"].update(m="3"), "instance 'a-r0': 'm' is '3'"),
        (lambda index: index["instances"]["a-r0"].update(value=True), "instance 'a-r0': 'value' is True"),
        (
            lambda index: index["instances"]["a-r0"].update(rows=[[-1]]),
            "'rows' must list the numbers of rows",
        ),
        (lambda index: index["instances"]["a-r0"].update(rows=[]), "must have one entry a layer"),
        (lambda index: index["instances"]["a-r0"].update(certificate="../x"), r"'certificate' is '\.\./x'"),
        (lambda index: index["instances"].update({"../x": {}}), "a name has letters"),
        (lambda index: index["instances"]["a-r0"].update(value=10**400), "'value' is not finite"),
        (lambda index: index["instances"]["a-r0"].update(data=[{}]), "'layers' and 'data' must list names"),
        (lambda index: index["instances"]["a-r0"].update(layers=[3]), "'layers' and 'data' must list names"),
        (lambda index: index["instances"]["a-r0"].update(budget={"kind": [1]}), "'budget' is {'kind'"),
        (lambda index: index["instances"]["a-r0"].update(sparsity=7), "'sparsity' is 7"),
        (lambda index: index.update(parts=[1]), "'parts' is not a list"),
    ],
)
def test_damages(tmp_path, change, message):
    small_library(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    change(index)
    write_index(tmp_path, index)
    with pytest.raises(ValueError, match=message) as caught:
        read_index(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1]", "is not one of"),
        (b'{"a": NaN}', "it holds NaN"),
    ],
)
def test_bytes_that_are_no_index(tmp_path, raw, message):
    (tmp_path / "index.json").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path)


def test_a_folder_without_one(tmp_path):
    with pytest.raises(ValueError, match=r"has no index\.json; make one with `cbs instances make"):
        read_index(tmp_path)
