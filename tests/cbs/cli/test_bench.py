import json

import pytest

from cbs.cli import main
from tests.cbs.cli.test_export import run_folder  # noqa: F401


def test_the_table_fits_80_columns(capsys, monkeypatch, run_folder):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", str(run_folder), "--seconds", "0", "--no-onnx", "-b", "1,3"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert captured.err == "cbs: taking magnitude-0.9 of 2 results; --result names another\n"
    first = lines[0].split("  ")
    assert [word.strip() for word in first if word] == ["on disk", "in memory", "multiplied", "what runs"]
    assert [line.split()[:2] for line in lines if line.startswith("batch")] == [
        ["batch", "1"],
        ["batch", "3"],
    ]
    assert sum(line.startswith("Batch") for line in lines) == 2


def test_one_json_object(capsys, run_folder):  # noqa: F811
    asked = [
        "bench",
        str(run_folder),
        "--result",
        "magnitude-0.5",
        "--seconds",
        "0",
        "--threads",
        "1",
        "--json",
        "--no-onnx",
    ]
    assert main(asked) == 0
    facts = json.loads(capsys.readouterr().out)
    dense = facts["variants"][0]
    assert dense["name"] == "dense"
    assert dense["multiplications"] == 64 * 32 + 32 * 16 + 16 * 10
    assert {*dense["times"]} == {"1", "64"}
    assert facts["threads"] == 1


def test_a_model_of_ones_own(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    asked = ["bench", "torch.nn:Identity", "--shape", "3,4", "-b", "2", "--seconds", "0", "--no-onnx"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "no sparse: nothing was compiled" in out
    assert "nothing is faster than dense" in out


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["nowhere"], "unknown model 'nowhere'"),
        (["torch.nn:Identity"], "give --data FILE.py:NAME or --shape SIZES"),
        (["torch.nn:Identity", "--shape", "3,x"], "shape must be"),
        (["digits", "-b", "0"], "batch must be"),
        (["digits", "--seconds", "-1"], "seconds must be"),
        (["digits", "--result", "x"], "is of a run folder"),
        (["digits", "--model", "x:y"], "is for run folders and files"),
        (["absent.safetensors"], "is not a file"),
    ],
)
def test_refusals_in_one_line(capsys, tmp_path, monkeypatch, asked, why):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *asked]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert why in captured.err
