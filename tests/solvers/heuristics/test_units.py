import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.heuristics.units import FRESH, Units, unsuitable

M, UNITS = 4, 7
WIDTHS = (1, 3)


def posed(width, prune=3, seed=0, m=M, units=UNITS):
    rng = np.random.default_rng(seed)
    n = units * width
    X = rng.normal(size=(5 * n, n)) @ (np.eye(n) + 0.3 * rng.normal(size=(n, n)))
    H = X.T @ X / len(X) + 0.05 * np.eye(n)
    return SubsetProblem(rng.normal(size=(m, n)), H, Budget.columns(prune, width=width))


def cost(problem, units):
    """What units cost, by the problem's own refit."""
    width = problem.pools.width
    mask = np.zeros(problem.W.shape, dtype=bool)
    for unit in units:
        mask[:, unit * width : (unit + 1) * width] = True
    return problem.with_budget(Budget.columns(len(units), width=width)).value(mask)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_move_costs_what_recomputing_says(width):
    problem = posed(width)
    units = Units(problem, np.zeros(problem.n, dtype=bool))
    np.testing.assert_allclose(units.prices(), [cost(problem, [u]) for u in range(UNITS)], rtol=1e-8)
    for unit in (5, 2, 0):
        units.prune(unit)
    assert units.cost == pytest.approx(cost(problem, [0, 2, 5]), rel=1e-9)
    left = [cost(problem, [0, 5]), cost(problem, [2, 5]), cost(problem, [0, 2])]
    np.testing.assert_allclose(units.gains()[[2, 0, 5]], units.cost - np.array(left), rtol=1e-8)
    assert np.isneginf(units.gains()[[1, 3, 4, 6]]).all()
    kept = np.flatnonzero(~units.gone)
    after = units.cost - units.gains()[2] + units._swaps(2, kept)
    np.testing.assert_allclose(after, [cost(problem, [0, 5, u]) for u in kept], rtol=1e-8)
    units.restore(5)
    assert units.cost == pytest.approx(cost(problem, [0, 2]), rel=1e-9)
    np.testing.assert_allclose(units.V.T, problem.with_budget(Budget.columns(2, width=width)).weights(
        np.repeat(units.pruned[None], M, axis=0)), rtol=1e-7, atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_swaps_end_where_none_gains(width):
    problem = posed(width, seed=3)
    units = Units(problem, np.repeat(np.arange(UNITS) < 3, width))
    first = units.cost
    assert units.descend(UNITS, 1e-12, lambda: None, 100) > 0
    gone, kept = np.flatnonzero(units.gone).tolist(), np.flatnonzero(~units.gone).tolist()
    swaps = [[u for u in gone if u != a] + [b] for a in gone for b in kept]
    assert units.cost < first
    assert units.cost <= min(cost(problem, swap) for swap in swaps) + 1e-9


def test_many_pivots_do_not_drift():
    problem = posed(2, seed=5)
    units = Units(problem, np.zeros(problem.n, dtype=bool))
    for _ in range(FRESH):
        units.prune(1)
        units.prune(4)
        units.restore(1)
        units.restore(4)
    units.prune(3)
    assert units.cost == pytest.approx(cost(problem, [3]), rel=1e-9)


def test_everything_and_nothing():
    for prune in (0, UNITS):
        problem = posed(2, prune=prune)
        assert solve(problem, "osscar").value == pytest.approx(solve(problem, "brute-force").value, abs=1e-9)


def test_a_stopped_greedy_still_meets_the_count():
    units = Units(posed(2), np.zeros(2 * UNITS, dtype=bool))
    units.prune_cheapest(3, lambda: True)
    assert units.gone.sum() == 3


def test_what_it_can_not_do_is_said():
    problem = posed(3)
    selection = SubsetProblem(problem.W, problem.hessian.dense(0), problem.budget, refit=False)
    assert unsuitable(selection) == (
        "units of columns are pruned in the joint variant only, where survivors move"
    )
    rows = SubsetProblem(problem.W, np.stack([problem.hessian.dense(0)] * M), problem.budget)
    with pytest.raises(ValueError, match="units of columns need one curvature that all rows share"):
        solve(rows, "greedy")
    with pytest.raises(ValueError, match="does not do the budget 'units', only per_row"):
        solve(problem, "tabu")
    with pytest.raises(ValueError, match="no certificate knows columns that go in units"):
        solve(problem, certify=True)
