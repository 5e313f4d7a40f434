import csv
import json
import signal

import numpy as np
import pytest

import cbs.cli.watch
from cbs.cli import main
from solvers import Budget, SubsetProblem, solve
from solvers.instances import load, random_problem, save


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 8, Budget.per_layer(7), seed=0))
    return path


def run(capsys, *arguments):
    status = main(["curve", *map(str, arguments)])
    return status, capsys.readouterr()


def test_json_gives_every_count_of_every_row(capsys, instance):
    status, captured = run(capsys, instance, "--json", "--gap", "1e-6")
    found = json.loads(captured.out)
    problem = load(instance)
    assert (status, found["status"]) == (0, "optimal")
    assert np.array(found["proven"]).all()
    for k in range(9):
        counted = SubsetProblem(problem.W, problem.hessian, Budget.per_row(k))
        best = solve(counted, "brute-force").value
        assert sum(row[k] for row in found["values"]) == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert sum(row[k] for row in found["bounds"]) <= best + 1e-12


def test_the_table_and_the_csv_file_agree(capsys, instance, tmp_path):
    status, captured = run(capsys, instance, "--csv", tmp_path / "out.csv")
    assert status == 0
    assert captured.out.splitlines()[1].split()[:3] == ["0", "of", "8"]
    assert "18 of 18 proven to 0.01%" in captured.out
    with open(tmp_path / "out.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 18
    assert {line["proven"] for line in lines} == {"1"}
    whole = [line for line in lines if line["prune"] == "8"]
    total = f"{sum(float(line['value']) for line in whole):.7g}"
    assert captured.out.splitlines()[9].split()[3] == total
    assert all(float(line["bound"]) <= float(line["value"]) for line in lines)


def test_certificates_are_proven(capsys, instance, tmp_path):
    status, _ = run(capsys, instance, "--certificate", tmp_path / "cert")
    assert status == 0
    assert main(["verify", str(tmp_path / "cert"), str(instance)]) == 0
    assert "proofs" in capsys.readouterr().out


def test_only_the_counts_asked_for_are_searched(capsys, instance):
    _, captured = run(capsys, instance, "--prune", "3,5-6", "--json")
    proven = np.array(json.loads(captured.out)["proven"])
    assert proven[:, [3, 5, 6]].all()


def test_ctrl_c_prints_what_was_found_and_tells_it(capsys, instance, monkeypatch):
    monkeypatch.setattr(cbs.cli.watch.Watch, "__call__", lambda *_: signal.raise_signal(signal.SIGINT))
    status, captured = run(capsys, instance, "--json")
    found = json.loads(captured.out)
    assert (status, found["status"]) == (130, "interrupted")
    assert (np.array(found["bounds"]) <= np.array(found["values"])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", "3;4"], "3;4"),
        (["--prune", "9"], "between 0 and 8"),
        (["--csv", "nowhere/out.csv"], "not a folder"),
        (["--certificate", "nowhere/out"], "not a folder"),
        (["--gap", "-1"], "gap"),
    ],
)
def test_bad_requests_are_told_in_one_line(capsys, instance, options, message):
    status, captured = run(capsys, instance, *options)
    assert status == 2
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_rows_that_are_tied_together_have_no_curves(capsys, tmp_path):
    save(tmp_path / "columns.npz", random_problem(2, 8, Budget.columns(3), seed=0))
    status, captured = run(capsys, tmp_path / "columns.npz")
    assert status == 2
    assert "columns" in captured.err
