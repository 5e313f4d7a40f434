"""Blocks without their fixed entries."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.node.restriction import elimination, part_of, restrict
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.exactly import solve_exactly
from tests.solvers.fixings import CASES, block_of, completions, random_fixings
from tests.solvers.oracles import fractions, gram


def cost(part, pruned):
    """The cost of decisions from the data that a block is made of."""
    refit, H, B, constant, _, _ = part
    if not refit:
        return constant + 0.5 * H[0][np.ix_(pruned, pruned)].sum() - B[0, pruned, 0].sum()
    kept = ~pruned
    return constant - sum(
        0.5 * (b[kept] * np.linalg.solve(A[np.ix_(kept, kept)], b[kept])).sum()
        for A, b in zip(H, B, strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_a_block_without_its_fixed_entries_costs_the_same(case, seed):
    rng = np.random.default_rng(seed)
    block = block_of(case, rng)
    fix = random_fixings(block, rng)
    free, left = restrict(part_of(block), fix)
    np.testing.assert_array_equal(free, np.flatnonzero(fix == 0))
    np.testing.assert_array_equal(left.labels, block.labels[free])
    count = 0
    for pruned in completions(block, fix):
        np.testing.assert_array_equal(np.bincount(left.labels, weights=~pruned[free]), left.keep)
        found = cost(left, pruned[free])
        assert found == pytest.approx(block.value(pruned), abs=1e-11 * block.scale)
        count += 1
    assert count >= 2


def ill_conditioned(rng, n, refit, spread):
    """A block whose curvature is close to singular and whose inputs differ by orders of magnitude."""
    size = np.exp(spread * rng.standard_normal(n))
    X = rng.standard_normal((n - 2, n))
    H = (X.T @ X / n + 1e-7 * np.eye(n)) * np.outer(size, size)
    W = rng.standard_normal((1, n)) / size
    G = None if refit else rng.standard_normal((1, n)) / size
    problem = SubsetProblem(W, 0.5 * (H + H.T), Budget.per_row(n // 2), refit=refit, gradient=G)
    return blocks(problem)[0]


def exact_cost(part, pruned):
    """As `cost`, of one curvature and column, in rational arithmetic."""
    refit, H, B, constant, _, _ = part
    A, b = fractions(H[0]), fractions(B[0, :, 0])
    if not refit:
        return Fraction(constant) + A[np.ix_(pruned, pruned)].sum() / 2 - b[pruned].sum()
    kept = np.flatnonzero(~pruned)
    return Fraction(constant) - b[kept] @ solve_exactly(A[np.ix_(kept, kept)], b[kept]) / 2


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_what_elimination_may_round_covers_what_it_does(refit, spread):
    n, worst = 7, 0.0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        block = ill_conditioned(rng, n, refit, spread)
        (root,) = split_blocks([block])
        slack = elimination(block, root.d[0], 0.0)
        assert slack > 0.0
        assert slack <= elimination(block, root.d[0], np.inf)
        for _ in range(3):
            fix = random_fixings(block, rng)
            free, left = restrict(part_of(block), fix)
            for pruned in itertools.islice(completions(block, fix), 6):
                true = exact_cost(part_of(block), pruned)
                after = exact_cost(left, pruned[free])
                assert abs(after - true) <= slack
                worst = max(worst, float(abs(after - true)) / slack)
    assert worst > 0.0


def test_elimination_is_as_sharp_as_asked(rng):
    H, W = gram(rng, 6), rng.standard_normal((1, 6))
    block = blocks(SubsetProblem(W, H, Budget.per_row(3)))[0]
    d = np.full(6, 1e-9)
    loose, sharp = elimination(block, d, np.inf), elimination(block, d, 0.0)
    least = np.linalg.eigvalsh(H)[0]
    assert loose == pytest.approx(8 * 14 * 2.0**-52 * (np.diag(H) / d).sum() * block.constant)
    assert sharp == pytest.approx(8 * 14 * 2.0**-52 * np.trace(H) / least * block.constant)
    assert sharp < loose
