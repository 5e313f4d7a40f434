"""`cbs quantize` says what `cbs.quantize` says, and writes what `load_quantized` reads."""

import json
import os
import sys

import pytest
import torch

import cbs
from cbs.cli import main
from tests.cbs.cli.test_prune import MODULE


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "well_used.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("well_used", None)


MINE = ("quantize", "well_used:Net", "--data", "well_used:train", "--test", "well_used:held_out")


def test_it_prints_what_python_says(capsys, here):
    assert main([*MINE, "--bits", "4,2", "--per", "tensor", "--rounding", "nearest", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    net = sys.modules["well_used"]
    for record, bits in zip(printed["results"], (4, 2), strict=True):
        result = cbs.quantize(net.Net(), net.train(), bits=bits, per="tensor", test=net.held_out)
        expected = json.loads(json.dumps(result.to_dict()))
        for name in expected.keys() - {"seconds"}:
            assert record[name] == expected[name]


def test_a_pruned_network_of_a_run_folder_is_written_and_read(capsys, here):
    assert main(["prune", *MINE[1:], "-m", "magnitude", "-s", "0.75", "-o", "out"]) == 0
    files = ("--weights", "out/magnitude-0.75.safetensors", "--masks", "out/magnitude-0.75.masks.safetensors")
    assert main([*MINE, *files, "-o", "small.safetensors", "--json"]) == 0
    text = capsys.readouterr().out
    (record,) = json.loads(text[text.rindex('{"model"') :])["results"]
    size = os.path.getsize("small.safetensors")
    header = int.from_bytes((here / "small.safetensors").read_bytes()[:8], "little")
    assert size == record["bytes"] + header + 8
    assert sum(layer["kept"] for layer in record["layers"]) == 11
    loaded = cbs.load_quantized(here / "small.safetensors", sys.modules["well_used"].Net())
    assert sum(int(mask.sum()) for name, mask in loaded.named_buffers() if name.endswith("mask")) == 11
    assert not bool(torch.isnan(loaded[0].weight).any())
    assert main([*MINE, *files]) == 0
    first = capsys.readouterr().out.splitlines()[1].split()
    assert first[:2] == ["pruned", str(4 * (11 + 4 + 3) + 4 + 2)]


def test_the_table_has_the_dense_network_first(capsys, here):
    assert main([*MINE, "-b", "8", "-b", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["bytes", "accuracy", "loss", "increase", "layer", "objectives"]
    assert [line.split()[0] for line in lines[1:]] == ["dense", "8", "2"]
    assert lines[1].split()[1] == f"{4 * (32 + 4 + 12 + 3)}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--bits", "4,2", "-o", "a.safetensors"), "output is one file, but bits are 4, 2; give one of them"),
        (("--bits", "four"), "bits must be whole numbers from 2 to 8, got four"),
        (("--bits", ","), "bits must be whole numbers from 2 to 8, got ','"),
        (("--bits", "9"), "bits must be a whole number from 2 to 8, got 9"),
        (("--masks", "none.safetensors"), "masks 'none.safetensors' can't be read"),
        (("--per", "rows"), "unknown per 'rows'; did you mean 'row'?"),
        (("--output", "none/a.safetensors"), "output 'none/a.safetensors'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, here, more, message):
    assert main([*MINE, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
