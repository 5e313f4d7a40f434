"""Rows' own splits beat the shared one, and never the optimum."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.shared import relaxation as wide
from solvers.bounds.shared.own_splits import own_bounds, plain_bound
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.relaxations import split as relaxation
from tests.solvers.oracles import gram, make_problem, optimum


def shared(problem):
    rows = SharedRows.of(problem)
    split = wide.choose(rows)
    return rows, split, wide.bounds(rows, split, wide.relax(rows, split)[0])


@pytest.mark.parametrize("budget", [Budget.per_row(10), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
def test_bounds_are_near_those_of_the_best_splits(budget, rng):
    problem = make_problem(rng, budget, m=4, n=20)
    rows, split, known = shared(problem)
    bounds, done = own_bounds(rows, split, known, np.full(4, np.inf), plain_bound, lambda: None)
    assert done == 4
    assert (bounds > 1.02 * known).all()
    for bound, block in zip(bounds, blocks(problem), strict=True):
        (best,) = split_blocks([block])
        own = lower_bound(block, best.d, relaxed_point(block, best.d, best.z))
        assert bound == pytest.approx(own, rel=8e-2)


def test_the_widest_gaps_go_first_and_closed_ones_do_not(rng):
    problem = make_problem(rng, Budget.per_row(5), m=4, n=12)
    rows, split, known = shared(problem)
    turns = []

    def bounding(lone, own, row):
        turns.append(row)
        assert lone.W.shape == (1, 12)
        return 0.0

    bounds, done = own_bounds(
        rows, split, known, known + np.array([1.0, 3.0, 0.0, 2.0]), bounding, lambda: None
    )
    assert (sorted(turns[:3]), sorted(turns[3:]), done) == ([0, 1, 3], [0, 1, 3], 3)
    assert turns[0] in (1, 3)
    np.testing.assert_array_equal(bounds, known)
    _, done = own_bounds(rows, split, known, known + 1.0, bounding, lambda: True)
    assert done == 0
    told = []
    _, done = own_bounds(
        rows, split, known, known + 1.0, bounding, lambda: None, news=lambda b: told.append(b) or 1
    )
    assert 1 <= len(told) <= done < 4


def test_relaxation_spends_its_time_on_own_splits(rng, monkeypatch):
    problem = SubsetProblem(rng.standard_normal((2, 10)), gram(rng, 10), Budget.per_row(5))
    monkeypatch.setattr(relaxation, "WIDE", 9)
    monkeypatch.setattr(relaxation, "GROUPED", 9)
    quick = solve(problem, "relaxation")
    slow = solve(problem, "relaxation", time_limit=60.0)
    assert ("own_splits" in quick.stats, slow.stats["own_splits"]) == (False, 2)
    assert quick.bound < slow.bound <= optimum(problem)
