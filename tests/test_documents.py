"""What documents tell people to run in Python, runs."""

import re
from pathlib import Path

import numpy as np
import pytest

import cbs
from solvers import Budget, solve
from tests.cbs.networks import mlp, samples, seeded
from tests.solvers.oracles import make_problem

ROOT = Path(__file__).parents[1]


def snippets(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_best_subset_selection():
    (code,) = snippets("docs/mathematics.md")
    found = {}
    exec(code, found)
    dense = ((found["y"] - found["X"] @ found["ols"]) ** 2).sum()
    assert found["rss"] == pytest.approx(found["solution"].value + dense, rel=1e-9)
    kept = found["kept"]
    again = np.linalg.lstsq(found["X"][:, kept], found["y"], rcond=None)[0]
    np.testing.assert_allclose(found["solution"].weights[0, kept], again, rtol=1e-8)
    assert found["solution"].gap <= 1e-4


def test_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = {}
    codes = snippets("README.md")
    assert len(codes) == 3
    for code in codes:
        exec(code, found)
    assert (tmp_path / "layer.npz").is_file()
    assert "->" in capsys.readouterr().out


def test_solvers_and_methods_of_ones_own(rng):
    found = {}
    for code in snippets("docs/architecture.md"):
        exec(code, found)
    problem = make_problem(rng, Budget.per_layer(5))
    solution = solve(problem, found["Smallest"]())
    assert solution.solver == "smallest"
    assert abs(problem.W[solution.mask]).max() <= abs(problem.W[~solution.mask]).min()
    result = cbs.prune(seeded(mlp), samples(), method=found["wanda"], sparsity=0.5)
    assert result.sparsity == 0.5
