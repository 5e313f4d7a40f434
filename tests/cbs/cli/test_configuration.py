"""Options from a file: of the right command and kind, paths as seen from the file; and back again."""

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cbs.cli import main
from cbs.cli.configuration import write
from solvers import Budget
from solvers.instances import random_problem, save
from tests.cbs.cli.test_lost_work import without_seconds

MODULE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))

X, y = torch.randn(30, 8, generator=torch.Generator().manual_seed(1)), torch.arange(30) % 3
data, other = (X, y), (X + 1, y)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "configured.py").write_text(MODULE)
    save(tmp_path / "layer.npz", random_problem(2, 8, Budget.per_row(4), seed=0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("configured", None)


def run(capsys, *argv):
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_run_is_repeated_from_its_folder(capsys, here):
    asked = ("--data", "configured:data", "-m", "joint,random", "-s", "0.5", "--stages", "2", "--seed", "3")
    asked += ("--scope", "layer")
    status, out, _ = run(capsys, "prune", "configured:net", *asked, "-o", "out", "--json")
    assert status == 0
    status, again, err = run(capsys, "prune", "--config", "out/config.toml", "-o", "again", "--json")
    assert status == 0
    assert "was written for another" not in err
    assert without_seconds(json.loads(again)) == without_seconds(json.loads(out))
    names = [path.name for path in (here / "out").glob("*.safetensors")]
    assert len(names) == 4
    for name in names:
        first, second = load_file(here / "out" / name), load_file(here / "again" / name)
        assert first.keys() == second.keys()
        assert all(bool((tensor == second[key]).all()) for key, tensor in first.items())
    text = (here / "out" / "config.toml").read_text()
    assert "# written by: cbs prune configured:net --data configured:data" in text
    assert json.loads(out)["command"][:3] == ["cbs", "prune", "configured:net"]
    told = run(capsys, "prune", "--config", "out/config.toml", "--data", "configured:other", "-o", "c")[2]
    assert "config 'out/config.toml' was written for another calibration data: results will differ" in told


def test_what_is_typed_counts_more_than_the_commands_table_and_that_more_than_the_top(capsys, here):
    (here / "a.toml").write_text(
        'solver = "magnitude"\nseed = 1\n[solve]\nsolver = "greedy"\n[bound]\nseed = 2\n'
    )
    for argv, expected in (((), "greedy"), (("--solver", "brute-force"), "brute-force")):
        status, out, _ = run(capsys, "solve", "layer.npz", "--config", "a.toml", "--json", *argv)
        assert (status, json.loads(out)["solver"]) == (0, expected)


def test_paths_are_seen_from_the_file(capsys, here):
    (here / "deep").mkdir()
    (here / "deep" / "a.toml").write_text(
        '[solve]\nfile = "../layer.npz"\nsolver = "greedy"\ncertificate = "layer.cert"\njson = true\n'
    )
    status, out, _ = run(capsys, "solve", "--config", "deep/a.toml")
    assert status == 0
    assert json.loads(out)["solver"] == "greedy"
    assert (here / "deep" / "layer.cert").is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[solve]\ntime-limt = 3", "unknown option of cbs solve 'time-limt'; did you mean 'time-limit'?"),
        ("[sovle]\ngap = 3", "unknown table 'sovle'; did you mean 'solve'?"),
        ("config = 'b'", "unknown option of cbs solve 'config'"),
        ("[solve]\nseed = 1.5", "seed must be a whole number, got 1.5"),
        ("[solve]\nseed = true", "seed must be a whole number, got True"),
        ("[solve]\ngap = '0.1'", "gap must be a number, got '0.1'"),
        ("[solve]\njson = 1", "json must be true or false, got 1"),
        ("[solve]\nsolver = true", "solver must be a text, got True"),
        ("[solve]\nsolver = 1979-05-27", "solver must be a text"),
        ("[solve]\ncertificate = 3", "certificate must be a path, got 3"),
        ("[solve]\ntime-limit = 3\ntime_limit = 4", "'time-limit' and 'time_limit' are one option"),
        ("[solve", "is not TOML"),
        ("\xff", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("[solve]\nseed = -1", "--seed"),
        ("#" * (1 << 20) + "\n", "larger than a mebibyte"),
    ],
)
def test_what_a_file_may_not_say(capsys, here, text, told):
    (here / "a.toml").write_text(text, encoding="latin-1")
    status, out, err = run(capsys, "solve", "layer.npz", "--config", "a.toml")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_a_file_that_is_none(capsys, here):
    for name, told in (("none.toml", "No such file"), (".", "Is a directory")):
        status, out, err = run(capsys, "solve", "layer.npz", "--config", name)
        assert (status, out) == (2, "")
        assert told in err


def test_what_is_written_is_toml_of_the_same_values(here):
    values = {
        "model": "lib/net.py:build", "weights": Path("w.pt"), "outside": Path("/elsewhere/x"),
        "time_limit": 1e-7, "word": 'a "quoted" \\ word\n\x7f\u00e9', "labels": False,
        "sparsity": [0.5, 0.9], "layers": None, "n": 3,
    }  # fmt: skip
    found = tomllib.loads(write("prune", values, Path("runs/a"), remarks=["two\nlines"]))["prune"]
    assert found.pop("model") == os.path.join("..", "..", "lib", "net.py") + ":build"
    assert found.pop("weights") == os.path.join("..", "..", "w.pt")
    assert found.pop("outside") == str(Path("/elsewhere/x"))
    assert found.pop("time-limit") == 1e-7
    del values["model"], values["weights"], values["outside"], values["time_limit"], values["layers"]
    assert found == values
