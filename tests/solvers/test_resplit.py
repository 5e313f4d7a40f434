"""Of bounds/resplit.py: blocks without their fixed entries, and better splits for them."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from exactly import solve_exactly

from solvers import Budget, SubsetProblem
from solvers.blocks import blocks
from solvers.bounds import newton, oracle, resplit
from solvers.bounds.split import split_blocks
from tests.solvers.oracles import fractions, gram, make_problem

CASES = {
    "joint": (Budget.per_row(5), {"n": 9}),
    "selection": (Budget.per_row(5), {"n": 9, "refit": False}),
    "selection with gradient": (Budget.per_row(4), {"n": 9, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 3), {"n": 9}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 9, "refit": False}),
    "columns": (Budget.columns(4), {"m": 3, "n": 8}),
    "columns, own curvatures": (Budget.columns(4), {"m": 3, "n": 8, "kind": "stacked"}),
    "columns of a selection": (Budget.columns(4), {"m": 3, "n": 8, "refit": False}),
}
LONE = [case for case in CASES if case != "columns, own curvatures"]


def block_of(case, rng):
    budget, options = CASES[case]
    return blocks(make_problem(rng, budget, **{"m": 1, **options}))[0]


def random_fixings(block, rng):
    """Some entries fixed as one mask of the budget has them; no pool is left without a choice."""
    fix = np.zeros(block.n, np.int8)
    for p, count in enumerate(block.prune):
        pool = rng.permutation(np.flatnonzero(block.labels == p))
        gone, kept = pool[:count], pool[count:]
        fix[rng.choice(gone, rng.integers(0, count), replace=False)] = -1
        fix[rng.choice(kept, rng.integers(0, len(kept)), replace=False)] = 1
    return fix


def completions(block, fix):
    """Every decision vector of the budget that has the fixings, True where pruned."""
    parts = []
    for p, count in enumerate(block.prune):
        free = np.flatnonzero((block.labels == p) & (fix == 0))
        left = count - int(((block.labels == p) & (fix < 0)).sum())
        parts.append(itertools.combinations(free.tolist(), left))
    for choice in itertools.product(*parts):
        pruned = fix < 0
        pruned[[i for part in choice for i in part]] = True
        yield pruned


def restricted(block, fix):
    return resplit.restrict(block.refit, block.H, block.B, block.constant, block.labels, block.keep, fix)


def cost(refit, H, B, constant, pruned):
    """The cost of decisions from the data that a block is made of."""
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
    free, H, B, constant, labels, need = restricted(block, fix)
    np.testing.assert_array_equal(free, np.flatnonzero(fix == 0))
    np.testing.assert_array_equal(labels, block.labels[free])
    count = 0
    for pruned in completions(block, fix):
        np.testing.assert_array_equal(np.bincount(labels, weights=~pruned[free]), need)
        found = cost(block.refit, H, B, constant, pruned[free])
        assert found == pytest.approx(block.value(pruned), abs=1e-11 * block.scale)
        count += 1
    assert count >= 2


def relaxed(block, H, B, constant, labels, need, d, z, cutoff):
    """The bound of a restricted block at a split."""
    n = len(d)
    R = H - np.diag(d)[None]
    model = oracle.Model(block.refit, R, d[None].copy(), B, constant, labels)
    L, q, s, best = np.empty((1, n, n)), np.empty(B.shape), np.empty(n), np.empty((2, n))
    fix, halt = np.zeros(n, np.int8), np.zeros(1, bool)
    return newton.relax(model, need.copy(), fix, z.copy(), cutoff, 1e-6, 60, L, q, s, best, halt)[0]


def improved(block, fix, effort=6, cutoff=np.inf, halted=False):
    """`(bound, d, found)` of a restricted block, the start's bound there, and its data."""
    (root,) = split_blocks([block])
    left = restricted(block, fix)
    free, H, B, constant, labels, need = left
    z, found = root.z[free].copy(), np.zeros((2, len(free)))
    start = relaxed(block, *left[1:], root.d[0, free], z, cutoff)
    bound, d = resplit.improve(
        block.refit, H, B, constant, labels, need, root.d[0, free], z, cutoff, effort, 0.1, 0.05, found,
        np.array([halted]),
    )  # fmt: skip
    return bound, d, found, start, left


