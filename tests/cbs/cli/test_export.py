import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cbs
from cbs import report
from cbs.cli import main
from solvers import Budget
from solvers.instances import export, load, random_problem, save


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 5, Budget.per_row(2), seed=0))
    return path


@pytest.mark.parametrize("split", [[], ["--split"]])
def test_writes_what_the_library_writes(capsys, instance, tmp_path, split):
    assert main(["export", str(instance), str(tmp_path / "cli.mps"), *split, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    unit = export(tmp_path / "library.mps", load(instance), split=bool(split))
    assert told == {"file": str(tmp_path / "cli.mps"), "unit": unit}
    assert (tmp_path / "cli.mps").read_text() == (tmp_path / "library.mps").read_text()
    assert ("QCMATRIX" in (tmp_path / "cli.mps").read_text()) == bool(split)


def test_for_people(capsys, instance, tmp_path):
    assert main(["export", str(instance), str(tmp_path / "layer.lp")]) == 0
    assert "cost = " in capsys.readouterr().out


def test_bad_ending_is_one_line(capsys, instance, tmp_path):
    assert main(["export", str(instance), str(tmp_path / "layer.nl")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "must end in .mps or .lp" in captured.err


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What `cbs prune` leaves: two results of the digits network; of untrained weights, which are quick."""
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = {"model": "digits", "weights": None, "data": None, "data_dir": None}
    split = cbs.digits()
    with report.RunFolder(path, settings) as run:
        asked = {"method": "magnitude", "scope": "layer", "certify": False, "test": split.test}
        for sparsity in (0.5, 0.9):
            run.keep(cbs.prune(cbs.digits_mlp(), split.train, sparsity=sparsity, **asked))
        run.conclude(list(run.results.values()))
        run.finish(plot=False)
    return path


def test_a_run_folder_becomes_a_file(capsys, run_folder, tmp_path):
    out = tmp_path / "net.safetensors"
    assert main(["export", str(run_folder), str(out), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "cbs: taking magnitude-0.9 of 2 results; --result names another\n"
    facts = json.loads(captured.out)
    assert facts["bytes"] == out.stat().st_size < 0.4 * facts["dense_bytes"]
    assert facts["needs_model"] is None
    dense = cbs.digits_mlp()
    weights = cbs.cli.weights.fill(dense, run_folder / "magnitude-0.9.safetensors")
    x = cbs.digits().test.inputs
    with torch.no_grad():
        torch.testing.assert_close(cbs.load(out)(x), weights(x), rtol=1e-5, atol=1e-5)


def test_lines_for_people(capsys, run_folder, tmp_path):
    out = tmp_path / "net.onnx"
    assert main(["export", str(run_folder), str(out), "--result", "magnitude-0.5"]) == 0
    told = capsys.readouterr().out
    assert "parameters" in told
    assert "opset 18" in told


NETWORK = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 3)

    def forward(self, x):
        return self.layer(x)

def make():
    return Wide(7)
"""


@pytest.mark.slow
def test_a_module_of_ones_own_is_named_in_the_file(tmp_path):
    """In a process of its own: the file is loaded without being given the network."""
    (tmp_path / "own.py").write_text(NETWORK)
    paths = {**os.environ, "PYTHONPATH": f"{Path(cbs.__file__).parents[1]}{os.pathsep}{tmp_path}"}
    code = (
        "import sys, cbs, cbs.cli;"
        "assert cbs.cli.main(['export', 'own:make', 'net.safetensors', '--shape', '7']) == 0;"
        "assert cbs.load('net.safetensors').layer.in_features == 7"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=paths, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "to use it" in done.stdout


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["digits", "x.mps"], "is for instances"),
        (["digits", "x.safetensors", "--split"], "is for instances"),
        (["digits", "x.bin"], "must end in .safetensors or .onnx"),
        (["torch.nn:Identity", "x.onnx"], "inputs are missing"),
        (["nowhere", "x.safetensors"], "unknown model"),
        (["digits", "no/x.safetensors"], "is not a folder"),
    ],
)
def test_refusals_in_one_line(capsys, tmp_path, monkeypatch, asked, why):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *asked]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert why in captured.err
    assert not any(tmp_path.iterdir())
