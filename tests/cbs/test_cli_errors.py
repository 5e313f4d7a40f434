"""Bad input on the command line: exit status 2, one line on standard error, nothing written."""

import importlib.util
import json

import numpy as np
import pytest

from cbs.cli import main
from solvers import Budget
from solvers.instances import random_problem, save


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder of its own; it must be refused, and leave the folder empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*argv):
        assert main([str(a) for a in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("cbs: ")
        assert captured.err.endswith("\n")
        assert captured.err.count("\n") == 1
        assert list(here.iterdir()) == []
        return captured.err

    return run


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 8, Budget.per_row(4), seed=0))
    return path


def bad_instance(tmp_path, **changes):
    good = {"weights": np.ones((2, 4)), "hessian": np.eye(4), "budget": "per_row", "prune": 2}
    np.savez(tmp_path / "bad.npz", **(good | changes))
    return tmp_path / "bad.npz"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sovle"], "No such command 'sovle'. Did you mean 'solve'"),
        (["solve"], "Missing argument"),
        (["solve", "a.npz", "--gap", "small"], "--gap"),
        (["solve", "a.npz", "--colour"], "No such option"),
        (["solve", "a.npz", "b.npz"], "unexpected extra argument"),
        (["solve", "nowhere.npz", "--solver", "magnitude"], "'nowhere.npz' does not exist"),
        (["bound", "nowhere.npz"], "'nowhere.npz' does not exist"),
    ],
)
def test_usage(refused, argv, message):
    assert message in refused(*argv)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.full((2, 4), np.nan)}, "weights has nan at [0, 0]; every entry must be finite"),
        ({"weights": np.full((2, 4), np.inf)}, "weights has inf at [0, 0]"),
        ({"hessian": np.full((4, 4), np.nan)}, "hessian has nan at [0, 0]"),
        ({"hessian": np.full((4, 4), -np.inf)}, "hessian has -inf at [0, 0]"),
        ({"hessian": np.triu(np.ones((4, 4))) + np.eye(4)}, "asymmetric by 1; give (H + H.T) / 2"),
        ({"hessian": np.diag([1.0, -1, 1, 1])}, "indefinite (smallest eigenvalue -1)"),
        ({"hessian": np.ones((4, 4))}, "singular"),
        ({"hessian": np.eye(5)}, "hessian has shape (5, 5), but weights [2, 4] need (4, 4) or (2, 4, 4)"),
        ({"gradient": np.ones((4, 2))}, "gradient has shape (4, 2), the weights (2, 4)"),
        ({"prune": 5}, "budget prunes 5 weights, but there are only 4 in a row"),
        ({"budget": "per_layer", "prune": 9}, "there are only 8 in the layer"),
        ({"budget": "rows"}, "'rows'; it must be one of per_row, per_layer, n_of_m, columns"),
    ],
)
def test_bad_instance(refused, tmp_path, changes, message):
    path = bad_instance(tmp_path, **changes)
    for command in ("solve", "bound"):
        assert message in refused(command, path)


def test_group_that_does_not_divide_the_inputs(refused, tmp_path):
    np.savez(tmp_path / "bad.npz", weights=np.ones((2, 4)), hessian=np.eye(4), budget="n_of_m", keep=1, of=3)
    assert "`of` = 3 does not divide 4 inputs" in refused("solve", tmp_path / "bad.npz")


def test_solver(refused, instance, tmp_path, monkeypatch):
    assert "did you mean 'brute-force'?" in refused("solve", instance, "--solver", "brute-forse")
    big = tmp_path / "big.npz"
    save(big, random_problem(1, 40, Budget.per_row(20), seed=0))
    assert "more than the limit" in refused("solve", big, "--solver", "brute-force")
    assert "does not do the joint variant" in refused("solve", instance, "--solver", "cp-sat")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gurobipy" else found(name, *rest)
    )
    assert "pip install 'combinatorial-brain-surgeon[gurobi]'" in refused("solve", instance, "-s", "gurobi")


def test_limits(refused, instance):
    solve = ("solve", instance, "--solver", "magnitude")
    assert "time_limit must be positive seconds" in refused(*solve, "--time-limit", "0")
    assert "time_limit must be positive seconds" in refused(*solve, "--time-limit", "nan")
    assert "gap must be a finite number >= 0, got -1.0" in refused(*solve, "--gap", "-1")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", "\xff", '{"pruned": 3}', '{"pruned": [["a"], [1]]}', '{"pruned": [[99], [1]]}'],
)
def test_warm_start_that_is_no_result(refused, instance, tmp_path, content):
    (tmp_path / "warm.json").write_text(content, encoding="latin-1")
    argv = ("solve", instance, "--solver", "magnitude", "--warm-start", tmp_path / "warm.json")
    assert "does not list the pruned columns of each of 2 rows" in refused(*argv)


def test_warm_start_off_the_budget(refused, instance, tmp_path):
    (tmp_path / "warm.json").write_text(json.dumps({"pruned": [[0], [1]]}))
    argv = ("solve", instance, "--solver", "magnitude", "--warm-start", tmp_path / "warm.json")
    assert "does not meet the budget: pool 0 prunes 1 of 8" in refused(*argv)
    assert "nowhere.json" in refused(*argv[:-1], "nowhere.json")
