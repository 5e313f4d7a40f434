"""Conflicts: few fixings whose bound is what was asked for, against enumeration."""

import numpy as np
import pytest

from solvers import Budget
from solvers.bounds.node.oracle import model_of
from solvers.bounds.split import split_blocks
from solvers.foreign.conflicts import neighbour, regrets, shrink
from solvers.form.blocks import blocks
from tests.solvers.oracles import block_masks, make_problem

HALT = np.zeros(1, np.bool_)


def posed(rng, refit, budget=None):
    problem = make_problem(rng, budget or Budget.per_row(4), m=1, n=8, refit=refit, gradient=not refit)
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    return block, model_of(block, np.array(split.d))


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_no_mask_with_the_fixings_left_costs_less_than_the_cutoff(rng, refit):
    block, model = posed(rng, refit)
    masks = block_masks(block)
    costs = np.array([block.value(pruned) for pruned in masks])
    least, sizes = costs.min(), []
    for index in np.argsort(costs)[5::8]:
        fix = np.where(masks[index], -1, 1).astype(np.int8)
        cutoff = least + 0.5 * (costs[index] - least)
        shrink(model, block.keep, fix, rng.permutation(block.n), cutoff, HALT)
        covered = ((fix >= 0) | masks).all(axis=1) & ((fix <= 0) | ~masks).all(axis=1)
        assert covered[index]
        assert costs[covered].min() >= cutoff
        sizes.append(np.count_nonzero(fix))
    assert min(sizes) < max(sizes) < block.n


def test_what_is_first_in_order_is_taken_back_first(rng):
    block, model = posed(rng, True)
    pruned = block_masks(block)[0]
    kept = []
    for order in (np.arange(block.n), np.arange(block.n)[::-1].copy()):
        fix = np.where(pruned, -1, 1).astype(np.int8)
        shrink(model, block.keep, fix, order, 0.97 * block.value(pruned), HALT)
        kept.append(np.flatnonzero(fix).mean())
    assert kept[0] > kept[1]


def test_fixings_that_can_not_be_met_are_not_asked_for(rng):
    block, model = posed(rng, True, Budget.n_of_m(2, 4))
    fix = np.where(block_masks(block)[3], -1, 1).astype(np.int8)
    shares = shrink(model, block.keep, fix, np.arange(block.n), -1.0, HALT)
    assert not fix.any()
    np.testing.assert_allclose(np.bincount(block.labels, weights=shares), block.keep)
    beside = np.array([1, 0, 0, 0, 0, 0, -1, 0], np.int8)
    found = neighbour(model, block.keep, beside, shares, HALT)
    assert found[0] == 1.0
    assert found[6] == 0.0
    np.testing.assert_allclose(np.bincount(block.labels, weights=found), block.keep)


def test_regrets_are_what_the_sum_of_the_best_loses(rng):
    labels, keep = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([1, 2])
    for _ in range(20):
        scores = rng.standard_normal(7)
        kept = np.zeros(7, bool)
        kept[[rng.integers(3), *(3 + rng.permutation(4)[:2])]] = True
        lost = regrets(scores, labels, keep, kept)
        for i in range(7):
            pool = np.flatnonzero(labels == labels[i])
            ranked = np.sort(scores[pool])[::-1]
            level = ranked[keep[labels[i]] - 1]
            assert lost[i] == max(0.0, level - scores[i] if kept[i] else scores[i] - level)
