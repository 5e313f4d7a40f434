"""HiGHS: the linearised programme is the binary quadratic one, and its process does as it is told."""

import subprocess

import numpy as np
import pytest
import scipy.optimize

from solvers import Budget, Status, SubsetProblem, solve
from solvers.foreign import highs
from solvers.foreign.highs import Highs, linearised
from solvers.foreign.models import binary_quadratic
from tests.solvers.oracles import BUDGETS, all_masks, make_problem, optimum

if not Highs.installed():
    pytest.skip("highspy is not installed", allow_module_level=True)


@pytest.mark.parametrize("budget", BUDGETS)
def test_linearised_programme_is_the_quadratic_one(rng, budget):
    problem = make_problem(rng, BUDGETS[budget], refit=False, gradient=True, kind="stacked")
    quadratic = binary_quadratic(problem)
    for mask in list(all_masks(problem))[::7]:
        x = problem.pools.decisions(mask)
        model = linearised(quadratic, x, 2.0)
        assert 2.0 * model.c @ model.start == pytest.approx(quadratic.value(x), rel=1e-9, abs=1e-9)
        rows = model.A @ model.start
        assert (rows >= model.lower).all()
        assert (rows <= model.upper).all()


@pytest.mark.parametrize("budget", ["per_row", "per_layer", "columns"])
def test_products_of_integer_decisions_are_forced(rng, budget):
    problem = make_problem(rng, BUDGETS[budget], m=1 if budget == "per_row" else 2, refit=False)
    model = linearised(binary_quadratic(problem), problem.pools.decisions(next(all_masks(problem))), 1.0)
    fixed = np.arange(len(model.c)) < model.decisions
    bounds = scipy.optimize.Bounds(np.where(fixed, model.start, 0.0), np.where(fixed, model.start, 1.0))
    rows = scipy.optimize.LinearConstraint(model.A, model.lower, model.upper)
    for sign in (1.0, -1.0):
        found = scipy.optimize.milp(sign * np.ones(len(model.c)), bounds=bounds, constraints=rows)
        np.testing.assert_allclose(found.x, model.start, atol=1e-9)


def test_counts_times_decisions_tighten_the_relaxation(rng):
    problem = SubsetProblem(np.ones((1, 8)), np.eye(8) + 0.5, Budget.per_row(5), refit=False)
    model = linearised(binary_quadratic(problem), problem.pools.decisions(next(all_masks(problem))), 1.0)
    values = []
    for rows in (len(model.lower), len(model.lower) - 8):
        limits = scipy.optimize.LinearConstraint(model.A[:rows], model.lower[:rows], model.upper[:rows])
        values.append(scipy.optimize.milp(model.c, bounds=(0.0, 1.0), constraints=limits).fun)
    best = optimum(problem)
    assert values[0] == pytest.approx(best)  # all products cost the same, and their sum is known
    assert values[1] < 0.95 * best


def test_its_process_is_gone_after_the_time_limit(rng, monkeypatch):
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    n = 40
    X = rng.standard_normal((n, n))
    problem = SubsetProblem(rng.standard_normal((1, n)), X.T @ X, Budget.per_row(n // 2), refit=False)
    solution = solve(problem, "highs", time_limit=0.7)
    assert solution.status is Status.TIME_LIMIT
    assert np.isfinite(solution.bound)
    assert started
    assert all(process.poll() is not None for process in started)


def test_a_failing_process_is_an_error(rng, monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import sys; sys.stdin.buffer.read(); sys.exit('it is broken')")
    monkeypatch.setattr(highs, "PROCESS", broken)
    problem = make_problem(rng, Budget.per_row(3), refit=False)
    with pytest.raises(RuntimeError, match="it is broken"):
        solve(problem, "highs", gap=0.0)


def test_refuses_what_it_would_never_finish(rng):
    problem = SubsetProblem(rng.standard_normal((1, 300)), np.eye(300), Budget.per_row(3), refit=False)
    assert "44850 products" in (Highs().refuses(problem) or "")
