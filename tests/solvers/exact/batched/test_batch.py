"""Relaxations of grids of nodes, against one at a time."""

import numpy as np
import pytest
import torch

from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import lower_bound
from solvers.bounds.split import split_blocks
from solvers.exact.batched.batch import Batch, Pools
from solvers.form.blocks import blocks
from tests.solvers.oracles import block_masks, make_problem, relaxed_value

CASES = {
    "joint": (Budget.per_row(6), {"n": 12}),
    "selection with gradient": (Budget.per_row(6), {"n": 12, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 4), {"n": 12}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 12, "refit": False}),
    "columns": (Budget.columns(7), {"m": 3, "n": 12}),
    "columns, own curvatures": (Budget.columns(7), {"m": 3, "n": 12, "kind": "stacked"}),
}
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])


def grid(case, b=5, seed=0):
    """Blocks, splits, their batch, the masks of a block, and a grid of fixings that random masks respect."""
    budget, options = CASES[case]
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, budget, **{"m": 2, **options})
    found = blocks(problem)
    splits = split_blocks(found)
    batch = Batch.of(found, splits, "cpu")
    masks = block_masks(found[0])
    fix = np.where(masks[rng.integers(len(masks), size=(len(found), b))], -1, 1)
    fix = torch.as_tensor(np.where(rng.random(fix.shape) < 0.3, fix, 0).astype(np.int8))
    return found, splits, batch, masks, batch.pools.settle(fix, batch.keep)[0], rng


def inside(masks, fix):
    """The masks that respect fixings."""
    return masks[~(masks & (fix > 0)).any(axis=1) & ~(~masks & (fix < 0)).any(axis=1)]


def test_shares_fill_their_pools(rng):
    pools = Pools.of(LABELS, 3, "cpu")
    slope = torch.tensor(rng.uniform(0.1, 10.0, (4, 3, 10)))
    offset = torch.tensor(rng.standard_normal((4, 3, 10)))
    free = torch.tensor(rng.random((4, 3, 10)) < 0.8)
    free[..., ::2] = True
    need = pools.total(free) * torch.tensor([0.3, 0.5, 0.9])
    shares, t = pools.fill(slope.float(), offset.float(), free, need, None, 60)
    same, _ = pools.fill(slope.float(), offset.float(), free, need, t, 2)
    torch.testing.assert_close(same, shares)
    torch.testing.assert_close(pools.total(shares), need)
    level = (shares - offset) / slope
    between = free & (shares > 1e-4) & (shares < 1.0 - 1e-4)
    for p in range(3):
        for at in np.ndindex(4, 3):
            here = torch.as_tensor(p == LABELS)
            levels = level[at][between[at] & here]
            assert len(levels) == 0 or levels.max() - levels.min() < 1e-4
            t = levels.mean() if len(levels) else None
            if t is not None:
                expected = (slope[at] * t + offset[at]).clamp(0, 1)[free[at] & here]
                torch.testing.assert_close(shares[at][free[at] & here].double(), expected, atol=1e-3, rtol=0)
    assert not shares[~free].any()


