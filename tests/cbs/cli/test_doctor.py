"""What is told of an installation, and of solvers that fail in it."""

import json
import sys

import torch

import solvers
from cbs.cli import main

TRIED = ("auto", "greedy", "factor-search", "osscar")


class Wrong(solvers.Solver):
    """Claims the smallest weights to be optimal."""

    name, summary, proves = "wrong", "for this test", "optimality"

    def run(self, problem, control):
        return solvers.Outcome(problem.pools.expand(problem.pools.smallest(abs(problem.W)), problem.m), 1e3)


def test_versions_and_solvers_are_those_that_there_are(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["environment"]["torch"] == torch.__version__
    known = solvers.available()
    assert found["installed"] == [name for name, facts in known.items() if facts["installed"]]
    assert found["not installed"] == [name for name, facts in known.items() if not facts["installed"]]
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name in known:
        assert name in text


def test_solvers_are_tried_and_those_that_fail_are_named(capsys, monkeypatch):
    known = {name: facts for name, facts in solvers.available().items() if name in TRIED}
    monkeypatch.setattr("solvers.available", lambda: known)
    assert main(["doctor", "--solve", "--json"]) == 0
    tried = json.loads(capsys.readouterr().out)["solvers"]
    assert tried.pop("factor-search").startswith("not tried: its curvature is no factor")
    assert all(word.startswith("works: ") for word in tried.values())
    assert len(tried) == 3
    get = solvers.get_solver
    monkeypatch.setattr("solvers.available", lambda: {**known, "wrong": known["auto"]})
    monkeypatch.setattr("solvers.get_solver", lambda name: Wrong() if name == "wrong" else get(name))
    monkeypatch.setitem(sys.modules["solvers.solve"].registry(), "wrong", Wrong())
    assert main(["doctor", "--solve", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["solvers"]["wrong"]
    assert told.startswith(("is wrong: ", "fails: "))
