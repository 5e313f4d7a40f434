"""What is printed of problems and results: short, and without arrays."""

import re

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, curve, solve, solve_together
from solvers.instances import planted, random_problem
from solvers.solution import RowBounds, Solution, Status
from solvers.solver import Outcome
from solvers.summary import first, number, percent


def shown(thing, most=1000):
    """The text of a thing, by all ways to it; no longer than some lines, and no array in it."""
    text = repr(thing)
    assert text == str(thing) == f"{thing}"
    assert len(text) <= most
    assert not re.search(r"array\(|tensor\(|\.\.\.,|\[\[|dtype| object at 0x", text)
    return text


@pytest.fixture
def problem():
    return random_problem(6, 12, Budget.per_layer(36), seed=0)


def test_a_solution_says_how_good_it_is(problem):
    solution = solve(problem, "branch-and-bound", certify=True)
    text = shown(solution)
    assert text.splitlines()[0] == "Solution by branch-and-bound: optimal, the gap asked for is proven"
    assert f"value {solution.value:.7g}, bound {solution.bound:.7g}, gap {percent(solution.gap)}" in text
    assert "36 of 72 weights pruned" in text
    assert shown(solution.certificate).startswith("Certificate(1 problems, ")


def test_a_solution_without_a_bound_says_so(problem):
    mask = problem.pools.smallest(problem.W**2)
    solution = Solution.judge(
        problem, mask, -np.inf, Status.FEASIBLE, gap=1e-4, seconds=1.25, solver="magnitude"
    )
    assert "bound unknown, gap unknown" in shown(solution)
    assert "1.25 s" in shown(solution)
    assert shown(RowBounds(np.arange(6.0))) == "RowBounds(6 rows, bounds from 0 to 5)"
    shown(Outcome(mask, proof=(mask,), rows=RowBounds(np.zeros(6))))


def test_curves_and_shared_budgets(problem):
    found = curve(problem)
    text = shown(found)
    assert text.startswith("Curve of 6 rows, 0 to 12 pruned of each: ")
    assert f"{int(found.proven.sum())} of 78 proven to 0.01%" in text
    together = solve_together([problem] * 30)
    text = shown(together, most=1200)
    assert text.startswith("Together, 30 problems: optimal")
    assert "... and 19 more" in text
    assert len(text.splitlines()) < 20


def test_problems_and_budgets():
    problem = random_problem(300, 12, Budget.per_row([3] * 299 + [5]), seed=0)
    assert shown(problem) == (
        "SubsetProblem(300 x 12 weights, joint, Budget.per_row(300 counts from 3 to 5), DenseHessian)"
    )
    other = SubsetProblem(
        np.ones((2, 4)), np.eye(4), Budget.n_of_m(1, 3), refit=False, gradient=np.ones((2, 4)), movable=[3]
    )
    assert shown(other) == (
        "SubsetProblem(2 x 4 weights, selection, Budget.n_of_m(1, 3), gradient, 1 movable, DenseHessian)"
    )
    shown(planted(2, 8, Budget.per_row(3), seed=0))


@pytest.mark.parametrize(
    "budget",
    [Budget.per_row(3), Budget.per_row([1, 2]), Budget.per_layer(7), Budget.n_of_m(2, 4), Budget.columns(2)],
)
def test_a_short_budget_is_shown_as_it_is_made(budget):
    assert eval(shown(budget), {"Budget": Budget}) == budget


def test_numbers():
    assert number(1 / 3) == "0.3333333"
    assert number(None) == number(np.nan) == percent(np.inf) == "unknown"
    assert first(["a", "b"], 2) == ["a", "b"]
    assert first(["a", "b", "c"], 2) == ["a", "... and 2 more"]
