import json

import pytest

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
