"""What people read at the terminal: no name is cut, and brackets are shown as they are."""

import re
from dataclasses import replace

import pytest

import cbs
from cbs.cli import main
from cbs.cli.output import print_table, results
from cbs.cli.ticker import Ticker
from cbs.report.tables import terminal
from cbs.watch import Step
from solvers import Budget, available
from solvers.instances import random_problem, save
from tests.cbs.networks import mlp, samples, seeded


@pytest.fixture(params=[60, 80, 140])
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def printed(capsys, *argv):
    assert main([str(arg) for arg in argv]) == 0
    return capsys.readouterr().out


def test_every_solver_is_named_whole_and_its_hint_too(width, capsys):
    text = printed(capsys, "solvers")
    assert max(map(len, text.splitlines())) <= width
    firsts = {line.split()[0] for line in text.splitlines() if line.strip()}
    for name, facts in available().items():
        assert name in firsts
        if not facts["installed"]:
            assert facts["install"] in text
    assert "…" not in text


def test_every_method_is_named_whole(width, capsys):
    text = printed(capsys, "methods")
    assert max(map(len, text.splitlines())) <= width
    assert {line.split()[0] for line in text.splitlines() if line.strip()} >= set(cbs.methods())
    assert "…" not in text
    assert "[H^-1]_qq" in " ".join(text.split())


def test_results_name_every_method_whole(width, capsys):
    result = cbs.prune(
        seeded(mlp), samples(), sparsity=0.5, method="magnitude", granularity="neurons", certify=False
    )
    named = [replace(result, request=replace(result.request, method=name)) for name in cbs.methods()]
    results().print(terminal(named))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    assert {word for line in text.splitlines() for word in line.split()} >= set(cbs.methods())
    assert "…" not in text


def test_the_curve_shows_whole_numbers(width, capsys, tmp_path):
    save(tmp_path / "layer.npz", random_problem(2, 6, Budget.per_row(3), seed=0))
    text = printed(capsys, "curve", tmp_path / "layer.npz")
    lines = text.splitlines()[:-2]  # the last two tell status and remedy
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert re.search(r"^3 of 6 .*%", text, re.MULTILINE)


def test_help_fits_and_shows_brackets(width, capsys):
    for name in ("prune", "solve", "curve", "verify", "export", "bound", "solvers", "methods"):
        text = printed(capsys, name, "-h")
        assert max(map(len, text.splitlines())) <= width
        assert f"Usage: cbs {name}" in text


def test_names_are_not_taken_as_markup(capsys):
    print_table(("name", "what [bold]"), [("[cplex]", "[/] :smile:"), ("layers[0]", "[red]")])
    text = capsys.readouterr().out
    for word in ("[cplex]", "layers[0]", "[/] :smile:", "[red]", "what [bold]"):
        assert word in text
    results().print("written to [run]")
    assert capsys.readouterr().out == "written to [run]\n"
    with Ticker(1) as ticker:
        ticker(Step("joint", "select", "blocks[conv]", 0, 1))
    assert "blocks[conv]" in capsys.readouterr().err


def test_words_too_wide_for_a_table_make_paragraphs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "26")
    print_table(("name", "kind"), [("a-very-long-name-of-a-solver", "a-long-word-too")])
    assert capsys.readouterr().out == "a-very-long-name-of-a-solver\n  kind: a-long-word-too\n"
