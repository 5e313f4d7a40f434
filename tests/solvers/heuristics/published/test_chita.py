import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem, solve
from solvers.hessian import DenseHessian, StackedHessian
from solvers.heuristics.published.chita import CHITA, _first_change, _largest_eigenvalue, _path
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


def test_small_active_sets_leave_less_to_find():
    narrow = wide = 0.0
    for seed in range(10):
        problem = make_problem(np.random.default_rng(seed), Budget.per_layer(50), n=40, m=2)
        narrow += solve(problem, CHITA(active=1.0, fall=0.0)).value
        wide += solve(problem, CHITA(active=40.0, fall=0.0)).value
    assert wide < narrow


@pytest.mark.parametrize("stacked", [False, True])
def test_the_largest_eigenvalue_is_met_from_above(stacked, rng):
    H = np.stack([gram(rng, 6) for _ in range(3)])
    hessian = StackedHessian(H) if stacked else DenseHessian(H[0])
    exact = np.linalg.eigvalsh(H if stacked else H[0]).max()
    assert exact <= _largest_eigenvalue(hessian, 3) <= 1.06 * exact


def ill_conditioned(rng, N=30, n=60):
    """A factor whose singular values fall by a factor of 0.7 each."""
    U, V = (np.linalg.qr(rng.standard_normal((k, N)))[0] for k in (N, n))
    return FactorHessian(np.sqrt(N) * (U * 0.7 ** np.arange(N)) @ V.T, 1e-5)


def test_stages_find_what_thresholding_misses():
    """From magnitude alone, the largest eigenvalues leave steps too short to find much."""
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        H = ill_conditioned(rng)
        problem = SubsetProblem(rng.standard_normal((1, 60)), H, Budget.per_layer(40))
        alone, staged = solve(problem, CHITA(fall=0.0)), solve(problem, "chita")
        shares.append(staged.value / alone.value)
    assert np.mean(shares) < 0.9


def test_stages_fall_to_the_budget():
    pools = Budget.n_of_m(1, 4).laid_over(2, 8)
    assert [stage.prune.tolist() for stage in _path(pools, 0.72)] == [[2] * 4]
    counts = [int(stage.prune[0]) for stage in _path(Budget.per_layer(90).laid_over(1, 100), 0.5)]
    assert counts == [50, 75, 88]
    assert not list(_path(Budget.per_layer(90).laid_over(1, 100), 0.0))


def test_the_first_change_is_where_a_weight_is_overtaken():
    pools = Budget.per_layer(2).laid_over(1, 4)
    v, g = np.array([[3.0, 2.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 4.0, -8.0]])
    assert _first_change(pools, np.arange(4), v, g) == 0.25
    assert _first_change(pools, np.arange(4), v, np.zeros((1, 4))) == 0.0
