"""A selection's relaxation at a node, against every mask of it and against a general solver."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from solvers import Budget
from solvers.bounds.split import split_blocks
from solvers.exact.selections.relaxation import bound_at, descend, repair
from solvers.exact.selections.selection_tree import SelectionTree
from solvers.exact.tree.block_tree import DEFAULT
from solvers.form.blocks import blocks
from tests.solvers.oracles import block_masks, make_problem

CASES = {"one pool": Budget.per_row(5), "pools": Budget.n_of_m(2, 4)}


def node(budget, seed):
    """A selection at its split, fixings of a node of it, and what its pools still have to prune."""
    rng = np.random.default_rng(seed)
    (block,) = blocks(make_problem(rng, budget, m=1, n=12, refit=False, gradient=True))
    tree = SelectionTree(block, DEFAULT).plant(*split_blocks([block]), block.quick, 1e-6)
    fix = np.zeros(12, np.int8)
    fix[0], fix[4] = 1, -1
    need = block.prune.copy()
    need[block.labels[4]] -= 1
    return block, tree.convex, fix, need, rng


def least(block, fix):
    """The least cost of the node's masks."""
    fits = [m for m in block_masks(block) if m[fix < 0].all() and not m[fix > 0].any()]
    return min(block.value(mask) for mask in fits)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_no_point_and_no_thresholds_claim_more_than_the_best_mask(case, seed):
    block, convex, fix, need, rng = node(CASES[case], seed)
    for _ in range(50):
        x, t, s = rng.random(12), rng.standard_normal(len(need)), np.empty(12)
        bound, rounding = bound_at(convex, fix, need, x, t, s)
        assert bound <= least(block, fix)
        assert 0 < rounding < 1e-10 * block.scale
        np.testing.assert_allclose(s, convex.R @ x + convex.shift, rtol=1e-12, atol=1e-12 * block.scale)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_moves_end_where_a_general_solver_does(case, seed):
    block, convex, fix, need, rng = node(CASES[case], seed)
    x, s, t = rng.random(12), np.empty(12), np.zeros(len(need))
    repair(convex, fix, need, x, s)
    descend(convex, fix, least(block, fix) + 1.0, 1e-10, x, s, t)
    bound, _ = bound_at(convex, fix, need, x, t, s)
    pools = np.arange(len(need))[:, None] == block.labels
    ends = [(0.0, 0.0) if f > 0 else (1.0, 1.0) if f < 0 else (0.0, 1.0) for f in fix]
    found = minimize(
        lambda v: 0.5 * v @ convex.R @ v + convex.shift @ v, x, jac=lambda v: convex.R @ v + convex.shift,
        bounds=ends, constraints=LinearConstraint(pools, block.prune, block.prune), method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    assert bound == pytest.approx(found.fun, abs=1e-6 * block.scale)
    np.testing.assert_allclose(pools @ x, block.prune, atol=1e-9)
    assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("case", CASES)
def test_any_point_is_moved_into_the_polytope(case):
    block, convex, fix, need, rng = node(CASES[case], 0)
    for start in (np.zeros(12), np.ones(12), rng.random(12)):
        x, s = start.copy(), np.empty(12)
        repair(convex, fix, need, x, s)
        sums = np.bincount(block.labels, weights=x)
        np.testing.assert_allclose(sums, block.prune, atol=1e-9)
        assert x[0] == 0
        assert x[4] == 1
        assert ((x >= 0) & (x <= 1)).all()
        np.testing.assert_allclose(s, convex.R @ x + convex.shift, rtol=1e-9, atol=1e-12 * block.scale)


def test_a_bound_that_cuts_off_ends_the_moves_early():
    _, convex, fix, need, _ = node(CASES["one pool"], 1)
    x, s, t = np.full(12, 0.5), np.empty(12), np.zeros(1)
    repair(convex, fix, need, x, s)
    start = x.copy()
    descend(convex, fix, -1e9, 1e-9, x, s, t)
    np.testing.assert_array_equal(x, start)