def test_full_and_empty_pools_are_settled():
    pools = Pools.of(LABELS, 3, "cpu")
    fix = torch.tensor([[[1, 1, 0, 0, 0, 0, -1, -1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]], dtype=torch.int8)
    settled, impossible = pools.settle(fix, torch.tensor([[2, 1, 2]]))
    assert settled[0, 0].tolist() == [1, 1, -1, -1, 0, 0, -1, -1, 1, 1]
    assert impossible.tolist() == [[False, True]]
    _, short = pools.settle(fix, torch.tensor([[4, 1, 3]]))
    assert short.tolist() == [[True, False]]


def test_ranking_takes_each_pools_best(rng):
    pools = Pools.of(LABELS, 3, "cpu")
    scores = torch.tensor(rng.standard_normal((2, 3, 10)))
    fix = torch.tensor(rng.integers(-1, 2, (2, 3, 10)), dtype=torch.int8)
    need = torch.minimum(torch.tensor([2.0, 1.0, 1.0]), pools.total(fix == 0))
    ranked = pools.rank(scores, fix, need)
    taken = pools.unrank(ranked, ranked.taken & ranked.score.isfinite())
    for at in np.ndindex(2, 3):
        total = 0.0
        for p in range(3):
            free = np.flatnonzero((p == LABELS) & (fix[at].numpy() == 0))
            best = free[np.argsort(-scores[at].numpy()[free])][: int(need[at][p])]
            total += scores[at].numpy()[best].sum()
            assert sorted(np.flatnonzero(taken[at].numpy() & (p == LABELS))) == sorted(best)
        assert float(ranked.total[at]) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_bounds_at_any_point_are_those_of_one_node_and_no_mask_is_below(case):
    found, splits, batch, masks, fix, rng = grid(case)
    groups, _, columns = found[0].B.shape
    u = torch.tensor(rng.standard_normal((*fix.shape[:2], groups, columns, 12)))
    lower = batch.evaluate(fix, u).lower
    for f, b in np.ndindex(*lower.shape):
        block, fixed, point = found[f], fix[f, b].numpy(), u[f, b].numpy().swapaxes(1, 2)
        one = lower_bound(block, splits[f].d, point, kept=fixed > 0, pruned=fixed < 0)
        assert max(float(lower[f, b]), block.floor) == pytest.approx(one, rel=1e-9, abs=1e-9 * block.scale)
        least = min(block.value(mask) for mask in inside(masks, fixed))
        assert float(lower[f, b]) <= least + 1e-14 * block.scale


@pytest.mark.parametrize("case", CASES)
def test_the_ascent_nears_the_relaxation_and_never_passes_it(case):
    found, splits, batch, _, fix, _ = grid(case, b=1)
    root = torch.zeros_like(fix)
    shares, x = batch.ascend(root, torch.zeros((len(found), 1, *batch.B.shape[1:])), 400)
    torch.testing.assert_close(batch.pools.total(shares), batch.keep[:, None].float())
    lower = batch.evaluate(root, batch.point(x)).lower
    shares, near = batch.ascend(fix, x, 40)
    assert not shares[fix < 0].any()
    assert (shares[fix > 0] == 1).all()
    below, start = (batch.evaluate(fix, batch.point(y)).lower for y in (near, x))
    assert (below > start - 1e-5 * start.abs()).all()
    assert (below > start).any()
    for f, block in enumerate(found):
        best = relaxed_value(block, splits[f].d)
        assert float(lower[f, 0]) == pytest.approx(best, rel=1e-2)
        assert float(lower[f, 0]) <= best + 1e-6 * abs(best)
        assert float(below[f, 0]) <= relaxed_value(block, splits[f].d, fix[f, 0].numpy()) * (1 + 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_scores_fix_what_the_bound_at_the_same_point_would(case):
    _, _, batch, _, fix, _ = grid(case, b=1)
    _, x = batch.ascend(fix, torch.zeros((*fix.shape[:2], *batch.B.shape[1:])), 200)
    found = batch.evaluate(fix, batch.point(x))
    sides = np.full((*fix.shape, 2), np.inf)
    for f, i in np.argwhere(fix[:, 0].numpy() == 0):
        for k, side in enumerate((-1, 1)):
            other = fix.clone()
            other[f, 0, i] = side
            other, impossible = batch.pools.settle(other, batch.keep)
            if not impossible[f, 0]:
                sides[f, 0, i, k] = float(batch.evaluate(other, batch.point(x)).lower[f, 0])
    worst = np.where(fix == 0, sides.max(axis=-1), np.nan)
    cutoff = np.nanmedian(np.where(np.isfinite(worst), worst, np.nan), axis=(1, 2))
    fixed, least = batch.fix(fix, found, torch.tensor(cutoff))
    for f in range(len(cutoff)):
        margin, removed = 1e-9 * abs(cutoff[f]), []
        for i in np.flatnonzero(fix[f, 0] == 0):
            if fixed[f, 0, i] == 0:
                assert sides[f, 0, i].max() < cutoff[f] + margin
            else:
                removed.append(sides[f, 0, i, 0 if fixed[f, 0, i] > 0 else 1])
                assert removed[-1] >= cutoff[f] - margin
        assert 0 < len(removed) < int((fix[f, 0] == 0).sum())
        assert float(least[f, 0]) == pytest.approx(min(removed), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_masks_get_their_cost_and_a_bound_as_high(case):
    found, _, batch, masks, _, rng = grid(case)
    some = masks[rng.integers(len(masks), size=(len(found), 4))]
    cost, u = batch.exact(torch.as_tensor(~some))
    lower = batch.evaluate(torch.as_tensor(np.where(some, -1, 1)), u).lower
    for f, b in np.ndindex(*cost.shape):
        value = found[f].value(some[f, b])
        assert float(cost[f, b]) == pytest.approx(value, rel=1e-9, abs=1e-12 * found[f].scale)
        assert value - 1e-9 * found[f].scale < float(lower[f, b]) <= value + 1e-15 * found[f].scale


@pytest.mark.parametrize("size", [1e-100, 1e100])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_the_size_of_the_data_does_not_matter(refit, size, rng):
    base = make_problem(rng, Budget.per_row(6), m=2, n=12, refit=refit)
    large = SubsetProblem(base.W * 2.0**20, base.hessian.dense(0) * size, base.budget, refit=refit)
    lower = []
    for problem in (base, large):
        found = blocks(problem)
        batch = Batch.of(found, split_blocks(found), "cpu")
        fix = torch.zeros((2, 1, 12), dtype=torch.int8)
        _, x = batch.ascend(fix, torch.zeros((2, 1, 1, 1, 12)), 200)
        lower.append(batch.evaluate(fix, batch.point(x)).lower)
    torch.testing.assert_close(lower[1] / (size * 2.0**40), lower[0], rtol=2e-2, atol=0.0)
