import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem, solve
from solvers.hessian import DenseHessian, StackedHessian
from solvers.heuristics.chita import CHITA, _largest_eigenvalue
from tests.solvers.oracles import gram, make_problem, optimum

BUDGETS = [Budget.per_row(9), Budget.per_layer(20), Budget.n_of_m(1, 4), Budget.columns(8)]


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_thresholding_lowers_the_value_of_magnitude(budget, kind):
    gained = 0
    for seed in range(5):
        problem = make_problem(np.random.default_rng(seed), budget, n=12, kind=kind)
        start, found = solve(problem, "magnitude"), solve(problem, "chita")
        assert found.value <= start.value
        assert problem.pools.violation(found.mask) is None
        gained += found.value < 0.99 * start.value
    assert gained >= 2


def test_a_factor_and_its_matrix_give_the_same_answer(rng):
    H = FactorHessian(rng.standard_normal((6, 30)), 0.1)
    W = rng.standard_normal((1, 30))
    found = [solve(SubsetProblem(W, A, Budget.per_layer(20)), "chita") for A in (H, H.dense(0))]
    assert found[0].mask.tolist() == found[1].mask.tolist()
    assert found[0].stats == found[1].stats


def test_an_optimal_start_stays(rng):
    problem = make_problem(rng, Budget.per_row(3))
    best = solve(problem, "brute-force")
    assert solve(problem, "chita", warm_start=best.mask).value == pytest.approx(optimum(problem), rel=1e-12)


def test_small_active_sets_leave_less_to_find(rng):
    problem = make_problem(rng, Budget.per_layer(50), n=40, m=2)
    narrow, wide = solve(problem, CHITA(active=1.0)), solve(problem, CHITA(active=40.0))
    assert wide.value <= narrow.value


@pytest.mark.parametrize("stacked", [False, True])
def test_the_largest_eigenvalue_is_met_from_above(stacked, rng):
    H = np.stack([gram(rng, 6) for _ in range(3)])
    hessian = StackedHessian(H) if stacked else DenseHessian(H[0])
    exact = np.linalg.eigvalsh(H if stacked else H[0]).max()
    assert exact <= _largest_eigenvalue(hessian, 3) <= 1.06 * exact
