import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.bounds.split import Split
from solvers.checker import verify
from solvers.form.blocks import blocks
from solvers.instances import planted, save
from solvers.relaxations.split import Relaxation, round_off
from tests.solvers.oracles import BUDGETS, make_problem, optimum


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_row", "n_of_m", "columns"])
def test_a_planted_optimum_is_proven_without_a_search(budget, refit):
    """Instances whose optimum the split bound attains: the relaxation alone finds and proves it."""
    instance = planted(2, 12, BUDGETS[budget], seed=1, refit=refit, margin=0.3)
    found = solve(instance.problem, "relaxation", gap=1e-2)
    assert found.value == pytest.approx(instance.value, rel=1e-9)
    assert found.bound == pytest.approx(instance.value, rel=1e-2)
    assert found.status is Status.OPTIMAL


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_bound_is_near_the_optimum_and_below(budget, refit, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit)
    best, found = optimum(problem), solve(problem, "relaxation")
    assert found.bound <= best <= found.value
    assert found.bound > 0.3 * best


def test_the_better_of_greedy_and_the_rounded_mask_is_kept():
    better = 0
    for seed in range(12):
        problem = make_problem(np.random.default_rng(seed), Budget.per_row(6), m=1, n=12)
        greedy, relaxed = solve(problem, "greedy"), solve(problem, "relaxation")
        assert relaxed.value <= greedy.value * (1 + 1e-12)
        better += relaxed.value < greedy.value * (1 - 1e-6)
    assert better > 0


def test_rows_have_bounds_that_add_up(rng):
    problem = make_problem(rng, Budget.per_row(3), m=4)
    found = solve(problem, "relaxation")
    rows = found.rows.bound
    assert len(rows) == 4
    assert sum(rows) == pytest.approx(found.bound, rel=1e-12)
    values = problem.row_values(solve(problem, "brute-force").mask)
    assert all(bound <= value for bound, value in zip(rows, values, strict=True))
    assert solve(make_problem(rng, Budget.columns(3)), "relaxation").rows is None


def test_wide_rows_share_a_split(rng):
    problem = make_problem(rng, Budget.per_row(4), m=4, n=9)
    own = solve(problem, "relaxation")
    shared = solve(problem, Relaxation(wide=8))
    assert (own.stats["split"], shared.stats["split"]) == ("own", "shared")
    assert 0.3 * own.bound < shared.bound < own.bound


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize(
    "ask", [{"certify": True}, {"time_limit": 10.0}, {"certify": True, "time_limit": 10.0}]
)
def test_a_layer_of_one_wide_row_is_bounded_as_the_row_is(refit, ask, rng, tmp_path):
    solver = Relaxation(wide=5)
    alone = make_problem(rng, Budget.per_row(4), m=1, n=8, refit=refit)
    layer = SubsetProblem(alone.W, alone.hessian, Budget.per_layer(4), refit=refit)
    best = optimum(layer)
    found, same = solve(layer, solver, **ask), solve(alone, solver, **ask)
    assert found.bound <= best * (1 + 1e-9)
    assert found.bound == pytest.approx(same.bound, rel=0.02)
    if found.certificate is not None:
        save(tmp_path / "layer.npz", layer)
        found.certificate.save(tmp_path / "layer.cert")
        assert verify(tmp_path / "layer.cert", tmp_path / "layer.npz").bound == found.certificate.bound


def test_rounding_prunes_the_least_shares_of_every_pool(rng):
    (block, _) = blocks(make_problem(rng, Budget.n_of_m(2, 3)))
    z = np.array([0.9, 0.1, 0.5, 0.2, 0.2, 0.6])
    pruned = round_off(block, Split(np.ones((1, 6)), z, 0))
    assert pruned.tolist() == [False, True, False, True, False, False]