def definite(H, d):
    """Whether `H - diag(d)` is positive definite, by elimination of rationals."""
    A = fractions(H) - np.diag([Fraction(x) for x in d])
    for k in range(len(A)):
        if A[k, k] <= 0:
            return False
        A[k + 1 :, k + 1 :] -= np.outer(A[k + 1 :, k], A[k, k + 1 :]) / A[k, k]
    return True


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", LONE)
def test_new_splits_are_valid_and_their_bounds_hold(case, seed):
    rng = np.random.default_rng(10 + seed)
    block = block_of(case, rng)
    fix = random_fixings(block, rng)
    least = min(block.value(pruned) for pruned in completions(block, fix))
    cutoff = least + 0.1 * abs(least) + 1e-6 * block.scale
    bound, d, found, _, (_, H, B, constant, labels, need) = improved(block, fix, cutoff=cutoff)
    assert definite(H[0], d)
    assert not block.refit or (d > 0).all()
    assert bound <= least + 1e-12 * block.scale
    z = found[1]
    assert ((z >= -1e-12) & (z <= 1 + 1e-12)).all()
    np.testing.assert_allclose(np.bincount(labels, weights=z), need, atol=1e-9)
    again = relaxed(block, H, B, constant, labels, need, d, z, cutoff)
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


def test_more_steps_do_not_weaken_the_bound(rng):
    block = block_of("joint", rng)
    fix = np.zeros(9, np.int8)
    fix[[2, 5]] = 1, -1
    bounds = [improved(block, fix, effort=steps, cutoff=np.inf)[0] for steps in (0, 2, 8)]
    assert bounds == sorted(bounds)
    assert bounds[2] > bounds[0]


def test_halted_work_still_gives_a_valid_split(rng):
    block = block_of("joint", rng)
    fix = np.zeros(9, np.int8)
    fix[[2, 5]] = 1, -1
    first, full = (improved(block, fix, effort=8, halted=halted) for halted in (True, False))
    assert first[0] < full[0]
    assert definite(first[4][1][0], first[1])


def test_work_ends_as_soon_as_the_bound_passes_the_cutoff(rng):
    block = block_of("joint", rng)
    fix = np.zeros(9, np.int8)
    fix[[2, 5]] = 1, -1
    low, full = (improved(block, fix, effort=8, cutoff=cutoff)[0] for cutoff in (0.0, np.inf))
    assert 0.0 <= low < full


def ill_conditioned(rng, n, refit, spread):
    """A block whose curvature is close to singular and whose inputs differ by orders of magnitude."""
    size = np.exp(spread * rng.standard_normal(n))
    X = rng.standard_normal((n - 2, n))
    H = (X.T @ X / n + 1e-7 * np.eye(n)) * np.outer(size, size)
    W = rng.standard_normal((1, n)) / size
    G = None if refit else rng.standard_normal((1, n)) / size
    problem = SubsetProblem(W, 0.5 * (H + H.T), Budget.per_row(n // 2), refit=refit, gradient=G)
    return blocks(problem)[0]


def exact_cost(refit, H, B, constant, pruned):
    """As `cost`, of one curvature and column, in rational arithmetic."""
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
        slack = resplit.elimination(block, root.d[0], 0.0)
        assert slack > 0.0
        assert slack <= resplit.elimination(block, root.d[0], np.inf)
        for _ in range(3):
            fix = random_fixings(block, rng)
            free, H, B, constant, _, _ = restricted(block, fix)
            for pruned in itertools.islice(completions(block, fix), 6):
                true = exact_cost(refit, block.H, block.B, block.constant, pruned)
                left = exact_cost(refit, H, B, constant, pruned[free])
                assert abs(left - true) <= slack
                worst = max(worst, float(abs(left - true)) / slack)
    assert worst > 0.0


def test_elimination_is_as_sharp_as_asked(rng):
    H, W = gram(rng, 6), rng.standard_normal((1, 6))
    block = blocks(SubsetProblem(W, H, Budget.per_row(3)))[0]
    d = np.full(6, 1e-9)
    loose, sharp = resplit.elimination(block, d, np.inf), resplit.elimination(block, d, 0.0)
    least = np.linalg.eigvalsh(H)[0]
    assert loose == pytest.approx(8 * 14 * 2.0**-52 * (np.diag(H) / d).sum() * block.constant)
    assert sharp == pytest.approx(8 * 14 * 2.0**-52 * np.trace(H) / least * block.constant)
    assert sharp < loose
