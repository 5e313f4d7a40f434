import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import solvers
from cbs.cli import main
from cbs.cli.output import number, percent, plain
from solvers import Budget, SubsetProblem, available, solve
from solvers.instances import load, random_problem, save
from solvers.solve import registry
from tests.solvers.distributions import distribution

FIELDS = ["solver", "status", "value", "bound", "gap", "seconds", "nodes", "pruned"]


@pytest.fixture
def instance(tmp_path):
    path = tmp_path / "layer.npz"
    save(path, random_problem(2, 8, Budget.per_row(4), seed=0))
    return path


def run_json(capsys, *argv):
    assert main([str(a) for a in argv]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_solve_json_is_the_contract(capsys, instance):
    result = run_json(capsys, "solve", instance, "--solver", "brute-force", "--json")
    problem = load(instance)
    assert list(result) == FIELDS
    assert result["solver"] == "brute-force"
    assert result["status"] == "optimal"
    mask = np.zeros((2, 8), dtype=bool)
    for row, columns in enumerate(result["pruned"]):
        assert columns == sorted(columns)
        mask[row, columns] = True
    assert problem.value(mask) == result["value"] == solve(problem, "brute-force").value
    assert result["bound"] <= result["value"]
    assert result["gap"] == pytest.approx((result["value"] - result["bound"]) / result["value"])


def test_infinite_bound_and_gap_are_null(capsys, tmp_path):
    W = np.arange(1.0, 9.0)[None]  # with a gradient a cost may be negative
    save(tmp_path / "layer.npz", SubsetProblem(W, np.eye(8), Budget.per_row(4), gradient=W))
    result = run_json(capsys, "solve", tmp_path / "layer.npz", "--solver", "magnitude", "--json")
    assert result["status"] == "feasible"
    assert result["bound"] is None
    assert result["gap"] is None


def test_solve_for_people(capsys, instance):
    assert main(["solve", str(instance), "--solver", "brute-force"]) == 0
    captured = capsys.readouterr()
    facts = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
    assert list(facts) == FIELDS
    assert facts["status"].startswith("optimal: the gap asked for is proven")
    assert facts["pruned"] == "8 of 16 weights"
    assert float(facts["value"]) == pytest.approx(solve(load(instance), "brute-force").value, rel=1e-6)
    assert "incumbent" in captured.err
    assert "bound" in captured.err


def test_warm_start_takes_what_json_printed(capsys, instance, tmp_path):
    best = run_json(capsys, "solve", instance, "--solver", "brute-force", "--json")
    (tmp_path / "best.json").write_text(json.dumps(best))
    alone = run_json(capsys, "solve", instance, "--solver", "magnitude", "--json")
    warm = run_json(
        capsys, "solve", instance, "--solver", "magnitude", "--json", "--warm-start", tmp_path / "best.json"
    )
    assert warm["value"] == best["value"] < alone["value"]


@pytest.mark.parametrize("argv", [["solve", "--solver", "auto"], ["bound"]])
def test_the_registered_defaults(capsys, instance, argv):
    result = run_json(capsys, argv[0], instance, *argv[1:], "--json")
    best = solve(load(instance), "brute-force").value
    assert result["bound"] <= best * (1 + 1e-9)
    assert best <= result["value"] * (1 + 1e-9)


def test_bound_takes_what_exact_solvers_refuse(capsys, tmp_path):
    save(tmp_path / "wide.npz", random_problem(2, 60, Budget.per_layer(60), seed=1))
    result = run_json(capsys, "bound", tmp_path / "wide.npz", "--json")
    assert 0 < result["bound"] <= result["value"]


def test_solvers_lists_the_registry(capsys):
    assert run_json(capsys, "solvers", "--json") == plain(available())
    assert main(["solvers"]) == 0
    table = capsys.readouterr().out
    for name in available():
        assert name in table


def test_a_broken_plug_in_is_one_line(capsys, tmp_path, monkeypatch):
    registry.cache_clear()
    known = list(registry())
    registry.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, "broken_solvers", "[cbs.solvers]\nmine = broken_solvers:mine")
    assert main(["solvers", "--json"]) == 0
    registry.cache_clear()
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == known
    assert captured.err.startswith(
        "cbs: plug-in cbs.solvers 'mine' of broken_solvers (broken_solvers:mine) is"
    )
    assert captured.err.count("\n") == 1


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()
    for argv in ([], ["--help"], ["-h"], ["help"], ["solve", "--help"], ["bound", "-h"], ["prune", "-h"]):
        assert main(argv) == 0
        captured = capsys.readouterr()
        assert "Usage: cbs" in captured.out
        assert captured.err == ""


def test_numbers():
    assert plain({"a": (math.inf, np.float64(1), np.arange(2)), 3: -math.inf, "n": math.nan}) == {
        "a": [None, 1.0, [0, 1]], "3": None, "n": None,
    }  # fmt: skip
    assert number(math.inf) == number(None) == percent(math.inf) == "unknown"
    assert percent(0.1234567) == "12.3%"


class SlowToStop(solvers.Solver):
    """A solver that finds a mask and a bound, then never looks at its control again."""

    name, summary = "slow-to-stop", "for the test of a second Ctrl-C"

    def run(self, problem, control):
        mask = problem.pools.expand(problem.pools.smallest(problem.W**2), problem.m)
        control.report(problem.value(mask), 0.01, 7, mask)
        raise KeyboardInterrupt


def test_a_second_interrupt_still_writes_the_incumbent_and_bound(capsys, instance, monkeypatch):
    monkeypatch.setattr("solvers.get_solver", lambda name: SlowToStop())
    assert main(["solve", str(instance), "--json"]) == 130
    result = json.loads(capsys.readouterr().out)
    problem = load(instance)
    assert result["status"] == "interrupted"
    assert result["bound"] == 0.01
    assert result["value"] == solve(problem, "magnitude").value


def test_an_interrupt_before_any_mask_says_so(capsys, instance, monkeypatch):
    class Nothing(SlowToStop):
        def run(self, problem, control):
            raise KeyboardInterrupt

    monkeypatch.setattr("solvers.get_solver", lambda name: Nothing())
    assert main(["solve", str(instance), "--json"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "cbs: interrupted before there was a result\n"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_prints_the_best_so_far_and_exits_130(tmp_path):
    path = tmp_path / "hard.npz"
    save(path, random_problem(1, 150, Budget.per_row(100), seed=0))
    command = [sys.executable, "-m", "cbs", "solve", str(path), "--solver", "branch-and-bound", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--gap", "0"], **pipes) as process:
        for line in process.stderr:
            if "bound unknown" not in line:
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert "incumbent" in line
    result = json.loads(out)
    mask = np.zeros((1, 150), dtype=bool)
    mask[0, result["pruned"][0]] = True
    assert process.returncode == 130
    assert result["status"] == "interrupted"
    assert result["value"] == pytest.approx(load(path).value(mask), rel=1e-12)
    assert 0 <= result["bound"] <= result["value"]
