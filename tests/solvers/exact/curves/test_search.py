"""One row, against enumeration."""

import itertools

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.exact.curves.search import CurveSearch
from solvers.exact.tree.block_tree import Settings
from solvers.form.blocks import blocks
from solvers.greedy.curves import row_curves
from tests.solvers.oracles import gram, make_problem

VARIANTS = [(True, False), (False, False), (False, True)]


def row(rng, refit, gradient=False, n=9, record=False):
    problem = make_problem(rng, Budget.per_row(n // 2), m=1, n=n, refit=refit, gradient=gradient)
    greedy = row_curves(problem.W, problem.hessian, refit=refit, gradient=problem.G)
    return CurveSearch(blocks(problem)[0], greedy.order[0], settings=Settings(record=record))


def least(block, k):
    """The best value of a count, over all its masks."""
    masks = (np.isin(np.arange(block.n), P) for P in itertools.combinations(range(block.n), k))
    return min(block.value(mask) for mask in masks)


@pytest.mark.parametrize(("refit", "gradient"), VARIANTS)
def test_the_point_of_one_split_bounds_every_count(refit, gradient, rng):
    curve = CurveSearch(row(rng, refit, gradient).block, np.arange(9))  # masks far from the best
    curve.root(4)
    best = np.array([least(curve.block, k) for k in range(10)])
    assert (curve.lower <= best).all()
    spread = np.ptp(best)
    assert curve.lower[4] > best[4] - 0.5 * spread
    assert np.isfinite(curve.lower).all()


@pytest.mark.parametrize(("refit", "gradient"), VARIANTS)
@pytest.mark.parametrize("seed", range(5))
def test_splits_of_neighbours_lead_to_bounds_close_to_fresh_ones(seed, refit, gradient):
    """Of what the split of another count lacks, a few Newton steps make up for most."""
    near, fresh = (row(np.random.default_rng(seed), refit, gradient, n=20) for _ in range(2))
    near.polish()
    near.root(10)
    far = near.lower[15]
    for k in range(11, 16):
        near.root(k)
    fresh.root(15)
    assert near.lower[15] - far > 0.7 * (fresh.lower[15] - far) > 0


@pytest.mark.parametrize(("refit", "gradient"), VARIANTS)
def test_polish_never_worsens_and_masks_cost_their_values(refit, gradient):
    curve = row(np.random.default_rng(3), refit, gradient, n=16)
    before = curve.values.copy()
    curve.polish()
    assert (curve.values <= before).all()
    for k in range(17):
        mask = curve.mask(k)
        assert mask.sum() == k
        assert curve.block.value(mask) == pytest.approx(curve.values[k], rel=1e-12, abs=1e-14)


def test_polish_finds_what_greedy_misses():
    rng = np.random.default_rng(1)
    problem = SubsetProblem(rng.standard_normal((1, 12)), gram(rng, 12, 1e-3), Budget.per_row(6))
    greedy = row_curves(problem.W, problem.hessian)
    curve = CurveSearch(blocks(problem)[0], greedy.order[0])
    curve.polish()
    assert curve.values.sum() < 0.99 * greedy.values[0].sum()


def test_a_stopped_polish_changes_nothing(rng):
    curve = row(rng, True)
    before = curve.values.copy()
    curve.polish(lambda: True)
    assert np.array_equal(curve.values, before)


@pytest.mark.parametrize(("refit", "gradient"), VARIANTS)
def test_proofs_of_a_row_close_its_gap(refit, gradient, rng):
    curve = row(rng, refit, gradient, record=True)
    assert curve.prove(5, 1e-6)
    assert curve.closed(5, 1e-6)
    assert curve.values[5] == pytest.approx(least(curve.block, 5), rel=1e-6, abs=1e-12)
    proof = max((p for p in curve.proofs() if 9 - p.keep[0] == 5), key=lambda p: p.bound)
    assert proof.bound >= curve.values[5] - 1e-6 * abs(curve.values[5]) - 4 * curve.noise
    assert proof.bound <= least(curve.block, 5)


def test_a_limit_of_nodes_stops_a_tree_with_a_valid_bound():
    rng = np.random.default_rng(8)
    problem = SubsetProblem(rng.standard_normal((1, 28)), gram(rng, 28, 1e-3), Budget.per_row(20))
    greedy = row_curves(problem.W, problem.hessian)
    short, long = (CurveSearch(blocks(problem)[0], greedy.order[0]) for _ in range(2))
    assert not short.prove(20, 1e-9, limit=1)
    assert long.prove(20, 1e-4)
    assert short.nodes < long.nodes
    assert short.lower[20] <= long.values[20]
    assert short.lower[20] <= long.lower[20] * (1 + 1e-4)
    assert not short.closed(20, 1e-9)


def test_a_bound_above_a_mask_is_refused(rng):
    curve = row(rng, True)
    with pytest.raises(ArithmeticError, match="lies above the value"):
        curve.raise_bounds(curve.values + 1e-6 * curve.block.scale)


def test_pseudo_costs_of_a_neighbour_count_for_one_branching(rng):
    curve = row(np.random.default_rng(8), True, n=24)
    curve.polish()
    curve.prove(16, 1e-6)
    costs = curve.costs
    assert 0 < costs[1::2].max() <= 1.0
    assert (costs >= 0).all()
    assert costs[::2].max() > 0


def test_joint_bounds_hold_for_larger_counts_too(rng):
    curve = row(rng, True)
    bounds = np.full(10, -np.inf)
    bounds[4] = 0.9 * curve.values[4]
    curve.raise_bounds(bounds)
    assert (curve.lower[4:] >= bounds[4]).all()
    assert curve.lower[3] == 0.0
