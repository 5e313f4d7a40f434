"""Better splits for blocks without their fixed entries."""

from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget
from solvers.bounds.node import newton, oracle
from solvers.bounds.node.resplit import improve
from solvers.bounds.node.restriction import part_of, restrict
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.fixings import LONE, block_of, completions, random_fixings
from tests.solvers.oracles import fractions, make_problem


def relaxed(part, d, z, cutoff):
    """The bound of a block at a split."""
    n, (refit, H, B, constant, labels, keep) = len(d), part
    R = H - np.diag(d)[None]
    model = oracle.Model(refit, R, d[None].copy(), B, constant, labels)
    L, q, s, best = np.empty((1, n, n)), np.empty(B.shape), np.empty(n), np.empty((2, n))
    fix, halt = np.zeros(n, np.int8), np.zeros(1, bool)
    return newton.relax(model, keep.copy(), fix, z.copy(), cutoff, 1e-6, 60, L, q, s, best, halt)[0]


def improved(block, fix, effort=6, cutoff=np.inf, halted=False):
    """`(bound, d, found)` of a restricted block, the start's bound there, and what is left."""
    (root,) = split_blocks([block])
    free, left = restrict(part_of(block), fix)
    z, found = root.z[free].copy(), np.zeros((2, len(free)))
    start = relaxed(left, root.d[0, free], z, cutoff)
    bound, d = improve(left, root.d[0, free], z, cutoff, effort, 0.1, 0.05, found, np.array([halted]))
    return bound, d, found, start, left


def definite(H, d):
    """Whether `H - diag(d)` is positive definite, by elimination of rationals."""
    A = fractions(H) - np.diag([Fraction(x) for x in d])
    for k in range(len(A)):
        if A[k, k] <= 0:
            return False
        A[k + 1 :, k + 1 :] -= np.outer(A[k + 1 :, k], A[k, k + 1 :]) / A[k, k]
    return True


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", LONE)
def test_new_splits_are_valid_and_their_bounds_hold(case, seed):
    rng = np.random.default_rng(10 + seed)
    block = block_of(case, rng)
    fix = random_fixings(block, rng)
    least = min(block.value(pruned) for pruned in completions(block, fix))
    cutoff = least + 0.1 * abs(least) + 1e-6 * block.scale
    bound, d, found, _, left = improved(block, fix, cutoff=cutoff)
    assert definite(left.H[0], d)
    assert not block.refit or (d > 0).all()
    assert bound <= least + 1e-12 * block.scale
    z = found[1]
    assert ((z >= -1e-12) & (z <= 1 + 1e-12)).all()
    np.testing.assert_allclose(np.bincount(left.labels, weights=z), left.keep, atol=1e-9)
    again = relaxed(left, d, z, cutoff)
    assert again >= bound - 0.2 * (least - bound) - 1e-12 * block.scale


def test_new_splits_usually_raise_the_bound():
    """Deep in a tree they gain most of what the block's own best split would."""
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, Budget.per_row(10), m=1, n=20, refit=seed % 2 == 0)
        block = blocks(problem)[0]
        fix = np.zeros(20, np.int8)
        fix[rng.choice(20, 8, replace=False)] = np.repeat([-1, 1], 4)
        least = min(block.value(pruned) for pruned in completions(block, fix))
        cutoff = least + 1e-3 * abs(least)
        bound, _, _, start, _ = improved(block, fix, effort=3, cutoff=cutoff)
        assert bound <= least + 1e-12 * block.scale
        gains.append((min(bound, least) - start) / (least - start))
    assert np.median(gains) > 0.3
    assert np.mean(np.array(gains) > 0) >= 0.9


def test_more_steps_raise_the_bound(rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(7), m=1, n=14))
    fix = np.zeros(14, np.int8)
    fix[[2, 5, 9]] = 1, -1, 1
    least = min(block.value(pruned) for pruned in completions(block, fix))
    bounds = [improved(block, fix, effort=steps, cutoff=least)[0] for steps in (0, 2, 8)]
    assert bounds == sorted(bounds)
    assert bounds[0] + 0.1 * (least - bounds[0]) < bounds[2] <= least


def test_halted_work_still_gives_a_valid_split(rng):
    block = block_of("joint", rng)
    fix = np.zeros(9, np.int8)
    fix[[2, 5]] = 1, -1
    first, full = (improved(block, fix, effort=8, halted=halted) for halted in (True, False))
    assert first[0] < full[0]
    assert definite(first[4].H[0], first[1])


def test_work_ends_as_soon_as_the_bound_passes_the_cutoff(rng):
    block = block_of("joint", rng)
    fix = np.zeros(9, np.int8)
    fix[[2, 5]] = 1, -1
    low, full = (improved(block, fix, effort=8, cutoff=cutoff)[0] for cutoff in (0.0, np.inf))
    assert 0.0 <= low < full
