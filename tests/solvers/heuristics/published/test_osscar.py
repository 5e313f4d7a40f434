import numpy as np
import pytest

from solvers import Status, get_solver, solve
from solvers.heuristics.published.osscar import OSSCAR
from tests.solvers.heuristics.test_units import posed


@pytest.mark.parametrize("width", [1, 3])
def test_it_is_no_worse_than_greedy_and_mostly_optimal(width):
    excess = []
    for seed in range(8):
        problem = posed(width, prune=4, seed=seed, units=9)
        best = solve(problem, "brute-force").value
        found, greedy = solve(problem, "osscar"), solve(problem, "greedy")
        assert found.value >= best - 1e-9
        excess.append((found.value / best - 1, greedy.value / best - 1))
    ours, greedy = np.array(excess).T
    assert ours.sum() < greedy.sum()
    assert np.count_nonzero(ours < 1e-9) >= 6


def test_where_no_swap_gains_it_ends():
    problem = posed(3, prune=4, seed=2, units=9)
    found = solve(problem, "osscar")
    again = solve(problem, "osscar", warm_start=found.mask)
    assert np.array_equal(again.mask, found.mask)
    assert again.stats["swaps"] == 0


def test_fewer_candidates_try_less():
    problem = posed(2, prune=6, seed=1, units=12)
    every, few = solve(problem, OSSCAR()), solve(problem, OSSCAR(candidates=1))
    assert every.value <= few.value * 1.05
    assert few.value <= solve(problem, "greedy").value * 1.05


def test_it_stops_when_told():
    problem = posed(2, prune=6, units=12)
    found = solve(problem, "osscar", time_limit=1e-9)
    assert found.status is Status.TIME_LIMIT
    assert problem.pools.violation(found.mask) is None


def test_it_is_registered():
    assert get_solver("osscar").budgets == ("columns", "units")
