"""Rows' own splits beat the shared one, and never the optimum."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.split import split_blocks
from solvers.control import Control
from solvers.form.blocks import blocks
from solvers.relaxations.shared_rows import RaisedRows, _plain
from solvers.relaxations.split import Relaxation
from tests.solvers.oracles import gram, make_problem, optimum


def shared(problem):
    rows = SharedRows.of(problem)
    split = relaxation.choose(rows)
    return rows, split, relaxation.bounds(rows, split, relaxation.relax(rows, split)[0])


def own(rows, split, known, values, bounding, **options):
    """The bounds of the rows' own splits, and how many rows had their turn."""
    raising = RaisedRows(rows, split, values, Control(gap=0.0, **options), {})
    return raising.own(rows, split, known, bounding), raising.stats["own_splits"]


@pytest.mark.parametrize("budget", [Budget.per_row(10), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
def test_bounds_are_near_those_of_the_best_splits(budget, rng):
    problem = make_problem(rng, budget, m=4, n=20)
    rows, split, known = shared(problem)
    bounds, done = own(rows, split, known, 100.0 * known, _plain)
    assert done == 4
    assert (bounds > 1.02 * known).all()
    for bound, block in zip(bounds, blocks(problem), strict=True):
        (best,) = split_blocks([block])
        alone = lower_bound(block, best.d, relaxed_point(block, best.d, best.z))
        assert bound == pytest.approx(alone, rel=8e-2)


def test_the_widest_gaps_go_first_and_closed_ones_do_not(rng):
    problem = make_problem(rng, Budget.per_row(5), m=4, n=12)
    rows, split, known = shared(problem)
    turns = []

    def bounding(lone, own, row):
        turns.append(row)
        assert lone.W.shape == (1, 12)
        return 0.0

    bounds, done = own(rows, split, known, known + np.array([1.0, 3.0, 0.0, 2.0]), bounding)
    assert (sorted(turns[:3]), sorted(turns[3:]), done) == ([0, 1, 3], [0, 1, 3], 3)
    assert turns[0] in (1, 3)
    np.testing.assert_array_equal(bounds, known)
    _, done = own(rows, split, known, known + 1.0, bounding, deadline=0.0)
    assert done == 0
    _, done = own(rows, split, known, known + 1.0, lambda lone, split, row: known[row] + 1e6)
    assert 1 <= done < 4


def test_relaxation_spends_its_time_on_own_splits(rng):
    problem = SubsetProblem(rng.standard_normal((2, 10)), gram(rng, 10), Budget.per_row(5))
    quick = solve(problem, Relaxation(wide=9, grouped=9))
    slow = solve(problem, Relaxation(wide=9, grouped=9), time_limit=60.0)
    assert ("own_splits" in quick.stats, slow.stats["own_splits"]) == (False, 2)
    assert quick.bound < slow.bound <= optimum(problem)
