"""A node's relaxation: its bound and regrets hold for every mask, and its children's start from it."""

import numpy as np
import pytest

from solvers.bounds.node.restriction import part_of
from solvers.budget import Budget
from solvers.exact.grouped import node
from solvers.exact.grouped.node import left_of, relax
from solvers.form.blocks import blocks
from solvers.problem import SubsetProblem
from tests.solvers.oracles import block_masks

BUDGETS = {"one pool": Budget.per_row(6), "2 of 4": Budget.n_of_m(2, 4), "3 of 6": Budget.n_of_m(3, 6)}


def row(seed, n=12, budget=BUDGETS["one pool"]):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, n)) + rng.standard_normal((2 * n, 1))
    H = X.T @ X / len(X) + 1e-2 * np.eye(n)
    return blocks(SubsetProblem(rng.standard_normal((1, n)), H, budget))[0]


def costs(block, fix):
    masks = block_masks(block)
    masks = masks[~(masks & (fix > 0)).any(axis=1) & ~(~masks & (fix < 0)).any(axis=1)]
    return masks, np.array([block.value(mask) for mask in masks])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [4, 8])
def test_bounds_and_regrets_hold_down_a_path(seed, budget, size, monkeypatch):
    monkeypatch.setattr(node, "SIZE", size)
    block, seed_of = row(seed, budget=BUDGETS[budget]), None
    fix, part, never = np.zeros(12, np.int8), part_of(block), lambda: None
    for entry, side in ((None, 0), (3, 1), (7, -1), (8, 1)):
        if entry is not None:
            fix[entry] = side
        free, left = left_of(part, block.rows, fix)
        masks, all_costs = costs(block, fix)
        found = relax(left, free, fix, seed_of, all_costs.min(), np.inf, never)
        assert found.bound <= all_costs.min() * (1 + 1e-12)
        assert found.bound >= (0.8 if size == 8 else 0.7) * all_costs.min()
        assert (found.z > 0.0).all()
        assert (found.z < 1.0).all()
        for place, name in enumerate(free):
            for regret, some in ((found.kept, ~masks[:, name]), (found.pruned, masks[:, name])):
                assert found.bound + regret[place] <= all_costs[some].min() * (1 + 1e-12)
        seed_of = found.seed


def test_a_bound_past_the_cutoff_ends_it():
    block, fix = row(0), np.zeros(12, np.int8)
    free, left = left_of(part_of(block), block.rows, fix)
    value = costs(block, fix)[1].min()
    whole = relax(left, free, fix, None, value, np.inf, lambda: None)
    short = relax(left, free, fix, None, value, 0.5 * whole.bound, lambda: None)
    assert 0.5 * whole.bound <= short.bound <= whole.bound
    assert short.steps < whole.steps


@pytest.mark.parametrize("seed", range(3))
def test_where_branching_is_slow_the_bound_goes_on_to_rise_and_branching_looks_at_the_same(seed, monkeypatch):
    block, fix = row(seed, 16), np.zeros(16, np.int8)
    monkeypatch.setattr(node, "SIZE", 2)
    free, left = left_of(part_of(block), block.rows, fix)
    value = costs(block, fix)[1].min()
    found = {}
    for answer in (False, True):
        monkeypatch.setattr(node, "slow", lambda *_, answer=answer: answer)
        found[answer] = relax(left, free, fix, None, value, value, lambda: None)
    assert found[False].bound + 0.01 * value < found[True].bound <= value
    assert (found[True].gains == found[False].gains).all()
    assert (found[True].z == found[False].z).all()


def test_a_child_that_its_first_points_close_moves_no_blocks():
    block, fix = row(1, 16), np.zeros(16, np.int8)
    part, never = part_of(block), lambda: None
    free, left = left_of(part, block.rows, fix)
    value = costs(block, fix)[1].min()
    root = relax(left, free, fix, None, value, value, never)
    fix[0] = -1
    free, left = left_of(part, block.rows, fix)
    closed = relax(left, free, fix, root.seed, value, 0.5 * root.bound, never)
    assert closed.steps == 0
    assert 0.5 * root.bound <= closed.bound <= value
    assert relax(left, free, fix, root.seed, value, value, never).steps > 0
