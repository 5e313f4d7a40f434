"""Blocks that rows begin with: inside the barrier, valid for every row, and nearer than a diagonal split."""

from itertools import count

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.groups.central_path import GROUPING, CentralPath, group_split, start
from solvers.bounds.groups.clusters import clusters, joined
from solvers.bounds.groups.opening import Opening
from solvers.bounds.groups.split import group_bound
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.heuristics.greedy import greedy_mask
from tests.solvers.oracles import gram, optimum

BUDGETS = {"one pool": Budget.per_row(6), "pools": Budget.n_of_m(2, 4)}


def rows_of(problem):
    """Blocks, one diagonal split for all, the indicators of each, and values of masks."""
    found = blocks(problem)
    splits = split_blocks(found)
    values = problem.row_values(greedy_mask(problem)).tolist()
    return found, splits[0].d[0], [split.z for split in splits], values


def opened(problem, size=4, stopped=lambda: None, some=None):
    found, d, shares, values = rows_of(problem)
    groups = clusters(np.linalg.inv(found[0].H[0] - 0.8 * np.diag(d)), found[0], size)
    starts = list(zip(found, [d] * len(found), shares, values, strict=True))[:some]
    return Opening.of(starts, groups, stopped), groups


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("stop", [0, 3, None])
def test_every_row_is_bounded_from_there_wherever_it_was_stopped(budget, stop):
    rng = np.random.default_rng(3)
    problem = SubsetProblem(rng.standard_normal((4, 12)), gram(rng, 12), BUDGETS[budget])
    found, d, shares, values = rows_of(problem)
    asked = count()
    opening, groups = opened(problem, stopped=lambda: stop is not None and next(asked) >= stop, some=2)
    H = found[0].H[0]
    for block, z, value, w in zip(found, shares, values, problem.W, strict=True):
        split = start(block, d, z, opening.families)
        assert np.linalg.eigvalsh(split.remainder(H))[0] > 0.0
        for family in split.families:
            states = family.states
            assert all(
                np.linalg.eigvalsh(D[np.ix_(kept, kept)])[0] > 0.0
                for D in family.D
                for kept in states.kept
                if kept.any()
            )
        best = optimum(SubsetProblem(w[None], problem.hessian, problem.budget))
        begun = group_bound(block, split)
        _, bound = group_split(block, d, z, value, size=4, known=split, last=1e-3)
        _, own = group_split(
            block, d, z, value, size=4, known=joined(block, start(block, d, z), groups), last=1e-3
        )
        assert begun <= bound <= best * (1 + 1e-12)
        assert bound == pytest.approx(own, abs=2e-3 * value)  # wherever a path begins, it ends at the best


def test_a_few_steps_from_there_come_further_than_from_a_diagonal_split():
    rng = np.random.default_rng(5)
    problem = SubsetProblem(rng.standard_normal((8, 64)), gram(rng, 64, 0.05), Budget.per_row(32))
    found, d, shares, values = rows_of(problem)
    opening, groups = opened(problem, 8, some=3)
    reached = np.zeros((len(found), 2))
    for i in range(3, len(found)):
        alone = start(found[i], d, shares[i])
        from_there = start(found[i], d, shares[i], opening.families)
        for k, split in enumerate((joined(found[i], alone, groups), from_there)):
            steps = count()
            path = CentralPath(found[i], split, values[i], heat=GROUPING)
            path.follow(lambda gap: 0.1 * gap, lambda steps=steps: next(steps) >= 6)
            assert path.steps == 6
            reached[i, k] = path.bound / values[i]
    assert (reached[3:, 1] > reached[3:, 0]).mean() > 0.7
    assert (1.0 - reached[3:, 1]).mean() < 0.9 * (1.0 - reached[3:, 0]).mean()


def test_rows_that_cost_nothing_count_with_the_split_they_have():
    rng = np.random.default_rng(7)
    W = rng.standard_normal((3, 12))
    W[0, :6] = 0.0
    problem = SubsetProblem(W, gram(rng, 12), BUDGETS["one pool"])
    found, d, shares, values = rows_of(problem)
    assert values[0] < 1e-12
    opening, groups = opened(problem, some=1)
    assert opening.step == 0.0
    split = start(found[1], d, shares[1], opening.families)
    alone = joined(found[1], start(found[1], d, shares[1]), groups)
    for a, b in zip(split.families, alone.families, strict=True):
        np.testing.assert_array_equal(a.D, b.D)
    np.testing.assert_allclose(split.q, alone.q, rtol=1e-12)
    np.testing.assert_array_equal(split.t, alone.t)
